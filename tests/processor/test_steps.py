"""The small steps: rename, batch axis, device, environment observations, image sizes."""

import numpy as np
import pytest
import torch

from lerobot.core.errors import ConfigError, DeviceError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.processor.batch import AddBatchDimensionProcessorStep
from lerobot.processor.converters import create_transition
from lerobot.processor.defaults import default_steps
from lerobot.processor.device import DeviceProcessorStep
from lerobot.processor.images import ResizeImagesProcessorStep
from lerobot.processor.observation import VanillaObservationProcessorStep
from lerobot.processor.rename import RenameObservationsProcessorStep


def test_rename_changes_only_the_named_observations():
    step = RenameObservationsProcessorStep({"observation.images.top": "observation.images.front"})
    done = step(create_transition(observation={"observation.images.top": 1, "observation.state": 2}))
    assert done["observation"] == {"observation.images.front": 1, "observation.state": 2}
    with pytest.raises(ConfigError, match="same name"):
        RenameObservationsProcessorStep({"a": "c", "b": "c"})


def test_single_items_get_a_batch_axis_and_batches_keep_theirs():
    single = create_transition(
        observation={
            "observation.state": torch.zeros(2),
            "observation.environment_state": torch.zeros(4),
            "observation.image": torch.zeros(3, 8, 8),
            "observation.images.top": torch.zeros(3, 8, 8),
            "observation.touch": torch.zeros(5),
        },
        action=torch.zeros(6),
        complementary_data={"task": "stack", "index": torch.tensor(3), "task_index": torch.tensor(0)},
    )
    step = AddBatchDimensionProcessorStep()
    done = step(single)
    shapes = {name: tuple(value.shape) for name, value in done["observation"].items()}
    assert shapes == {
        "observation.state": (1, 2),
        "observation.environment_state": (1, 4),
        "observation.image": (1, 3, 8, 8),
        "observation.images.top": (1, 3, 8, 8),
        "observation.touch": (5,),
    }
    assert done["action"].shape == (1, 6)
    assert done["complementary_data"]["task"] == ["stack"]
    assert done["complementary_data"]["index"].shape == (1,)
    again = step(done)
    assert again["action"].shape == (1, 6) and again["complementary_data"]["task"] == ["stack"]


def test_a_robots_action_dict_passes_the_batch_step():
    action = {"gripper.pos": 1.0}
    assert AddBatchDimensionProcessorStep()(create_transition(action=action))["action"] == action


def test_device_casts_floats_only():
    step = DeviceProcessorStep("cpu", "bfloat16")
    done = step(create_transition(
        observation={"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.int64)},
        complementary_data={"task": ["stack"], "action_is_pad": torch.tensor([True])},
    ))  # fmt: skip
    assert done["observation"]["a"].dtype == torch.bfloat16
    assert done["observation"]["b"].dtype == torch.int64
    assert done["complementary_data"]["action_is_pad"].dtype == torch.bool
    assert done["reward"] == 0.0
    with pytest.raises(ConfigError, match="Did you mean 'float32'"):
        DeviceProcessorStep("cpu", "float3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is absent")
def test_an_absent_device_is_an_error_at_first_use():
    step = DeviceProcessorStep("cuda")
    with pytest.raises(DeviceError, match=r"--policy.device=cpu"):
        step(create_transition(action=torch.zeros(1)))


def test_environment_observations_get_canonical_names_and_form():
    picture = np.full((8, 6, 3), 255, dtype=np.uint8)
    step = VanillaObservationProcessorStep()
    done = step(create_transition(observation={
        "pixels": {"top": picture, "wrist": np.stack([picture, picture])},
        "agent_pos": np.array([1.0, 2.0]),
        "environment_state": np.zeros((2, 3)),
        "observation.other": 1,
    }))["observation"]  # fmt: skip
    assert done["observation.images.top"].shape == (1, 3, 8, 6)
    assert done["observation.images.wrist"].shape == (2, 3, 8, 6)
    assert done["observation.images.top"].max() == 1.0
    assert done["observation.state"].shape == (1, 2) and done["observation.state"].dtype == torch.float32
    assert done["observation.environment_state"].shape == (2, 3)
    assert done["observation.other"] == 1
    assert step.observation({"pixels": picture})["observation.image"].shape == (1, 3, 8, 6)


@pytest.mark.parametrize(
    "picture", [np.zeros((8, 6, 3)), np.zeros((3, 8, 6), dtype=np.uint8), np.zeros(3, dtype=np.uint8)]
)
def test_pictures_of_another_form_are_refused(picture):
    with pytest.raises(FeatureMismatchError, match="expected uint8"):
        VanillaObservationProcessorStep().observation({"pixels": picture})


def test_resize_keeps_leading_axes_dtype_and_other_cameras():
    step = ResizeImagesProcessorStep({"observation.images.top": [4, 6]})
    top, front = torch.rand(2, 5, 3, 8, 12), torch.rand(2, 3, 8, 8)
    done = step.observation({"observation.images.top": top, "observation.images.front": front})
    assert done["observation.images.top"].shape == (2, 5, 3, 4, 6)
    assert done["observation.images.front"] is front
    # Halving with antialiasing keeps the mean of the picture, up to the border.
    torch.testing.assert_close(done["observation.images.top"].mean(), top.mean(), rtol=0, atol=0.01)
    pixels = step.observation({"observation.images.top": torch.full((3, 8, 12), 200, dtype=torch.uint8)})
    assert pixels["observation.images.top"].dtype == torch.uint8
    assert (pixels["observation.images.top"] == 200).all()
    with pytest.raises(ConfigError, match=r"expected \[height, width\]"):
        ResizeImagesProcessorStep({"observation.images.top": [3, 4, 6]})


def test_resize_tells_the_new_features():
    features = {"observation": {"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 8, 12))}}
    step = ResizeImagesProcessorStep({"observation.images.top": [4, 6]})
    changed = step.transform_features(features)["observation"]["observation.images.top"]
    assert changed.shape == (3, 4, 6)
    assert features["observation"]["observation.images.top"].shape == (3, 8, 12)


def test_image_shapes_add_a_resize_step_to_the_default_pair():
    before, after = default_steps(
        input_features={}, output_features={}, norm_map={}, image_shapes={"observation.image": (4, 4)}
    )
    assert [type(step).__name__ for step in before] == [
        "RenameObservationsProcessorStep",
        "ResizeImagesProcessorStep",
        "AddBatchDimensionProcessorStep",
        "DeviceProcessorStep",
        "NormalizerProcessorStep",
    ]
    assert [type(step).__name__ for step in after] == ["UnnormalizerProcessorStep", "DeviceProcessorStep"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_move_to_the_gpu_and_are_scaled_there():
    before, after = default_steps(
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (2,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        norm_map={"STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
        device="cuda",
        stats={name: {"mean": [1.0, 1.0], "std": [2.0, 2.0]} for name in ("observation.state", "action")},
    )
    transition = create_transition(observation={"observation.state": torch.tensor([3.0, 5.0])})
    for step in before:
        transition = step(transition)
    state = transition["observation"]["observation.state"]
    assert state.is_cuda and state.tolist() == [[1.0, 2.0]]
    transition = create_transition(action=state)
    for step in after:
        transition = step(transition)
    assert not transition["action"].is_cuda and transition["action"].tolist() == [[3.0, 5.0]]
