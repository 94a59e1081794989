"""A policy's folder: every spelling of a checkpoint, what is carried, what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot.core import keys
from lerobot.core.errors import CheckpointError, DeviceError, MissingStatsError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.policies.build import make_pre_post_processors
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.locate import locate
from lerobot.policies.policy import PreTrainedPolicy
from tests.fakes.hub import FakeHub

WORLD, RAW = "observation.environment_state", {"state": [0.3, -1.0, 2.0], "environment_state": [1.0, 0.5]}
STATS = {
    keys.STATE: {"mean": torch.tensor([1.0, 2.0, 3.0]), "std": torch.tensor([0.5, 1.0, 2.0])},
    WORLD: {"mean": torch.tensor([0.1, 0.2]), "std": torch.tensor([3.0, 4.0])},
    keys.ACTION: {"mean": torch.tensor([10.0, 20.0]), "std": torch.tensor([2.0, 3.0])},
}


@pytest.fixture
def policy():
    inputs = {
        keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
        WORLD: PolicyFeature(FeatureType.ENV, (2,)),
    }
    return ACTPolicy(replace(ACTConfig.tiny(), input_features=inputs, device=None))


@pytest.fixture
def pair(policy):
    policy.config.normalization_mapping["ENV"] = policy.config.normalization_mapping["STATE"]
    return make_pre_post_processors(policy.config, dataset_stats=STATS)


@pytest.fixture
def folder(policy, pair, tmp_path):
    """A run's output folder whose only checkpoint is step 20."""
    step = tmp_path / "run" / "checkpoints" / "000020"
    for part in (policy, *pair):
        part.save_pretrained(step / "pretrained_model")
    (step.parent / "last").symlink_to("000020")
    return tmp_path / "run"


# ------------------------------------------------------------------------------------------------ where it is
@pytest.mark.parametrize(
    "spelling", ["", "checkpoints/last", "checkpoints/000020", "checkpoints/last/pretrained_model"]
)
def test_every_spelling_of_a_checkpoint(folder, policy, spelling):
    loaded = PreTrainedPolicy.from_pretrained(folder / spelling)
    assert type(loaded) is ACTPolicy and not loaded.training
    assert all(torch.equal(v, policy.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_a_pointer_file_stands_in_for_a_link(folder):
    last = folder / "checkpoints" / "last"
    last.unlink()
    last.write_text("000020")
    assert ACTPolicy.from_pretrained(folder).config.chunk_size == 4


def test_without_a_link_the_highest_step_counts(folder):
    checkpoints = folder / "checkpoints"
    (checkpoints / "last").unlink()
    newer = shutil.copytree(checkpoints / "000020", checkpoints / "1000000")
    shutil.copytree(checkpoints / "000020", checkpoints / ".2000000.tmp")
    (checkpoints / "3000000").mkdir()
    assert locate(folder) == locate(checkpoints) == newer / "pretrained_model"


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        ACTPolicy.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        ACTPolicy.from_pretrained(tmp_path / "a" / "b")


def test_a_checkpoint_needs_no_imagenet_weights(folder):
    path = folder / "checkpoints/last/pretrained_model/config.json"
    tree = json.loads(path.read_text()) | {"pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"}
    path.write_text(json.dumps(tree))
    assert ACTPolicy.from_pretrained(folder).config.pretrained_backbone_weights.startswith("ResNet18")


def test_another_policys_class_is_refused(folder):
    class Other(ACTPolicy):
        config_class = type("OtherConfig", (PreTrainedConfig,), {})

    with pytest.raises(CheckpointError, match="'act' policy: load it with ACTPolicy, not with Other"):
        Other.from_pretrained(folder)


def test_keys_of_newer_releases_survive(folder, tmp_path, caplog):
    path = folder / "checkpoints/last/pretrained_model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_the_future": [1]}))
    ACTPolicy.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert "from_the_future" in caplog.text
    assert json.loads((tmp_path / "again" / "config.json").read_text())["from_the_future"] == [1]


# -------------------------------------------------------------------------------------------- carried or bare
def by_hand(policy, pair):
    """The action for RAW with separate processors."""
    before, after = pair
    raw = {keys.OBSERVATION_PREFIX + name: torch.tensor(value)[None] for name, value in RAW.items()}
    policy.reset()
    return after(policy.select_action(before(raw)))


def test_by_path_alone_it_carries_its_processors(folder, policy, pair):
    carrying, wanted = ACTPolicy.from_pretrained(folder), by_hand(policy, pair)
    assert wanted.abs().max() > 5  # in the robot's units
    nested = {name: np.array(value, np.float32) for name, value in RAW.items()}
    torch.testing.assert_close(carrying.select_action(nested), wanted[0])
    carrying.reset()
    batch = {keys.OBSERVATION_PREFIX + name: torch.tensor([value]) for name, value in RAW.items()}
    torch.testing.assert_close(carrying.select_action(batch), wanted)
    torch.testing.assert_close(carrying.predict_action_chunk(batch)[:, 0], wanted)
    assert carrying.predict_action_chunk(nested).shape == (4, 2)


