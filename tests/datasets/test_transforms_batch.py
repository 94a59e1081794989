"""Batches: what a sample gets follows from seed, epoch, camera and frame number, and from nothing else."""

import numpy as np
import pytest
import torch

from lerobot.core.errors import ConfigError
from lerobot.datasets.transforms import BatchTransforms, ImageTransformConfig, ImageTransformsConfig
from lerobot.datasets.transforms.draws import KeyedDraws, mix, sample_keys, with_place
from lerobot.datasets.transforms.transform import Shape

HEIGHT, WIDTH = 20, 30
SIZE = [HEIGHT, WIDTH]
ALL = {
    "jitter": ("ColorJitter", {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.1}),
    "gamma": ("GammaCorrection", {}),
    "light": ("PlanckianJitter", {}),
    "grey": ("Grayscale", {"num_output_channels": 3}),
    "some grey": ("RandomGrayscale", {"p": 0.5}),
    "inverted": ("RandomInvert", {}),
    "solar": ("RandomSolarize", {"threshold": 0.5}),
    "poster": ("RandomPosterize", {"bits": 3}),
    "stretched": ("RandomAutocontrast", {}),
    "sharpness": ("SharpnessJitter", {"sharpness": [0.5, 1.5]}),
    "sharp": ("RandomAdjustSharpness", {"sharpness_factor": 2}),
    "blur": ("GaussianBlur", {"kernel_size": [3, 5]}),
    "motion": ("MotionBlur", {}),
    "noise": ("GaussianNoise", {}),
    "jpeg": ("JPEGCompression", {}),
    "affine": ("RandomAffine", {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 5}),
    "rotation": ("RandomRotation", {"degrees": 30, "interpolation": "bilinear", "fill": [0.1, 0.2, 0.3]}),
    "left right": ("RandomHorizontalFlip", {}),
    "upside down": ("RandomVerticalFlip", {"p": 0.3}),
    "crop": ("RandomCrop", {"size": SIZE, "padding": 4, "fill": 0.5}),
    "edges": ("RandomCrop", {"size": SIZE, "padding": [3, 5], "padding_mode": "reflect"}),
    "zoom": ("RandomResizedCrop", {"size": SIZE, "ratio": [0.2, 5.0]}),
    "erased": ("RandomErasing", {"scale": [0.1, 0.9]}),
    "holes": ("CoarseDropout", {"max_height_frac": 0.3, "max_width_frac": 0.3}),
    "spots": ("GaussianPatchBrightness", {}),
    "shadow": ("RandomShadow", {}),
    "nothing": ("Identity", {}),
}
INDEX = torch.tensor([7, 0, 123456, 3, 8, 2])


def config(*names, **how):
    tfs = {name: ImageTransformConfig(type=ALL[name][0], kwargs=ALL[name][1]) for name in names or ALL}
    return ImageTransformsConfig(enable=True, tfs=tfs, **how)


def pictures(frames=None, height=HEIGHT):
    shape = (len(INDEX), *([frames] if frames else []), 3, height, WIDTH)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def change(images, cfg, *, index=INDEX, epoch=2, camera="top", seed=5):
    return BatchTransforms(cfg, seed=seed)(images, index=index, epoch=epoch, camera=camera)


