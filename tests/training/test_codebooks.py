"""Runs of VQ-BeT: its first phase is counted in checkpoints, and its codebooks learn from all processes."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lerobot.scripts.train import train
from tests.fakes.processes import together

pytestmark = pytest.mark.slow
TINY_VQBET = [
    "--policy.type=vqbet",
    "--policy.device=cpu",
    "--policy.n_obs_steps=2",
    "--policy.n_action_pred_token=2",
    "--policy.action_chunk_size=2",
    "--policy.vision_backbone=resnet10",
    "--policy.crop_shape=[28,28]",
    "--policy.pretrained_backbone_weights=null",
    "--policy.spatial_softmax_num_keypoints=4",
    "--policy.vqvae_n_embed=4",
    "--policy.vqvae_embedding_dim=8",
    "--policy.vqvae_enc_hidden_dim=16",
    "--policy.gpt_block_size=8",
    "--policy.gpt_input_dim=16",
    "--policy.gpt_output_dim=16",
    "--policy.gpt_n_layer=1",
    "--policy.gpt_n_head=2",
    "--policy.gpt_hidden_dim=16",
    "--policy.scheduler_warmup_steps=2",
]


@pytest.fixture
def vqbet_flags(small_dataset):
    def make(output_dir, *more):
        words = ["--dataset.repo_id=local/small", f"--dataset.root={small_dataset}", *TINY_VQBET]
        return [*words, f"--output_dir={output_dir}", "--num_workers=1", "--log_freq=1", *more]

    return make


def quietly(words) -> None:
    """A run of this process."""
    train(words)


def weights(run, step: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoints/{step}/pretrained_model/model.safetensors")


def flag(run, step: str) -> bool:
    return bool(weights(run, step)["vqbet.action_head.vqvae_model.discretized"])


@pytest.mark.parametrize("step", ["000002", "000004"], ids=["first phase", "second phase"])
def test_a_resumed_run_equals_an_uninterrupted_one(vqbet_flags, tmp_path, step):
    run, parts = tmp_path / "run", tmp_path / "parts"
    train(
        vqbet_flags(run, "--policy.n_vqvae_training_steps=3", "--batch_size=4", "--steps=6", "--save_freq=2")
    )
    assert [flag(run, step) for step in ("000002", "000004", "000006")] == [False, True, True]
    extra = json.loads((run / "checkpoints/000002/training_state/extra_state.json").read_text())
    assert extra["policy"] == {"vqvae_steps": 2}
    shutil.copytree(run, parts, symlinks=True)
    shutil.rmtree(parts / "checkpoints/000006")
    train([f"--config_path={parts}/checkpoints/{step}/pretrained_model/train_config.json", "--resume=true"])
    expected, found = weights(run), weights(parts)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_run_that_ends_in_the_first_phase_is_doubted(vqbet_flags, tmp_path, caplog):
    train(vqbet_flags(tmp_path / "short", "--steps=2", "--batch_size=4", "--save_freq=0"))
    (said,) = [r.message for r in caplog.records if "first phase" in r.message]
    assert "All 2 steps" in said and "--policy.n_vqvae_training_steps=1" in said
    caplog.clear()
    train(vqbet_flags(tmp_path / "long", "--steps=2", "--batch_size=4", "--policy.n_vqvae_training_steps=1"))
    assert "first phase" not in caplog.text


@pytest.mark.parametrize("more", [[], ["--gradient_accumulation_steps=2"]], ids=["plain", "accumulated"])
def test_two_processes_learn_the_codes_of_one(vqbet_flags, tmp_path, more):
    how = ["--policy.n_vqvae_training_steps=5", "--steps=4", "--save_freq=0", *more]
    train(vqbet_flags(tmp_path / "one", *how, "--batch_size=10"))
    together(2, quietly, vqbet_flags(tmp_path / "both", *how, "--batch_size=5"))
    a, b = weights(tmp_path / "one"), weights(tmp_path / "both")
    assert a.keys() == b.keys()
    names = [name for name in a if ".vqvae_model." in name]
    assert any("cluster_size" in name and a[name].any() for name in names)
    for name in names:
        torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-4, msg=name)
