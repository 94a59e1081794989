"""Pipelines: order, marks, files, overrides, and what is refused."""

import json
import logging
import pickle
import sys

import pytest
import torch

from lerobot.core.errors import CheckpointError, ConfigError
from lerobot.core.types import TransitionKey
from lerobot.processor.converters import batch_to_transition, transition_to_batch
from lerobot.processor.pipeline import (
    DataProcessorPipeline,
    ModelInput,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
)
from lerobot.processor.step import ActionProcessorStep, ObservationProcessorStep
from lerobot.processor.store import OldCheckpointError, file_base

FILE = "policy_preprocessor.json"


@pytest.fixture
def scale_step():
    """A registered step with a config and a tensor, forgotten after the test."""

    @ProcessorStepRegistry.register("test_scale")
    class Scale(ActionProcessorStep):
        def __init__(self, factor=2.0):
            self.factor, self.bias, self.episodes = factor, torch.zeros(1), 0

        def action(self, action):
            return action * self.factor + self.bias

        def get_config(self):
            return {"factor": self.factor}

        def state_dict(self):
            return {"bias": self.bias}

        def load_state_dict(self, state):
            self.bias = state["bias"]

        def reset(self):
            self.episodes += 1

    yield Scale
    ProcessorStepRegistry.unregister("test_scale")


class Unregistered(ObservationProcessorStep):
    """Adds one to every observation."""

    def observation(self, observation):
        return {name: value + 1 for name, value in observation.items()}


def write_file(folder, steps, **more):
    (folder / FILE).write_text(json.dumps({"name": "policy_preprocessor", "steps": steps, **more}))


def test_steps_run_in_order_and_leave_the_batch_alone(scale_step):
    batch = {"observation.state": torch.zeros(2), "action": torch.ones(3), "task": "stack", "unrelated": 1}
    result = PolicyProcessorPipeline([Unregistered(), scale_step(3.0), scale_step(2.0)])(batch)
    assert result["observation.state"].tolist() == [1, 1]
    assert result["action"].tolist() == [6, 6, 6]
    assert result["task"] == "stack" and "unrelated" not in result
    assert batch["observation.state"].tolist() == [0, 0]


def test_only_a_policys_pipeline_marks_its_batch():
    batch = {"observation.state": torch.zeros(2)}
    marked = PolicyProcessorPipeline()(batch)
    assert isinstance(marked, ModelInput)
    assert isinstance(pickle.loads(pickle.dumps(marked)), ModelInput)
    assert type({**marked}) is dict
    assert type(DataProcessorPipeline()(batch)) is dict


def test_batches_become_transitions_and_back():
    batch = {
        "observation.state": torch.ones(2),
        "action": torch.zeros(2),
        "action_is_pad": torch.tensor([False]),
        "next.reward": 1.0,
        "next.done": True,
        "next.truncated": False,
        "info": {"a": 1},
        "task": "stack",
        "timestamp": 0.5,
    }
    transition = batch_to_transition(batch)
    assert transition["observation"].keys() == {"observation.state"}
    assert transition[TransitionKey.COMPLEMENTARY_DATA].keys() == {"action_is_pad", "task", "timestamp"}
    assert transition_to_batch(transition) == batch
    with pytest.raises(ConfigError, match="reads a dict"):
        batch_to_transition(torch.zeros(2))


def test_save_and_load(scale_step, tmp_path):
    step = scale_step(5.0)
    step.bias = torch.tensor([7.0])
    PolicyProcessorPipeline([scale_step(), step], name="Policy Preprocessor").save_pretrained(tmp_path)
    tree = json.loads((tmp_path / FILE).read_text())
    assert tree["name"] == "Policy Preprocessor"
    assert tree["steps"][1] == {
        "registry_name": "test_scale",
        "config": {"factor": 5.0},
        "state_file": "policy_preprocessor_step_1_test_scale.safetensors",
    }
    loaded = PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)
    assert loaded.name == "Policy Preprocessor"
    assert loaded({"action": torch.ones(1)})["action"].tolist() == [17.0]
    assert len(loaded[1:]) == 1 and loaded[1:].steps == [loaded[1]] and list(loaded) == loaded.steps


def test_the_step_index_in_a_state_file_name_does_not_matter(scale_step, tmp_path):
    PolicyProcessorPipeline([scale_step()], name="policy_preprocessor").save_pretrained(tmp_path)
    tree = json.loads((tmp_path / FILE).read_text())
    (tmp_path / tree["steps"][0]["state_file"]).rename(tmp_path / "other.safetensors")
    tree["steps"][0]["state_file"] = "other.safetensors"
    (tmp_path / FILE).write_text(json.dumps(tree))
    assert len(PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)) == 1


def test_reset_reaches_every_step(scale_step):
    pipeline = PolicyProcessorPipeline([scale_step(), Unregistered()])
    pipeline.reset()
    assert pipeline[0].episodes == 1


def test_step_through_shows_every_transition(scale_step):
    seen = list(PolicyProcessorPipeline([scale_step(3.0)]).step_through({"action": torch.ones(1)}))
    assert [float(transition["action"]) for transition in seen] == [1.0, 3.0]


