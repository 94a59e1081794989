"""Weights of items: from predicted progress, a column, or by task; and what a loss makes of them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.core import keys
from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.errors import ConfigError, DatasetError
from lerobot.core.flags import read_flags, tree_of
from lerobot.datasets import LeRobotDataset
from lerobot.distributed.world import World
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.config import TrainConfig, complete, load_train_config
from lerobot.training.logs.header import header
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.run import start
from lerobot.training.sampling.data import weightless
from lerobot.training.sampling.weighting import Weighting, gains_of, read_progress, weights_of
from lerobot.training.step import update
from tests.training.conftest import FPS, LENGTH, make_dataset

# Two episodes of 12 and 9 frames, as another implementation weighs them (0.6.1, chunk 4, kappa 0.3).
EPISODE = np.repeat([0, 1], [12, 9])
NOISE = np.random.default_rng(0)
PROGRESS = np.concatenate(
    [
        np.linspace(0, 1, 12) + 0.1 * NOISE.standard_normal(12),
        np.linspace(0, 0.6, 9) + 0.1 * NOISE.standard_normal(9),
    ]
).astype(np.float32)
THEIRS = [0.537659, 1, 1, 1, 1, 0.38476026, 0.33721653, 0.4989671, 1, 1, 0.3157772, 0.06659411]
THEIRS += [1, 0.5261835, 1, 1, 1, 0.45259732, 0.21857728, 0, 0.06659411]


def opened(words):
    tree = tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete)
    return start(decode(TrainConfig, tree), World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))


# ------------------------------------------------------------------------------------------------- rabc
def test_weights_from_progress_are_those_of_another_implementation():
    gains = gains_of(np.arange(21), EPISODE, PROGRESS, chunk=4)
    assert gains.mean() == pytest.approx(0.2737127295916989, abs=1e-7)
    assert gains.std() == pytest.approx(0.15788479342435607, abs=1e-7)
    assert np.allclose(weights_of(gains, kappa=0.3, epsilon=1e-6), THEIRS, atol=1e-6)


def test_a_frame_whose_progress_or_goal_is_missing_has_no_gain():
    kept = np.delete(np.arange(21), [3, 11])  # the last frame of the first episode is one of them
    gains = dict(zip(kept, gains_of(kept, EPISODE[kept], PROGRESS[kept], chunk=4), strict=True))
    assert gains[8] == PROGRESS[10] - PROGRESS[8]  # as far as is known
    assert gains[10] == 0 and 3 not in gains
    holed = PROGRESS.copy()
    holed[5] = np.nan
    found = gains_of(np.arange(21), EPISODE, holed, chunk=4)
    assert np.flatnonzero(np.isnan(found)).tolist() == [1, 5]


def test_a_gain_beyond_kappa_counts_fully_and_a_loss_of_progress_nothing():
    gains = np.array([0.02, 0.01, 0.0, -1e-9, np.nan])
    weights = weights_of(gains, kappa=0.01, epsilon=1e-6)
    assert weights[0] == 1 and 0 < weights[2] < weights[1] < 1 and weights[3] == 0


@pytest.fixture
def progress(tmp_path):
    """Writes a table for the small dataset: the first episode goes ahead, the second stands still, the third
    goes back."""

    def write(path, *, column="progress_sparse", frames=3 * LENGTH):
        step = np.arange(frames) % LENGTH / LENGTH
        values = np.where(
            np.arange(frames) < LENGTH, step, np.where(np.arange(frames) < 2 * LENGTH, 0.5, 1 - step)
        )
        table = {
            "index": np.arange(frames),
            "episode_index": np.arange(frames) // LENGTH,
            "frame_index": np.arange(frames) % LENGTH,
            column: values.astype(np.float32),
        }
        pq.write_table(pa.table(table).take(pa.array(np.arange(frames)[::-1])), path)  # order means nothing
        return path

    return write


def test_a_run_weighs_items_by_progress(flags, tmp_path, progress, capsys):
    path = progress(tmp_path / "progress.parquet")
    more = [f"--sample_weighting.progress_path={path}", "--steps=9", "--log_freq=9"]
    last = train(flags(tmp_path / "run", *more))
    row = read_metrics(tmp_path / "run" / METRICS_FILE)[-1]
    assert row["sample_weighting/zero_share"] == pytest.approx(11 / 36)  # the last frame of all gains 0
    assert row["sample_weighting/full_share"] == pytest.approx(11 / 36)
    assert 11 / 36 < row["sample_weighting/mean_weight"] < 25 / 36
    assert "31% of the frames count nothing" in capsys.readouterr().err
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())["sample_weighting"]
    assert saved["type"] == "rabc" and saved["kappa"] == 0.01 and saved["progress_path"] == str(path)


def test_a_datasets_own_table_is_found_and_chosen_episodes_keep_their_weights(flags, tmp_path, progress):
    root = make_dataset(tmp_path / "data")
    progress(root / "sarm_progress.parquet", column="progress_dense")
    words = [f"--dataset.root={root}", "--sample_weighting.head_mode=dense", "--dataset.episodes=[0,2]"]
    run = opened(flags(tmp_path / "run", *words))
    for (batch,) in run.batches():
        index, weight = batch["index"], batch["loss_weight"]
        assert torch.equal(weight == 1, index < LENGTH - 1) and weight.shape == (4,)
        assert torch.equal(weight == 0, (index >= 2 * LENGTH) & (index < 3 * LENGTH - 1))
        run.step += 1


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({}, DatasetError, "no table of progress at .*sarm_progress.parquet. Name it"),
        ({"column": "progress_dense"}, DatasetError, "has no column progress_sparse.*head_mode=dense"),
        ({"frames": 5 * LENGTH}, DatasetError, "speaks of frames 0 to 59; local/small has 36"),
    ],
)
def test_a_table_that_does_not_fit_is_named(flags, tmp_path, progress, how, error, said):
    words = ["--sample_weighting.type=rabc"]
    if how:
        words.append(f"--sample_weighting.progress_path={progress(tmp_path / 'p.parquet', **how)}")
    with pytest.raises(error, match=said):
        train(flags(tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


def test_a_table_on_the_hub_is_downloaded(flags, tmp_path, progress, monkeypatch):
    path, asked = progress(tmp_path / "p.parquet"), []
    monkeypatch.setattr(
        "lerobot.core.hub.Repo.file", lambda repo, name: asked.append((repo.repo_id, name)) or path
    )
    opened(flags(tmp_path / "run", "--sample_weighting.progress_path=hf://datasets/me/x/some/p.parquet"))
    assert asked == [("me/x", "some/p.parquet")]


def test_flat_keys_of_old_files_are_read(tmp_path, flags, progress):
    path = progress(tmp_path / "p.parquet")
    last = train(flags(tmp_path / "run", "--steps=1"))
    file = last / "pretrained_model/train_config.json"
    saved = json.loads(file.read_text())
    old = {
        "rabc_progress_path": str(path),
        "rabc_kappa": 0.2,
        "rabc_epsilon": 1e-3,
        "rabc_head_mode": "dense",
    }
    del saved["sample_weighting"]
    file.write_text(json.dumps(saved | {"use_rabc": False} | old))
    assert load_train_config(file).sample_weighting is None
    file.write_text(json.dumps(saved | {"use_rabc": True} | old))
    found = load_train_config(file).sample_weighting
    assert (found.type, found.kappa, found.epsilon, found.head_mode) == ("rabc", 0.2, 1e-3, "dense")
    tree = tree_of(
        [f"--config_path={file}"] and read_flags([f"--config_path={file}"]),
        aliases=TRAIN_ALIASES,
        complete=complete,
    )
    assert decode(TrainConfig, tree).sample_weighting == found
    words = flags(tmp_path / "typed", "--use_rabc=true", f"--rabc_progress_path={path}")
    typed = decode(TrainConfig, tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete))
    assert typed.sample_weighting.progress_path == str(path) and typed.sample_weighting.kappa == 0.01


# ------------------------------------------------------------------------------------------------- others
@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Two episodes of 12 and 6 frames, of different tasks; a column `good` is 0 on every other frame."""
    root = tmp_path_factory.mktemp("judged") / "data"
    joints = {"dtype": "float32", "shape": [3], "names": ["pan.pos", "lift.pos", "gripper.pos"]}
    table = {"observation.environment_state": joints, "action": dict(joints)}
    table["good"] = {"dtype": "float32", "shape": [1], "names": None}
    dataset, noise = LeRobotDataset.create("me/judged", FPS, table, root=root), np.random.default_rng(3)
    for length, task in ((12, "push"), (6, "pull")):
        for t in range(length):
            state = noise.standard_normal(3).astype(np.float32)
            good = np.array([t % 2], np.float32)
            dataset.add_frame(
                {"observation.environment_state": state, "action": 2 * state, "good": good, "task": task}
            )
        dataset.save_episode()
    dataset.finalize()
    return root


