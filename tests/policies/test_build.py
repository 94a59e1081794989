import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lerobot.core import keys
from lerobot.core.errors import ConfigError, DeviceError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.policies.build import get_policy_class, make_policy, make_pre_post_processors
from lerobot.policies.cameras import propose_cameras

TOP = keys.IMAGES_PREFIX + "top"


def meta(*, joints: int = 3, size: int = 32, camera: str = TOP, actions: int | None = 2):
    """Metadata of a dataset, as far as a policy asks for it."""
    table = {
        keys.STATE: {"dtype": "float32", "shape": [joints], "names": None},
        camera: {"dtype": "video", "shape": [size, size, 3], "names": ["height", "width", "channels"]},
        "index": {"dtype": "int64", "shape": [1], "names": None},
    }
    if actions:
        table[keys.ACTION] = {"dtype": "float32", "shape": [actions], "names": None}
    return SimpleNamespace(features=table)


def fresh() -> ACTConfig:
    return replace(ACTConfig.tiny(), input_features={}, output_features={})


@pytest.fixture
def trained(tmp_path):
    """A config that continues from a checkpoint of the tiny policy."""
    ACTPolicy(ACTConfig.tiny()).save_pretrained(tmp_path)
    return replace(ACTConfig.tiny(), pretrained_path=str(tmp_path))


def test_classes_by_name():
    assert get_policy_class("act") is ACTPolicy
    with pytest.raises(ConfigError, match="no policy called 'axt'.*Did you mean 'act'"):
        get_policy_class("axt")


def test_a_dataset_fills_the_features():
    config = fresh()
    policy = make_policy(config, ds_meta=meta(joints=7, size=48))
    assert policy.config is config
    assert {name: f.shape for name, f in config.input_features.items()} == {
        keys.STATE: (7,),
        TOP: (3, 48, 48),
    }
    assert {name: f.shape for name, f in config.output_features.items()} == {keys.ACTION: (2,)}


def test_an_environment_fills_the_features():
    features = {
        "agent_pos": PolicyFeature(FeatureType.STATE, (2,)),
        keys.IMAGE: PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        keys.ACTION: PolicyFeature(FeatureType.ACTION, (2,)),
    }
    env = SimpleNamespace(features=features, features_map={"agent_pos": keys.STATE})
    assert list(make_policy(fresh(), env_cfg=env).config.input_features) == [keys.STATE, keys.IMAGE]


def test_sources():
    with pytest.raises(ConfigError, match="not both"):
        make_policy(fresh(), ds_meta=meta(), env_cfg=SimpleNamespace())
    with pytest.raises(ConfigError, match="no features yet"):
        make_policy(fresh())
    assert make_policy(ACTConfig.tiny()).config.chunk_size == 4


def test_a_dataset_without_actions():
    with pytest.raises(FeatureMismatchError, match="no actions, so there is nothing to imitate"):
        make_policy(fresh(), ds_meta=meta(actions=None))


def test_weights_come_from_the_checkpoint_and_its_policy_is_bare(trained, tmp_path):
    policy = make_policy(trained, ds_meta=meta())
    stored = ACTPolicy.from_pretrained(tmp_path)
    assert all(torch.equal(v, stored.state_dict()[k]) for k, v in policy.state_dict().items())
    assert policy._source is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"camera": keys.IMAGES_PREFIX + "side"}, r"reads or writes observation\.images\.top"),
        ({"joints": 6}, r"observation\.state has shape \[6\] there and \[3\] in the policy"),
        ({"actions": 6}, r"action has shape \[6\] there and \[2\] in the policy"),
        ({"size": 64}, r"observation\.images\.top has shape \[3, 64, 64\] there"),
    ],
)
def test_what_does_not_fit_a_checkpoint_is_named_on_both_sides(trained, other, said):
    with pytest.raises(FeatureMismatchError, match=said) as raised:
        make_policy(trained, ds_meta=meta(**other))
    text = str(raised.value)
    assert "The dataset has: observation.state" in text and "--policy.input_shapes" in text
    assert ("--rename_map" in text) == ("camera" in other)  # proposed where only a name differs


def test_cameras_of_other_names_are_proposed_and_nothing_is_renamed_unasked(trained):
    names = {name: keys.IMAGES_PREFIX + name for name in ("wrist_left", "wrist_right", "overhead")}
    size = PolicyFeature(FeatureType.VISUAL, (3, 32, 32))
    config = replace(
        ACTConfig.tiny(),
        pretrained_path=trained.pretrained_path,
        input_features={**{names[n]: size for n in ("overhead", "wrist_left", "wrist_right")}},
    )
    table = {
        **{
            keys.IMAGES_PREFIX + name: {
                "dtype": "video",
                "shape": [32, 32, 3],
                "names": ["height", "width", "channels"],
            }
            for name in ("right_gripper", "cam_left_gripper", "top")
        },
        keys.ACTION: {"dtype": "float32", "shape": [2], "names": None},
    }
    with pytest.raises(FeatureMismatchError) as raised:
        make_policy(config, ds_meta=SimpleNamespace(features=table))
    (found,) = re.findall(r"--rename_map='(.*?)'", str(raised.value))
    prefix = keys.IMAGES_PREFIX
    assert json.loads(found) == {
        prefix + "top": names["overhead"],
        prefix + "cam_left_gripper": names["wrist_left"],
        prefix + "right_gripper": names["wrist_right"],
    }


