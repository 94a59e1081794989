"""`dataset.image_transforms` on the command line and in files, and what is said about mistakes in it."""

import json

import pytest
import torch

from lerobot.core.config import decode, encode
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.source import DatasetConfig
from lerobot.datasets.transforms import Compose, ImageTransformConfig, ImageTransforms, ImageTransformsConfig
from lerobot.datasets.transforms import transform as module
from tests.fakes.dataset import DEPTH, IMAGE, NUMBERS, VIDEO, make

NEEDED = ["--repo_id=me/data", "--image_transforms.enable=true"]


def read(*words):
    return parse(DatasetConfig, [*NEEDED, *words], program="test").image_transforms


def test_flags_of_the_guide():
    cfg = read(
        "--image_transforms.max_num_transforms=2",
        "--image_transforms.random_order=true",
        "--image_transforms.tfs={light: {weight: 2, type: ColorJitter, kwargs: {brightness: [0.8, 1.2]}}}",
    )
    assert (cfg.enable, cfg.max_num_transforms, cfg.random_order) == (True, 2, True)
    assert encode(cfg)["tfs"] == {
        "light": {"weight": 2.0, "type": "ColorJitter", "kwargs": {"brightness": [0.8, 1.2]}}
    }


def test_a_file_holds_what_the_other_implementation_writes():
    cfg = read()
    assert list(encode(cfg)) == ["enable", "max_num_transforms", "random_order", "tfs"]
    assert list(encode(cfg)["tfs"]["hue"]) == ["weight", "type", "kwargs"]
    assert decode(ImageTransformsConfig, json.loads(json.dumps(encode(cfg)))) == cfg


WRONG = {
    "type: ColourJitter": "no image transform 'ColourJitter'. Did you mean 'ColorJitter'?",
    "type: ColorJitter, kwargs: {brightnes: 0.2}": "no argument 'brightnes'. Did you mean 'brightness'?",
    "type: ColorJitter, kwargs: {brightness: [1.2, 0.8]}": "brightness=[1.2, 0.8]: expected a number or",
    "type: ColorJitter, kwargs: {hue: 0.7}": "hue=0.7: expected a number or [from, to] from -0.5 to 0.5",
    "type: ColorJitter, kwargs: {contrast: bright}": "contrast='bright': expected",
    "type: SharpnessJitter": "SharpnessJitter needs 'sharpness'",
    "type: RandomAffine, kwargs: {degrees: 5, translate: [0.1, 5]}": "each from 0 to 1",
    "type: RandomAffine, kwargs: {degrees: 5, interpolation: cubic}": "one of nearest, bilinear",
    "type: RandomRotation, kwargs: {degrees: 5, expand: true}": "pictures of a batch keep their size",
    "type: RandomHorizontalFlip, kwargs: {p: 2}": "p=2: expected a number from 0 to 1",
    "type: GaussianBlur, kwargs: {kernel_size: 4}": "an odd whole number",
    "type: MotionBlur, kwargs: {kernel_size: [4, 4]}": "holds an odd number",
    "type: JPEGCompression, kwargs: {quality: [0, 50]}": "quality=[0, 50]: expected",
    "type: CoarseDropout, kwargs: {max_holes: 2.5}": "max_holes=2.5: expected a whole number",
    "type: RandomCrop, kwargs: {size: [8, 8, 8]}": "[height, width] in whole pixels",
    "type: Identity, kwargs: {p: 1}": "Identity takes no arguments",
    "type: ColorJitter, weight: -1": "weight=-1.0: expected 0 or more",
}


@pytest.mark.parametrize("entry", WRONG)
def test_a_mistake_is_named(entry):
    with pytest.raises(ConfigError) as caught:
        read(f"--image_transforms.tfs={{mine: {{{entry}}}}}")
    assert "image_transforms: tfs.mine: " in str(caught.value) and WRONG[entry] in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--image_transforms.max_num_transforms=0", "expected at least 1"),
        ("--image_transforms.tfs={a: {type: RandomInvert, weight: 0}}", "weight above 0"),
        ("--image_transforms.tfs={a: {kind: RandomInvert}}", "tfs.a.kind is unknown"),
    ],
)
def test_other_mistakes(flag, said):
    with pytest.raises(ConfigError, match=said):
        read(flag)


def test_what_is_off_is_not_checked():
    """A file of another release may hold types that we do not have; it opens as long as they are off."""
    text = "--image_transforms.tfs={a: {type: FutureTransform}}"
    cfg = parse(DatasetConfig, ["--repo_id=me/data", text], program="test").image_transforms
    assert cfg.tfs["a"].type == "FutureTransform" and not cfg.enable


def test_single_pictures_of_a_dataset_change_and_depth_never_does(tmp_path):
    root = make(tmp_path / "data", [3], {**NUMBERS, **VIDEO, **IMAGE, **DEPTH}).root
    brighter = ImageTransforms(
        ImageTransformsConfig(enable=True, tfs={"a": decode_entry("ColorJitter", brightness=[1.5, 1.5])})
    )
    plain = LeRobotDataset("me/made", root=root)
    changed = LeRobotDataset("me/made", root=root, image_transforms=brighter)
    for camera in (*VIDEO, *IMAGE):
        torch.testing.assert_close(changed[1][camera], (plain[1][camera] * 1.5).clamp(0, 1))
    for camera in DEPTH:
        assert torch.equal(changed[1][camera], plain[1][camera])


def decode_entry(kind, **kwargs):
    return ImageTransformConfig(type=kind, kwargs=kwargs)


def test_callables_one_after_the_other():
    picture = torch.rand(3, 4, 5)
    both = Compose([lambda image: image * 0.5, lambda image: image.flip(-1)])
    torch.testing.assert_close(both(picture), (picture * 0.5).flip(-1))


def test_bytes_stay_bytes():
    picture = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    assert torch.equal(module.Identity()(picture), picture)


def test_what_is_no_picture_is_refused():
    with pytest.raises(TypeError, match=r"\(4, 5\)"):
        module.Identity()(torch.rand(4, 5))
    with pytest.raises(TypeError, match="int64"):
        module.Identity()(torch.zeros(3, 4, 5, dtype=torch.long))