def words(flags, judged, folder, *more):
    return flags(folder, f"--dataset.root={judged}", "--policy.dropout=0", "--policy.use_vae=false", *more)


BY_COLUMN = ["--sample_weighting.type=column", "--sample_weighting.extra_params={column: good}"]


def test_weights_of_a_column_and_by_task(flags, judged, tmp_path):
    run = opened(words(flags, judged, tmp_path / "a", *BY_COLUMN))
    assert run.weighting.table.tolist() == [t % 2 for t in [*range(12), *range(6)]]
    assert header(run)["weights"] == "by column, mean weight 0.5; 50% of the frames count nothing"
    run = opened(words(flags, judged, tmp_path / "b", "--sample_weighting.type=tasks"))
    assert run.weighting.table.tolist() == [0.75] * 12 + [1.5] * 6


def test_items_of_weight_zero_are_as_if_they_were_not_there(flags, judged, tmp_path):
    """A step of two micro-batches, uneven in what counts, against one on the items that count, at once."""
    sgd = ["--optimizer.type=sgd", "--optimizer.lr=0.1"]  # Adam would blow up the rounding
    weighed = opened(words(flags, judged, tmp_path / "a", *BY_COLUMN, *sgd))
    plain = opened(words(flags, judged, tmp_path / "b", *sgd))
    parts = [weighed.dataset.batch(items) for items in ([0, 1, 2, 4, 6], [3, 5, 7, 8, 17])]
    update(weighed, [weighed.weighed(weighed.prepare(part)) for part in parts])
    update(plain, [plain.prepare(plain.dataset.batch([1, 3, 5, 7, 17]))])
    one, two = weighed.policy.state_dict(), plain.policy.state_dict()
    assert all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-6) for name in one)
    assert weighed.meter.read()["loss"] == pytest.approx(plain.meter.read()["loss"], rel=1e-5)