@pytest.mark.parametrize("name", ALL)
def test_a_sample_does_not_depend_on_its_batch(name):
    images = pictures()
    together = change(images, config(name))
    assert together.dtype == torch.float32 and together.shape == images.shape
    assert together.min() >= 0 and together.max() <= 1
    for k in range(len(INDEX)):
        alone = change(images[k : k + 1], config(name), index=INDEX[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=0, atol=1e-6)


@pytest.mark.parametrize("random_order", [False, True])
def test_parts_and_order_of_a_batch_do_not_matter(random_order):
    images, cfg = pictures(), config(max_num_transforms=5, random_order=random_order)
    together = change(images, cfg)
    shuffled = torch.tensor([4, 2, 0, 5, 1, 3])
    torch.testing.assert_close(
        change(images[shuffled], cfg, index=INDEX[shuffled]), together[shuffled], rtol=0, atol=1e-5
    )
    halves = [change(images[part], cfg, index=INDEX[part]) for part in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(torch.cat(halves), together, rtol=0, atol=1e-5)


def test_large_pictures_go_through_one_by_one_and_come_out_the_same():
    images, cfg = pictures(frames=2, height=6000), config("jitter", "affine", "left right", "noise")
    together = change(images, cfg)
    few = change(images[2:3], cfg, index=INDEX[2:3])
    torch.testing.assert_close(few[0], together[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", [{"epoch": 3}, {"camera": "wrist"}, {"seed": 6}, {"index": INDEX + 1}])
def test_epoch_camera_seed_and_frame_all_count(other):
    images, cfg = pictures(), config("jitter", "affine")
    once = change(images, cfg)
    assert torch.equal(once, change(images, cfg))
    different = (change(images, cfg, **other) - once).abs().amax(dim=(1, 2, 3))
    assert (different > 1e-3).all()


@pytest.mark.parametrize("name", [name for name in ALL if name != "noise"])
def test_a_window_does_not_flicker(name):
    still = pictures()[:, None].expand(-1, 3, -1, -1, -1)  # (B, 3, C, H, W), the same picture three times
    changed = change(still, config(name))
    torch.testing.assert_close(changed[:, 1], changed[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(changed[:, 2], change(pictures(), config(name)), rtol=0, atol=1e-6)


def test_bytes_and_floats_give_the_same_and_stay_as_they_are():
    images, cfg = pictures(), config(max_num_transforms=4)
    as_float, kept = images.float() / 255, images.clone()
    torch.testing.assert_close(change(images, cfg), change(as_float, cfg))
    assert torch.equal(images, kept) and torch.equal(as_float, kept.float() / 255)


def test_torchs_generator_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    change(pictures(), config(max_num_transforms=len(ALL)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_batch_uses_the_formulas_of_single_pictures():
    """With a range of one value nothing is left to chance: both ways give the same picture."""
    tfs = {"jitter": ImageTransformConfig(type="ColorJitter", kwargs={"saturation": [1.4, 1.4]})}
    cfg = ImageTransformsConfig(enable=True, tfs=tfs)
    images = pictures()
    single = BatchTransforms(cfg, seed=0).transforms["jitter"]
    torch.testing.assert_close(
        change(images, cfg), torch.stack([single(image) for image in images.float() / 255])
    )


def test_how_often_each_is_chosen():
    cfg = config("jitter", "gamma", "blur", max_num_transforms=2, random_order=True)
    cfg.tfs["jitter"].weight = 3.0
    plan = BatchTransforms(cfg, seed=0)._plan(keys(4000))
    assert (plan[:, 0] != plan[:, 1]).all()
    first = torch.bincount(plan[:, 0], minlength=3) / 4000
    assert torch.allclose(first, torch.tensor([0.6, 0.2, 0.2]), atol=0.03)
    # 1 - P(not first) * P(not second | not first): what drawing without replacement gives
    assert abs((plan == 0).any(dim=1).float().mean() - (0.6 + 0.4 * 0.75)) < 0.03


def test_listed_order_is_kept_and_weight_0_is_never():
    cfg = config("jitter", "gamma", "blur", "noise", max_num_transforms=2)
    cfg.tfs["gamma"].weight = 0.0
    transforms = BatchTransforms(cfg, seed=0)
    assert list(transforms.transforms) == ["jitter", "blur", "noise"]
    plan = transforms._plan(keys(300))
    assert ((plan >= 0).sum(dim=1) == 2).all()
    assert all((plan[:, k] == k)[plan[:, k] >= 0].all() for k in range(3))


def keys(count):
    return sample_keys(seed=1, epoch=0, camera="top", index=np.arange(count))


def test_random_numbers_are_even_and_independent():
    draws = KeyedDraws(keys(20000), torch.device("cpu"))
    one, two = draws.unit(3), draws.unit(3)
    numbers = torch.cat([one, two], dim=1).double()
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert torch.allclose(numbers.mean(dim=0), torch.tensor(0.5).double(), atol=0.01)
    assert torch.allclose(numbers.var(dim=0), torch.tensor(1 / 12).double(), atol=0.005)
    assert (torch.corrcoef(numbers.T) - torch.eye(6)).abs().max() < 0.03
    counts = torch.bincount(draws.integers(2, 6))
    assert counts[:2].sum() == 0 and torch.allclose(counts[2:] / 20000, torch.tensor(0.25), atol=0.02)
    assert (draws.order(4).sort(dim=1).values == torch.arange(4)).all()


def test_places_and_samples_have_streams_of_their_own():
    many = np.concatenate([with_place(keys(1000), place) for place in range(5)])
    assert len(np.unique(many)) == 5000


def test_splitmix_is_the_published_one():
    """First number from state 0, as in the reference implementation by Vigna."""
    assert int(mix(np.uint64(0))) == 0xE220A8397B1DCDAF


def test_noise_is_normal():
    noise = KeyedDraws(keys(3), torch.device("cpu")).noise((2, 3, 101, 77)).double()
    assert noise.shape == (3, 2, 3, 101, 77)
    flat = noise.flatten(1)
    assert flat.mean(dim=1).abs().max() < 0.02 and (flat.std(dim=1) - 1).abs().max() < 0.02
    assert abs((flat.abs() > 2).double().mean() - 0.0455) < 0.004
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.03
    assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 0.02


def test_shadows_are_as_often_dark_as_light():
    transform = BatchTransforms(config("shadow"), seed=0).transforms["shadow"]
    change = transform.draw(KeyedDraws(keys(2000), torch.device("cpu")), Shape(1, 3, 8, 8))["change"]
    assert abs((change < 0).float().mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [("RandomCrop", {"size": 8}), ("Grayscale", {}), ("RandomResizedCrop", {"size": [20, 20]})],
)
def test_another_size_is_refused(kind, kwargs):
    tfs = {"small": ImageTransformConfig(type=kind, kwargs=kwargs)}
    with pytest.raises(ConfigError, match=r"'small'.*size=\[20, 30\]"):
        change(pictures(), ImageTransformsConfig(enable=True, tfs=tfs))


@pytest.mark.parametrize(
    ("kind", "kwargs", "said"),
    [
        ("RandomCrop", {"size": [40, 40]}, "20x30"),
        ("GaussianBlur", {"kernel_size": 41}, "30x20"),
    ],
)
def test_pictures_that_are_too_small(kind, kwargs, said):
    tfs = {"large": ImageTransformConfig(type=kind, kwargs=kwargs)}
    with pytest.raises(ConfigError, match=said):
        change(pictures(), ImageTransformsConfig(enable=True, tfs=tfs))
