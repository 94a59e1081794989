"""Normalising: what is touched, in which precision, and which statistics are refused."""

import numpy as np
import pytest
import torch

from lerobot.core.errors import ConfigError, MissingStatsError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.processor.converters import create_transition
from lerobot.processor.normalize import NormalizerProcessorStep, UnnormalizerProcessorStep

FEATURES = {
    "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 4, 4)),
    "action": PolicyFeature(FeatureType.ACTION, (2,)),
}
MEAN_STD = dict.fromkeys(("STATE", "VISUAL", "ACTION"), "MEAN_STD")
STATS = {
    "observation.state": {"mean": [1.0, 2.0], "std": [2.0, 4.0]},
    "observation.image": {"mean": np.array([0.5, 0.5, 0.5]), "std": np.array([[[0.5]]] * 3)},
    "action": {"mean": [0.0, 1.0], "std": [1.0, 1.0], "min": [0, 0], "max": [10, 10]},
    "timestamp": {"mean": [3.0]},
}


def normalize(stats=STATS, norm_map=MEAN_STD, **parts):
    return NormalizerProcessorStep(FEATURES, norm_map, stats)(create_transition(**parts))


def without(feature, *names):
    own = {name: value for name, value in STATS[feature].items() if name not in names}
    return {**STATS, feature: own} if own else {name: v for name, v in STATS.items() if name != feature}


def test_declared_features_are_scaled_and_others_kept():
    observation = {
        "observation.state": torch.tensor([[3.0, 6.0]]),
        "observation.image": torch.ones(1, 3, 4, 4),
        "observation.other": torch.tensor([9.0]),
    }
    done = normalize(observation=observation)["observation"]
    torch.testing.assert_close(done["observation.state"], torch.ones(1, 2))
    torch.testing.assert_close(done["observation.image"], torch.ones(1, 3, 4, 4))
    assert done["observation.other"] is observation["observation.other"]
    assert observation["observation.state"].tolist() == [[3, 6]]