def test_overrides_win_and_wrong_ones_are_errors(scale_step, tmp_path):
    PolicyProcessorPipeline([scale_step(2.0)], name="policy_preprocessor").save_pretrained(tmp_path)

    def load(overrides):
        return PolicyProcessorPipeline.from_pretrained(tmp_path, FILE, overrides=overrides)

    assert load({"test_scale": {"factor": 4.0}})[0].factor == 4.0
    with pytest.raises(ConfigError, match=r"'test_skale' fits no step .* Did you mean 'test_scale'"):
        load({"test_skale": {"factor": 4.0}})
    with pytest.raises(ConfigError, match="takes no argument 'factr'. Did you mean 'factor'"):
        load({"test_scale": {"factr": 4.0}})


def test_unknown_config_keys_are_kept_with_one_warning(scale_step, tmp_path, caplog):
    write_file(tmp_path, [{"registry_name": "test_scale", "config": {"factor": 2.0, "new": [1], "newer": 2}}])
    with caplog.at_level(logging.WARNING):
        pipeline = PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)
    assert len(caplog.records) == 1 and "new, newer" in caplog.text
    pipeline.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / FILE).read_text())["steps"][0]["config"]
    assert config == {"factor": 2.0, "new": [1], "newer": 2}


def test_a_class_that_nobody_trusts_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_steps.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    write_file(tmp_path, [{"class": "evil_steps.Step", "config": {}}])
    with pytest.raises(
        CheckpointError, match=r"must not choose which code.*trusted_classes={'evil_steps.Step'}"
    ):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)
    assert "evil_steps" not in sys.modules


def test_a_trusted_class_is_loaded(tmp_path):
    name = f"{Unregistered.__module__}.Unregistered"
    PolicyProcessorPipeline([Unregistered()], name="policy_preprocessor").save_pretrained(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["steps"] == [{"class": name, "config": {}}]
    loaded = PolicyProcessorPipeline.from_pretrained(tmp_path, FILE, trusted_classes={name})
    assert isinstance(loaded[0], Unregistered)
    with pytest.raises(CheckpointError, match="not a registered step"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)


def test_a_folder_beside_the_file_travels_with_it(tmp_path):
    @ProcessorStepRegistry.register("test_words")
    class Words(ProcessorStep):
        def __init__(self, tokenizer_name):
            self.tokenizer_name = tokenizer_name

        def __call__(self, transition):
            return transition

        def get_config(self):
            return {"tokenizer_name": self.tokenizer_name}

    try:
        first, second = tmp_path / "first", tmp_path / "second"
        (first / "tokenizer").mkdir(parents=True)
        (first / "tokenizer/words.txt").write_text("stack")
        entry = {
            "registry_name": "test_words",
            "config": {"tokenizer_name": "tokenizer"},
            "artifacts": {"tokenizer_name": "tokenizer"},
        }
        write_file(first, [entry])
        pipeline = PolicyProcessorPipeline.from_pretrained(first, FILE)
        assert pipeline[0].tokenizer_name == str(first / "tokenizer")
        pipeline.save_pretrained(second)
        assert (second / "tokenizer/words.txt").read_text() == "stack"
        stored = json.loads((second / FILE).read_text())["steps"][0]
        assert stored["config"] == entry["config"] and stored["artifacts"] == entry["artifacts"]
    finally:
        ProcessorStepRegistry.unregister("test_words")


@pytest.mark.parametrize("path", ["../secret.safetensors", "/etc/passwd", "a/../../b", "C:\\weights"])
def test_files_outside_the_folder_are_refused(scale_step, tmp_path, path):
    write_file(tmp_path, [{"registry_name": "test_scale", "config": {}, "state_file": path}])
    with pytest.raises(CheckpointError, match="leads out of"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)


def test_missing_parts_are_named(scale_step, tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor a Hub id"):
        PolicyProcessorPipeline.from_pretrained(tmp_path / "nowhere", FILE)
    with pytest.raises(CheckpointError, match="holds no policy_preprocessor.json"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)
    write_file(tmp_path, [{"registry_name": "test_scale", "config": {}, "state_file": "gone.safetensors"}])
    with pytest.raises(CheckpointError, match="step 0 needs gone.safetensors, which is missing"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)
    with pytest.raises(CheckpointError, match="It holds policy_preprocessor.json"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, "policy_postprocessor.json")
    write_file(tmp_path, [{"registry_name": "test_scalr", "config": {}}])
    with pytest.raises(CheckpointError, match="Did you mean 'test_scale'"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)


def test_a_checkpoint_older_than_pipelines_is_told_apart(tmp_path):
    (tmp_path / "config.json").write_text('{"type": "act"}')
    with pytest.raises(OldCheckpointError, match="before LeRobot 0.4"):
        PolicyProcessorPipeline.from_pretrained(tmp_path, FILE)


def test_a_name_is_registered_once(scale_step):
    with pytest.raises(ConfigError, match="registered twice"):

        @ProcessorStepRegistry.register("test_scale")
        class Other(ObservationProcessorStep):
            def observation(self, observation):
                return observation


def test_steps_of_this_room_are_found_without_importing_them_first():
    assert {"normalizer_processor", "to_batch_processor", "device_processor"} <= set(
        ProcessorStepRegistry.list()
    )


@pytest.mark.parametrize(
    ("name", "base"), [("Policy Preprocessor", "policy_preprocessor"), ("a-b.c", "a_b_c"), ("É1", "_1")]
)
def test_file_names(name, base):
    assert file_base(name) == base