def test_only_ratios_of_weights_matter(flags, judged, tmp_path):
    run = opened(words(flags, judged, tmp_path / "a", *BY_COLUMN))
    batch = run.prepare(run.dataset.batch(range(18)))
    weight = torch.linspace(0.1, 1, 18)
    losses = [run.policy(batch | {"loss_weight": scale * weight})[0].item() for scale in (1.0, 7.0)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(run.policy(batch)[0].item(), rel=1e-3)


def test_validation_is_not_weighed(flags, judged, tmp_path):
    more = ["--dataset.eval_split=0.3", "--eval_steps=2", "--steps=2", "--dataset.eval_split_seed=1"]
    make_rows = {}
    for name, kind in (("plain", []), ("uniform", ["--sample_weighting.type=uniform"])):
        root = make_dataset(tmp_path / f"data_{name}")
        train(words(flags, root, tmp_path / name, *more, *kind))
        make_rows[name] = [
            r["eval/loss"] for r in read_metrics(tmp_path / name / METRICS_FILE) if "eval/loss" in r
        ]
    assert make_rows["plain"] == make_rows["uniform"] and len(make_rows["plain"]) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--sample_weighting.type=rabcd"], "Did you mean 'rabc'"),
        (["--sample_weighting.type=column"], "needs the column of weights"),
        ([BY_COLUMN[0], "--sample_weighting.extra_params={column: bad}"], "no column 'bad' with one number"),
        ([BY_COLUMN[0], "--sample_weighting.extra_params={colum: x}"], "Did you mean 'column'"),
        ([*BY_COLUMN, "--dataset.streaming=true"], "needs every episode at hand"),
    ],
)
def test_mistakes_are_named(flags, judged, tmp_path, more, said):
    with pytest.raises(ConfigError, match=said):
        train(words(flags, judged, tmp_path / "run", *more))


@pytest.mark.parametrize("flag", ["--sample_weighting.type=uniform", "--curriculum.difficulty=loss"])
def test_a_policy_with_one_loss_for_the_whole_batch_is_refused(flags, judged, tmp_path, monkeypatch, flag):
    monkeypatch.setattr(ACTPolicy, "has_item_losses", False)  # a plug-in's forward(batch)
    with pytest.raises(ConfigError, match="needs the loss of each item, and act has one of the whole batch"):
        train(words(flags, judged, tmp_path / "run", flag))


def test_weights_that_are_all_zero_are_refused(flags, tmp_path, judged):
    more = [BY_COLUMN[0], "--sample_weighting.extra_params={column: task_index}"]
    root = make_dataset(tmp_path / "data")  # one task, number 0
    with pytest.raises(ConfigError, match="each of the 36 frames to train on would have the weight 0"):
        train(words(flags, root, tmp_path / "run", *more))


def test_a_damaged_table_is_said_to_be_one(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DatasetError, match=r"p\.parquet"):
        read_progress(tmp_path / "p.parquet", head="sparse")


def test_a_filler_counts_nothing_whatever_its_weight():
    weighting = Weighting(table=torch.tensor([0.5, 2.0]), summary="two frames")
    batch = {keys.INDEX: torch.tensor([1, 0])}
    assert weighting(batch)[keys.LOSS_WEIGHT].tolist() == [2.0, 0.5]
    assert weighting(weightless(batch))[keys.LOSS_WEIGHT].tolist() == [0.0, 0.0]
