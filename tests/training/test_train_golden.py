"""Twenty steps of ACT recorded elsewhere: equal frames, batches, losses, gradients, weights."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode, encode
from lerobot.core.flags import read_flags, tree_of
from lerobot.distributed.world import World
from lerobot.training.config import TrainConfig, complete, load_train_config
from lerobot.training.run import start
from lerobot.training.step import update
from lerobot.training.transfer import to_device

GOLDEN = Path(__file__).parents[1] / "golden"
TRAIN_RUN = GOLDEN / "train_run"
RECORDED = json.loads((TRAIN_RUN / "losses.json").read_text())

sys.path.append(str(GOLDEN / "policies"))
from recipe import write_weights  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The recorded run, from its own train_config.json and initial weights."""
    folder = tmp_path_factory.mktemp("golden_run")
    shutil.copytree(TRAIN_RUN / "initial", folder / "initial")
    write_weights(TRAIN_RUN / "initial", folder / "initial/model.safetensors")
    words = [f"--config_path={TRAIN_RUN / 'train_config.json'}", f"--dataset.root={TRAIN_RUN / 'dataset'}"]
    words += [f"--policy.path={folder / 'initial'}", f"--output_dir={folder / 'run'}"]
    cfg = decode(TrainConfig, tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete))
    return start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))


@pytest.fixture(scope="module")
def recorded_batches():
    tensors = load_file(TRAIN_RUN / "batches.safetensors")
    return [
        {key[3:]: value for key, value in tensors.items() if key.startswith(f"{step:02d}/")}
        for step in range(len(RECORDED["steps"]))
    ]


def test_the_same_frames_in_the_same_order(run):
    batches = run.loader.index_batches()
    assert [next(batches) for _ in RECORDED["steps"]] == [step["index"] for step in RECORDED["steps"]]


def test_the_same_batches(run, recorded_batches):
    batches = iter(run.loader)
    for want in recorded_batches[:4]:
        got = next(batches)
        frames = (got["observation.images.wrist"].int() - want["observation.images.wrist"].int()).abs()
        assert frames.max() <= 2 and frames.float().mean() <= 0.5
        assert torch.equal(got["action_is_pad"], want["action_is_pad"])
        ready = run.prepare(to_device(got, run.world.device))
        for name in ("action", "observation.state"):
            torch.testing.assert_close(ready[name], want[name], rtol=1e-4, atol=1e-5)


def test_the_same_losses_gradients_and_weights(run, recorded_batches, monkeypatch):
    normalizer = run.processors[0].steps[-1]
    draws = iter([batch["draw_0"] for batch in recorded_batches])
    monkeypatch.setattr(torch, "randn_like", lambda like: next(draws))
    rows = []
    for want in recorded_batches:
        picture = want["observation.images.wrist"].float() / 255
        stats = normalizer.state_dict()
        mean, std = (stats[f"observation.images.wrist.{stat}"] for stat in ("mean", "std"))
        update(run, [{**want, "observation.images.wrist": (picture - mean) / (std + 1e-8)}])
        run.step += 1
        rows.append(run.meter.read())
    for name, key in (("losses", "loss"), ("grad_norms", "grad_norm"), ("learning_rates", "lr")):
        got = torch.tensor([row[key] for row in rows])
        torch.testing.assert_close(
            got, torch.tensor(RECORDED[name]), rtol=RECORDED["tolerance"]["rtol"], atol=1e-6
        )
    norms = {name: tensor.double().norm().item() for name, tensor in run.policy.state_dict().items()}
    want = RECORDED["final_l2_norms"]
    assert norms.keys() == want.keys()
    got, want = (torch.tensor([table[name] for name in want]) for table in (norms, want))
    torch.testing.assert_close(got, want, rtol=RECORDED["tolerance"]["rtol"], atol=1e-5)


def test_their_train_config_round_trips():
    tree = json.loads((TRAIN_RUN / "train_config.json").read_text())
    tree["dataset"]["root"] = str(Path(tree["dataset"]["root"]))
    again = encode(load_train_config(TRAIN_RUN / "train_config.json"))
    assert list(again) == list(tree)
    assert again == tree