@pytest.mark.parametrize(
    ("there", "here", "pairs"),
    [
        (["front"], ["front"], {"front": "front"}),
        (["phone", "tablet"], ["1", "2"], {"phone": "1", "tablet": "2"}),  # nothing alike: in their order
        (["cam_high", "cam_left_wrist"], ["top"], {"cam_high": "top"}),
        (["wrist"], ["gripper", "top"], {"wrist": "gripper"}),
        ([], ["top"], {}),
        (["left", "right"], ["right_wrist", "left_wrist"], {"left": "left_wrist", "right": "right_wrist"}),
    ],
)
def test_proposals(there, here, pairs):
    assert propose_cameras(here, there) == pairs


def test_renamed_and_resized_cameras_fit(trained):
    side = keys.IMAGES_PREFIX + "side"
    make_policy(
        trained,
        ds_meta=meta(camera=side, size=64),
        rename_map={side: TOP},
        image_shapes={TOP: (3, 32, 32)},
    )


def test_renaming_what_is_not_there(trained):
    with pytest.raises(FeatureMismatchError, match=r"renames 'observation\.images\.tip'.*Did you mean"):
        make_policy(trained, ds_meta=meta(), rename_map={"observation.images.tip": TOP})


def test_a_device_that_was_asked_for_must_be_there():
    with pytest.raises(DeviceError, match="cuda:97"):
        make_policy(replace(ACTConfig.tiny(), device="cuda:97"))


# ------------------------------------------------------------------------------------------------- processors
def stats(scale: float = 1.0) -> dict:
    def one(size):
        return {"mean": torch.zeros(size), "std": torch.full((size,), scale)}

    return {keys.STATE: one(3), TOP: one(3), keys.ACTION: one(2)}


def item() -> dict:
    return {keys.STATE: torch.ones(3), TOP: torch.ones(3, 32, 32), keys.ACTION: torch.ones(2)}


@pytest.fixture
def stored(trained, tmp_path):
    for pipeline in make_pre_post_processors(trained, dataset_stats=stats()):
        pipeline.save_pretrained(tmp_path)
    return tmp_path


def test_stored_statistics_are_used(trained, stored):
    before, after = make_pre_post_processors(trained, stored)
    assert before(item())[keys.STATE].tolist() == [[1, 1, 1]] and after(torch.ones(1, 2)).tolist() == [[1, 1]]


def test_new_statistics_replace_stored_ones(trained, stored):
    before, after = make_pre_post_processors(trained, stored, dataset_stats=stats(scale=2.0))
    assert before(item())[keys.STATE].tolist() == [[0.5, 0.5, 0.5]]
    assert after(torch.ones(1, 2)).tolist() == [[2, 2]]


def test_overrides_win(trained, stored):
    names = {"rename_observations_processor": {"rename_map": {"observation.joints": keys.STATE}}}
    scale = {"unnormalizer_processor": {"stats": stats(scale=5.0)}}
    for source in (stored, None):
        before, after = make_pre_post_processors(
            trained,
            source,
            dataset_stats=stats(scale=2.0),
            preprocessor_overrides=names,
            postprocessor_overrides=scale,
        )
        given = item()
        given["observation.joints"] = given.pop(keys.STATE)
        assert before(given)[keys.STATE].tolist() == [[0.5, 0.5, 0.5]]
        assert after(torch.ones(1, 2)).tolist() == [[5, 5]]


@pytest.mark.parametrize("is_new", [True, False])
def test_an_override_for_no_step_is_refused(trained, stored, is_new):
    with pytest.raises(ConfigError, match="normaliser_processor"):
        make_pre_post_processors(
            trained,
            None if is_new else stored,
            dataset_stats=stats(),
            preprocessor_overrides={"normaliser_processor": {}},
        )


def test_a_stored_device_that_is_absent_is_replaced(trained, stored):
    text = (stored / "policy_preprocessor.json").read_text()
    (stored / "policy_preprocessor.json").write_text(text.replace('"device": "cpu"', '"device": "cuda:97"'))
    before, _ = make_pre_post_processors(trained, stored)
    assert before(item())[keys.STATE].device.type == "cpu"