def test_what_went_through_the_preprocessor_is_not_processed_again(folder, policy, pair):
    carrying, (before, after) = ACTPolicy.from_pretrained(folder), pair
    batch = before({keys.OBSERVATION_PREFIX + name: torch.tensor([value]) for name, value in RAW.items()})
    torch.testing.assert_close(after(carrying.select_action(batch)), by_hand(policy, pair))


def test_with_a_config_it_is_bare(folder, policy, pair):
    config = PreTrainedConfig.from_pretrained(folder)
    bare = ACTPolicy.from_pretrained(folder, config=config)
    plain = dict(pair[0]({f"observation.{name}": torch.tensor([value]) for name, value in RAW.items()}))
    torch.testing.assert_close(bare.select_action(plain), policy.select_action(plain))
    with pytest.raises(CheckpointError, match="carries no processors"):
        _ = bare.processors


def test_saving_a_carrying_policy_saves_its_processors(folder, policy, pair, tmp_path):
    ACTPolicy.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    source = folder / "checkpoints/last/pretrained_model"
    assert {f.name for f in (tmp_path / "copy").iterdir()} == {f.name for f in source.iterdir()}
    copy = ACTPolicy.from_pretrained(tmp_path / "copy")
    torch.testing.assert_close(copy.select_action(RAW), by_hand(policy, pair)[0])


def test_reset_reaches_the_processors_and_the_queue(folder):
    carrying = ACTPolicy.from_pretrained(folder)
    first = carrying.select_action(RAW)
    assert not torch.equal(carrying.select_action(RAW), first)  # the second action of the chunk
    carrying.reset()
    assert torch.equal(carrying.select_action(RAW), first)


# ---------------------------------------------------------------------------------------------------- devices
def test_a_stored_device_that_is_absent_is_replaced(folder, caplog):
    path = folder / "checkpoints/last/pretrained_model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "cuda:97"}))
    loaded = ACTPolicy.from_pretrained(folder)
    assert "cuda:97" in caplog.text and "does not have" in caplog.text
    assert loaded.config.device == str(loaded.device.type)
    assert loaded.select_action(RAW).shape == (2,)


def test_a_device_that_was_asked_for_must_be_there(folder):
    with pytest.raises(DeviceError, match=r"'cuda:97' was asked for.*--policy\.device="):
        ACTPolicy.from_pretrained(folder, device="cuda:97")
    with pytest.raises(DeviceError, match="no kind of device called 'gpu'"):
        ACTPolicy.from_pretrained(folder, device="gpu")


# ---------------------------------------------------------------------------------------- releases before 0.4
def as_of_old(folder, *, unfilled=()):
    """Turn a checkpoint into one from before 0.4: statistics among the weights, names of a compiled model."""
    source = folder / "checkpoints/last/pretrained_model"
    weights = {f"_orig_mod.{k}": v for k, v in load_file(source / "model.safetensors").items()}
    for name, stats in STATS.items():
        place = "normalize_inputs" if name != keys.ACTION else "unnormalize_outputs"
        for stat, value in stats.items():
            value = torch.full_like(value, torch.inf) if name in unfilled else value
            weights[f"{place}.buffer_{name.replace('.', '_')}.{stat}"] = value
    old = folder.parent / "old"
    old.mkdir()
    save_file(weights, old / "model.safetensors")
    shutil.copy(source / "config.json", old)
    return old


def test_statistics_inside_the_weights_are_used(folder, policy, pair):
    """`observation.environment_state` keeps the underscore that is its own."""
    old = as_of_old(folder)
    wanted = by_hand(policy, pair)
    torch.testing.assert_close(ACTPolicy.from_pretrained(old).select_action(RAW), wanted[0])
    before, after = make_pre_post_processors(PreTrainedConfig.from_pretrained(old), old)
    torch.testing.assert_close(by_hand(policy, (before, after)), wanted)


def test_statistics_that_were_never_filled_are_an_error_by_name(folder, caplog):
    old = as_of_old(folder, unfilled=[WORLD])
    with pytest.raises(MissingStatsError, match=r"observation\.environment_state"):
        ACTPolicy.from_pretrained(old).select_action(RAW)
    assert "never filled" in caplog.text


def test_without_any_statistics_raw_observations_are_refused(folder):
    source = folder / "checkpoints/last/pretrained_model"
    for path in source.glob("policy_*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="holds neither policy_preprocessor.json nor statistics"):
        ACTPolicy.from_pretrained(folder).select_action(RAW)


# ------------------------------------------------------------------------------------------------- publishing
def test_to_the_hub_and_back(folder, policy, pair, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at its import
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    policy.config.tags, policy.config.license = ["so101"], "mit"
    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        policy.push_to_hub("me/policy", processors=pair)
        files = hub.repos["model", "me/policy"].files()
        loaded = ACTPolicy.from_pretrained("me/policy")
    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "README.md"} <= files.keys()
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: mit\n") and "- so101\n" in card and "model_name: act" in card
    torch.testing.assert_close(loaded.select_action(RAW), by_hand(policy, pair)[0])


def test_publishing_needs_a_name(policy):
    with pytest.raises(CheckpointError, match=r"--policy\.repo_id=user/name"):
        policy.push_to_hub()
