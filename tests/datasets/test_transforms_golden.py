"""Pictures that LeRobot 0.6.1 with torchvision changed from a seed, and ours from the same seed."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.config import encode
from lerobot.datasets import transforms
from lerobot.datasets.transforms import (
    ImageTransformConfig,
    ImageTransforms,
    ImageTransformsConfig,
    make_transform_from_config,
)
from lerobot.datasets.transforms.arguments import ARGUMENTS

GOLDEN = Path(__file__).parents[1] / "golden" / "transforms"
INFO = json.loads((GOLDEN / "transforms.json").read_text())
TENSORS = load_file(GOLDEN / "transforms.safetensors")
IMAGE = TENSORS["image"].float() / 255


def same(picture, name):
    torch.testing.assert_close(picture, TENSORS[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INFO["single"])
def test_one_transform(name):
    case = INFO["single"][name]
    transform = make_transform_from_config(ImageTransformConfig(type=case["type"], kwargs=case["kwargs"]))
    torch.manual_seed(case["seed"])
    same(transform(IMAGE.clone()), f"single/{name}")


@pytest.mark.parametrize("name", INFO["composed"])
def test_several_transforms(name):
    torch.manual_seed(INFO["composed"][name]["seed"])
    same(composed(name)(IMAGE.clone()), f"composed/{name}")


def composed(name):
    kind, number = name.split("_")
    if kind == "default":
        most = [3, 6, 1, 2, 3, 6][int(number)]
        cfg = ImageTransformsConfig(enable=True, max_num_transforms=most, random_order=int(number) % 2 == 1)
        return ImageTransforms(cfg)
    if kind == "weighted":
        cfg = ImageTransformsConfig(enable=True, max_num_transforms=2, random_order=True)
        cfg.tfs["hue"].weight, cfg.tfs["affine"].weight = 0.0, 5.0
        gamma = ImageTransformConfig(weight=2.0, type="GammaCorrection", kwargs={"gamma": (0.5, 2.0)})
        cfg.tfs["gamma"] = gamma
        return ImageTransforms(cfg)
    flips = [transforms.RandomHorizontalFlip(1.0), transforms.RandomVerticalFlip(1.0)]
    return transforms.RandomSubsetApply(
        [*flips, transforms.Grayscale(3)], p=[1, 2, 3], n_subset=2, random_order=True
    )


def test_switched_off():
    assert torch.equal(ImageTransforms(ImageTransformsConfig())(IMAGE), TENSORS["composed/off"])


def test_the_published_set_is_the_one_in_files():
    assert encode(ImageTransformsConfig()) == INFO["default_config"]


def test_a_transform_draws_what_it_needs_and_no_more():
    """After it, torch's generator stands where the other implementation left it: a flip draws one number."""
    torch.manual_seed(5)
    transforms.RandomHorizontalFlip(0.5)(IMAGE)
    after = torch.rand(1)
    torch.manual_seed(5)
    torch.rand(1)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("home", ["lerobot.transforms.transforms", "lerobot.transforms"])
def test_old_places_lead_here(home):
    assert importlib.import_module(home).ImageTransforms is ImageTransforms


def test_every_known_type_can_be_imported():
    assert {name for name in ARGUMENTS if isinstance(getattr(transforms, name), type)} == set(ARGUMENTS)
