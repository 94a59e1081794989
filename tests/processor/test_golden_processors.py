"""Pipelines and numbers that LeRobot 0.6.1 wrote: read, run and written back to the byte."""

import filecmp
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature, TransitionKey
from lerobot.processor.converters import create_transition
from lerobot.processor.defaults import default_steps, load_policy_pipelines, policy_pipelines
from lerobot.processor.normalize import NormalizerProcessorStep, UnnormalizerProcessorStep
from lerobot.processor.pipeline import IdentityProcessorStep, ModelInput, PolicyProcessorPipeline

GOLDEN = Path(__file__).parents[1] / "golden"
INFO = json.loads((GOLDEN / "normalize/normalize.json").read_text())


def normalizer_arguments(mode):
    tensors = load_file(GOLDEN / "normalize/normalize.safetensors")
    stats = {}
    for key in tensors:
        if key.startswith("stats/"):
            feature, _, stat = key.removeprefix("stats/").rpartition(".")
            stats.setdefault(feature, {})[stat] = tensors[key]
    features = {
        name: PolicyFeature(FeatureType(feature["type"]), tuple(feature["shape"]))
        for name, feature in INFO["features"].items()
    }
    norm_map = {FeatureType(kind): NormalizationMode(value) for kind, value in INFO["modes"][mode].items()}
    return {"features": features, "norm_map": norm_map, "stats": stats}, tensors


@pytest.mark.parametrize("mode", INFO["modes"])
def test_every_mode_gives_the_recorded_numbers_and_back(mode):
    arguments, tensors = normalizer_arguments(mode)
    inputs = {key.removeprefix("input/"): value for key, value in tensors.items() if key.startswith("input/")}
    action = inputs.pop("action")
    done = NormalizerProcessorStep(**arguments)(create_transition(observation=inputs, action=action))
    for name, value in done[TransitionKey.OBSERVATION].items():
        torch.testing.assert_close(value, tensors[f"{mode}/{name}"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(done[TransitionKey.ACTION], tensors[f"{mode}/action"], rtol=1e-6, atol=1e-6)
    back = UnnormalizerProcessorStep(**arguments)(create_transition(action=done[TransitionKey.ACTION]))
    torch.testing.assert_close(
        back[TransitionKey.ACTION], tensors[f"{mode}/back/action"], rtol=1e-6, atol=1e-6
    )


def test_state_names_are_the_recorded_ones():
    arguments, _ = normalizer_arguments("MEAN_STD")
    assert sorted(NormalizerProcessorStep(**arguments).state_dict()) == sorted(INFO["state_dict_keys"])


def test_stored_pair_gives_the_recorded_numbers():
    folder = GOLDEN / "processors/diffusion_env_state"
    expected = load_file(folder / "expected.safetensors")
    before, after = load_policy_pipelines(folder)
    raw = {key.removeprefix("raw_item/"): v for key, v in expected.items() if key.startswith("raw_item/")}
    batch = before(raw)
    assert isinstance(batch, ModelInput)
    for name in raw:
        torch.testing.assert_close(batch[name], expected[f"preprocessor/{name}"], rtol=0, atol=0)
    torch.testing.assert_close(
        after(expected["normalized_action"]), expected["postprocessor"], rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["act_vae", "diffusion_env_state"])
def test_a_loaded_pair_is_saved_byte_for_byte(name, tmp_path):
    folder = GOLDEN / "processors" / name
    for pipeline in load_policy_pipelines(folder):
        pipeline.save_pretrained(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in folder.iterdir() if path.name.startswith("policy_"))
    for file in written:
        assert filecmp.cmp(tmp_path / file, folder / file, shallow=False), file


def test_the_default_steps_make_the_files_that_lerobot_made(tmp_path):
    folder = GOLDEN / "processors/act_vae"
    stored, _ = load_policy_pipelines(folder)
    step = stored[-1]
    output = {"action": step.features["action"]}
    inputs = {name: feature for name, feature in step.features.items() if name != "action"}
    # The dataset stores the image's count as one number; the file of the preprocessor shows it as (1, 1, 1).
    raw_stats = {
        name: {stat: value.reshape(-1) if stat == "count" else value for stat, value in own.items()}
        for name, own in step.stats.items()
    }
    pair = policy_pipelines(
        *default_steps(
            input_features=inputs,
            output_features=output,
            norm_map=step.norm_map,
            device="cpu",
            stats=raw_stats,
        )
    )
    for pipeline in pair:
        pipeline.save_pretrained(tmp_path)
    for path in folder.iterdir():
        assert filecmp.cmp(tmp_path / path.name, path, shallow=False), path.name


def test_a_step_stored_by_class_name_is_read_and_written_back(tmp_path):
    folder = GOLDEN / "processors/reward_classifier"
    name = "classifier_postprocessor.json"
    pipeline = PolicyProcessorPipeline.from_pretrained(folder, name)
    assert isinstance(pipeline[1], IdentityProcessorStep)
    pipeline.save_pretrained(tmp_path)
    assert (tmp_path / name).read_text() == (folder / name).read_text()