def test_chosen_observation_keys_alone_are_scaled_and_stored():
    step = NormalizerProcessorStep(
        FEATURES, MEAN_STD, STATS, normalize_observation_keys={"observation.image"}
    )
    state = torch.tensor([[3.0, 6.0]])
    done = step(create_transition(observation={"observation.state": state}))
    assert done["observation"]["observation.state"] is state
    assert step.get_config()["normalize_observation_keys"] == ["observation.image"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precision_is_that_of_the_tensor(dtype):
    action = torch.tensor([[0.5, 1.5]], dtype=dtype)
    done = normalize(action=action)["action"]
    assert done.dtype == dtype
    torch.testing.assert_close(done, torch.tensor([[0.5, 0.5]], dtype=dtype))


def test_half_precision_does_not_round_the_statistics():
    stats = {"action": {"min": [170.3, 1.0], "max": [170.5, 1.0]}}
    action = torch.tensor([[170.5, 1.0]], dtype=torch.float16)
    done = normalize(stats, {"ACTION": "MIN_MAX"}, action=action)["action"]
    assert done.dtype == torch.float16
    assert done[0].tolist() == pytest.approx([1.0, -1.0], abs=1e-2)


def test_statistics_cached_without_gradients_serve_with_them():
    step = UnnormalizerProcessorStep(FEATURES, MEAN_STD, STATS)
    with torch.inference_mode():
        step(create_transition(action=torch.zeros(1, 2)))
    action = torch.zeros(1, 2, requires_grad=True)
    step(create_transition(action=action))["action"].sum().backward()
    assert action.grad.tolist() == [[1.0, 1.0]]


def test_whole_numbers_are_scaled_as_floats_but_pixels_must_be_floats():
    assert normalize(action=torch.tensor([[2, 3]]))["action"].tolist() == [[2.0, 2.0]]
    with pytest.raises(
        ConfigError, match=r"observation.image holds torch.uint8 .* Divide the picture by 255"
    ):
        normalize(observation={"observation.image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)})


@pytest.mark.parametrize("mode", list(NormalizationMode))
def test_back_is_the_inverse(mode):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, generator=generator)
    stats = {"action": {"mean": low, "std": low + 1, "min": low, "max": low + 2}}
    stats["action"] |= {"q01": low, "q99": low + 3, "q10": low, "q90": low + 1}
    action = torch.rand(5, 3, 2, generator=generator)
    norm_map = {"ACTION": mode}
    there = NormalizerProcessorStep(FEATURES, norm_map, stats)(create_transition(action=action))
    back = UnnormalizerProcessorStep(FEATURES, norm_map, stats)(there)
    torch.testing.assert_close(back["action"], action)


def test_a_dimension_without_range_divides_by_eps():
    stats = {"action": {"min": [1.0, 0.0], "max": [1.0, 2.0]}}
    done = normalize(stats, {"ACTION": "MIN_MAX"}, action=torch.tensor([[1.0, 1.0]]))
    assert done["action"].tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize(
    ("stats", "said"),
    [
        ({}, "it has no statistics at all"),
        (without("observation.state", "mean", "std"), r"There are statistics of action"),
        (without("observation.state", "std"), "needs std, but it has mean"),
        ({**STATS, "observation.state": {"mean": [1.0, float("nan")], "std": [1.0, 1.0]}}, "not finite"),
        ({**STATS, "observation.state": {"mean": [1.0, 1.0], "std": [1.0, float("inf")]}}, "not finite"),
        (
            {**STATS, "observation.state": {"mean": [1.0] * 3, "std": [1.0] * 3}},
            r"\(3,\), which does not fit",
        ),
    ],
)
def test_statistics_that_cannot_be_right_are_refused_at_first_use(stats, said):
    step = NormalizerProcessorStep(FEATURES, MEAN_STD, stats)  # building and loading are no use yet
    with pytest.raises(MissingStatsError, match=said) as caught:
        step(create_transition(observation={"observation.state": torch.zeros(1, 2)}))
    assert "observation.state" in str(caught.value) and "dataset.meta.stats" in str(caught.value)


def test_missing_quantiles_are_named():
    with pytest.raises(
        MissingStatsError, match="scaled by QUANTILES, which needs q01 and q99, but it has max, mean"
    ):
        normalize(norm_map={"ACTION": "QUANTILES"}, action=torch.zeros(1, 2))


def test_a_changed_width_is_refused_after_a_good_one():
    step = NormalizerProcessorStep(FEATURES, MEAN_STD, STATS)
    step(create_transition(action=torch.zeros(1, 2)))
    with pytest.raises(MissingStatsError, match="does not fit"):
        step(create_transition(action=torch.zeros(1, 3)))


def test_identity_and_absent_features_need_no_statistics():
    state = torch.zeros(1, 2)
    step = NormalizerProcessorStep(FEATURES, {"STATE": "IDENTITY"}, None)
    assert (
        step(create_transition(observation={"observation.state": state}))["observation"]["observation.state"]
        is state
    )
    assert normalize({}, action=None)["action"] is None


def test_given_statistics_win_over_stored_ones_and_stored_ones_fill_in():
    stored = {"action.mean": torch.tensor([5.0, 5.0]), "action.std": torch.tensor([1.0, 1.0])}
    action = create_transition(action=torch.tensor([[6.0, 6.0]]))
    given = NormalizerProcessorStep(FEATURES, MEAN_STD, STATS)
    given.load_state_dict(stored)
    assert given(action)["action"].tolist() == [[6.0, 5.0]]
    empty = NormalizerProcessorStep(FEATURES, MEAN_STD, None)
    empty.load_state_dict(stored)
    assert empty(action)["action"].tolist() == [[1.0, 1.0]]


def test_image_statistics_are_viewed_per_channel_and_feature_names_keep_their_dots():
    step = NormalizerProcessorStep(
        FEATURES, MEAN_STD, {**STATS, "observation.images.left.arm": {"mean": [1.0]}}
    )
    state = step.state_dict()
    assert state["observation.image.mean"].shape == (3, 1, 1)
    assert state["observation.images.left.arm.mean"].shape == (1,)
    again = NormalizerProcessorStep(FEATURES, MEAN_STD)
    again.load_state_dict(state)
    assert again.state_dict().keys() == state.keys()
    post = UnnormalizerProcessorStep({"action": FEATURES["action"]}, MEAN_STD, STATS)
    assert post.state_dict()["observation.image.mean"].shape == (3,)


def test_the_callers_statistics_are_copied():
    stats = {"action": {"mean": torch.zeros(2), "std": torch.ones(2)}}
    step = NormalizerProcessorStep(FEATURES, {"ACTION": "MEAN_STD"}, stats)
    stats["action"]["mean"] += 100
    assert step(create_transition(action=torch.ones(1, 2)))["action"].tolist() == [[1.0, 1.0]]
