import numpy as np
import pytest
import torch

from lerobot.core.errors import FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.policies.observation import flatten, to_tensors

TOP, STATE = "observation.images.top", "observation.state"
FEATURES = {
    STATE: PolicyFeature(FeatureType.STATE, (2,)),
    TOP: PolicyFeature(FeatureType.VISUAL, (3, 8, 10)),
}


def test_nested_views_and_short_names():
    nested = {
        "state": 1,
        "environment_state": 2,
        "images": {"top": 3},
        "task": "go",
        "observation.image": 4,
        "action": 5,
        "action_is_pad": 6,
        "next.reward": 7,
    }
    wanted = {
        STATE: 1,
        "observation.environment_state": 2,
        TOP: 3,
        "task": "go",
        "observation.image": 4,
        "action": 5,
        "action_is_pad": 6,
        "next.reward": 7,
    }
    assert flatten(nested) == wanted
    assert flatten({"observation": nested, "index": 8}) == wanted | {"index": 8}
    assert flatten(wanted) == wanted


@pytest.mark.parametrize("batch", [(), (4,)], ids=["alone", "batch"])
@pytest.mark.parametrize("last", [False, True], ids=["CHW", "HWC"])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_every_form_of_an_image_comes_out_alike(batch, last, kind, library):
    wanted = np.random.default_rng(0).integers(0, 256, (*batch, 3, 8, 10)).astype(np.uint8)
    image = wanted if kind == "uint8" else (wanted / 255).astype(np.float32)
    image = np.ascontiguousarray(np.moveaxis(image, -3, -1)) if last else image
    state = np.zeros((*batch, 2), np.float64)
    found, is_batched = to_tensors({"state": library(state), "images": {"top": library(image)}}, FEATURES)
    assert is_batched == bool(batch)
    torch.testing.assert_close(found[TOP], torch.as_tensor(wanted).float() / 255)
    assert found[STATE].dtype == torch.float32 and found[STATE].shape == (*batch, 2)


def test_lists_of_numbers_and_tasks():
    found, is_batched = to_tensors({"state": [0.5, 1], "task": "pick"}, FEATURES)
    assert found[STATE].tolist() == [0.5, 1] and found["task"] == "pick" and not is_batched


def test_shapes_that_cannot_be_meant():
    with pytest.raises(FeatureMismatchError, match=r"observation\.state has shape \(1, 1, 2\)"):
        to_tensors({"state": torch.zeros(1, 1, 2)}, FEATURES)
    with pytest.raises(FeatureMismatchError, match="1, 3 or 4 channels"):
        to_tensors({"images": {"top": torch.zeros(8, 10)}}, FEATURES)
    with pytest.raises(FeatureMismatchError, match=r"top: yes"):
        to_tensors({"state": torch.zeros(2), "images": {"top": torch.zeros(1, 3, 8, 10)}}, FEATURES)
