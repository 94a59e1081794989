"""Curricula: what each stage draws from, in an order that a resumed run and several processes share."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.errors import ConfigError
from lerobot.datasets.sampler import EpisodeAwareSampler
from lerobot.distributed.world import World
from lerobot.scripts.train import train
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.sampling.curriculum import Curriculum, Part, StagedLoader, easiest, stage_of
from lerobot.training.sampling.data import Position
from lerobot.training.sections import CurriculumConfig
from tests.training.conftest import make_dataset

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
LENGTHS = [5, 9, 2, 7, 4, 6]  # frames of six episodes
DIFFICULTY = np.array([3.0, 1.0, 6.0, 2.0, 5.0, 4.0])  # ranked: 1 3 0 5 4 2


class Numbers:
    """A source whose items say which they are, and of which episode."""

    def batch(self, indices):
        items = torch.tensor(indices)
        return {"index": items, "episode_index": episode_of(items)}


def episode_of(items):
    return torch.bucketize(items, torch.tensor(np.cumsum(LENGTHS)), right=True)


def loader(*, steps=40, first_step=0, state=None, start=None, difficulty=DIFFICULTY, num_micro=1, **how):
    ends = np.cumsum(LENGTHS)
    sampler = EpisodeAwareSampler(ends - LENGTHS, ends, shuffle=True, seed=7)
    part = Part(frames=sampler.frames, episodes=episode_of(sampler.frames).numpy())
    settings = CurriculumConfig(difficulty="loss" if difficulty is None else "length")
    curriculum = Curriculum(settings, [part], num_episodes=6, difficulty=difficulty, world=ALONE)
    if state is not None:
        curriculum.load_state_dict(json.loads(json.dumps(state)))
    curriculum.begin(first_step=first_step, steps=steps, num_micro=num_micro)
    made = StagedLoader(curriculum, Numbers(), sampler, **{"batch_size": 4, **how})
    made.start = start or made.start
    return made


def follow(loader, count, *, loss=None):
    """The frames of so many batches; `loss` is what training would tell of each episode."""
    batches, taken = iter(loader), []
    for _ in range(count):
        batch = next(batches)
        taken.append(batch["index"].tolist())
        losses = None if loss is None else loss[batch["episode_index"]]
        loader.curriculum.observe(batch, {"item_losses": losses})
    batches.close()
    return taken


def episodes(taken):
    return set(episode_of(torch.tensor(sum(taken, []))).tolist())


# ------------------------------------------------------------------------------------------------- stages
def test_each_stage_draws_from_its_share_of_the_ranked_episodes():
    taken = follow(loader(), 40)
    assert episodes(taken[:12]) == {1, 3}
    assert episodes(taken[12:28]) == {1, 3, 0, 5}
    assert episodes(taken[28:]) == {0, 1, 2, 3, 4, 5}


def test_a_pass_visits_every_drawn_frame_once_and_passes_differ():
    taken = follow(loader(), 40)
    drawn = [*range(5, 14), *range(16, 23)]  # episodes 1 and 3
    one, two = sum(taken[:4], []), sum(taken[4:8], [])
    assert sorted(one) == sorted(two) == drawn and one != two
    assert sorted(sum(taken[28:37], [])) == list(range(33))  # a stage begins a new pass


@pytest.mark.parametrize(("step", "stage"), [(0, 0), (29, 0), (30, 1), (69, 1), (70, 2), (99, 2)])
def test_thresholds_are_shares_of_the_run(step, stage):
    assert stage_of(step, 100, thresholds=[0.3, 0.7]) == stage


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 33, 997])
def test_a_stage_spans_the_steps_that_are_in_it(steps):
    curriculum = loader(steps=steps).curriculum
    for stage in range(3):
        first, end = curriculum.span(stage)
        inside = [step for step in range(steps) if curriculum.stage(step) == stage]
        assert inside == list(range(first, end))


def test_ties_go_to_the_lower_number_and_one_episode_is_always_drawn():
    assert easiest(np.array([4, 2, 2, 9]), np.zeros(10), share=1 / 3).tolist() == [2]
    assert easiest(np.array([0, 1]), np.array([2.0, 1.0]), share=0.01).tolist() == [1]
    for count in (3, 9, 30, 300):
        assert len(easiest(np.arange(count), np.zeros(count), share=1 / 3)) == count // 3


# ------------------------------------------------------------------------------------------------- order
@pytest.mark.parametrize("how", [{"num_workers": 3, "prefetch": 2}, {"num_micro": 2, "steps": 20}])
def test_threads_and_micro_batches_do_not_change_the_order(how):
    assert follow(loader(**how), 40) == follow(loader(), 40)


def test_processes_share_every_pass():
    whole = follow(loader(batch_size=6), 30)
    parts = [follow(loader(batch_size=2, rank=rank, num_ranks=3), 30) for rank in range(3)]
    together = [sorted(sum(step, [])) for step in zip(*parts, strict=True)]
    assert [set(step) for step in together] == [set(step) for step in whole]


@pytest.mark.parametrize("stop", [0, 1, 5, 11, 12, 13, 27, 28, 39])
@pytest.mark.parametrize("difficulty", [DIFFICULTY, None])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_goes_on_with_the_same_frames(stop, difficulty, num_workers):
    loss = torch.tensor([0.6, 0.2, 0.9, 0.4, 0.5, 0.3])
    whole = follow(loader(difficulty=difficulty), 45, loss=loss)
    before = loader(difficulty=difficulty, num_workers=num_workers)
    taken = follow(before, stop, loss=loss)
    state, position = before.curriculum.state_dict(), Position.from_state(before.position(stop).state())
    later = loader(first_step=stop, state=state, start=position, difficulty=difficulty, num_workers=2)
    assert taken + follow(later, 45 - stop, loss=loss) == whole


def test_more_steps_after_a_resume_begin_a_new_pass_where_the_stage_is_another():
    before = loader()
    follow(before, 14)
    state, position = before.curriculum.state_dict(), before.position(14)
    assert (position.epoch, position.offset) == (3, 8)
    later = loader(first_step=14, steps=400, state=state, start=position)  # easy again, until step 120
    taken = follow(later, 4)
    assert later.curriculum.passes[0].position.epoch == 4
    assert sorted(sum(taken, [])) == [*range(5, 14), *range(16, 23)]


def test_positions_are_those_of_the_batches():
    made = loader()
    follow(made, 40)
    places = [(made.position(n).epoch, made.position(n).offset) for n in (0, 1, 3, 4, 11, 12, 13, 28, 37)]
    assert places == [(0, 0), (0, 4), (0, 12), (1, 0), (2, 12), (3, 0), (3, 4), (6, 0), (7, 0)]
    assert made.position(20).frames_per_epoch == made.frames_per_epoch == 33


# ------------------------------------------------------------------------------------------------- losses
def test_what_was_not_seen_is_drawn_first_and_then_the_smallest_losses():
    loss = torch.tensor([0.6, 0.2, 0.9, 0.4, 0.5, 0.3])
    made = loader(difficulty=None, steps=400)
    taken = follow(made, 60, loss=loss)
    passes = [one for one in made.curriculum.passes if one.end <= 60]
    drawn = [episodes(taken[one.first : one.end]) for one in passes]
    assert drawn[:3] == [{0, 1}, {2, 3}, {4, 5}]
    assert drawn[3:] and all(one == {1, 5} for one in drawn[3:])
    assert passes[3].difficulty == pytest.approx(0.25)
    assert math.isnan(passes[0].difficulty) and "curriculum/difficulty" not in made.curriculum.row(1)


def test_losses_of_all_processes_count():
    class Two(World):
        def gather(self, value):
            return [value, np.array([[8.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]])]

    made = loader(difficulty=None)
    made.curriculum.losses.world = Two(0, 2, 0, torch.device("cpu"))
    batch = {"episode_index": torch.tensor([0, 0, 3])}
    made.curriculum.observe(batch, {"item_losses": torch.tensor([1.0, 3.0, 5.0])})
    found = made.curriculum.losses.at(0)
    assert found[0] == 4.0 and found[3] == 5.0 and np.isnan(found[[1, 2, 4, 5]]).all()


# ------------------------------------------------------------------------------------------------- runs
@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Six episodes, and a file that says the last ones are the easiest."""
    folder = tmp_path_factory.mktemp("graded")
    make_dataset(folder / "data", episodes=6)
    (folder / "grades.json").write_text(json.dumps({str(k): 10 - k for k in range(6)}))
    return folder


def words(flags, graded, folder, *more):
    return flags(folder, f"--dataset.root={graded / 'data'}", *more)


def rows_of(folder):
    return [row for row in read_metrics(folder / METRICS_FILE) if "loss" in row]


def test_a_run_says_what_it_drew_from(flags, graded, tmp_path, capsys):
    more = ["--steps=10", f"--curriculum.difficulty={graded / 'grades.json'}", "--log_freq=1"]
    train(words(flags, graded, tmp_path / "run", *more))
    rows = rows_of(tmp_path / "run")
    assert [row["curriculum/stage"] for row in rows] == [1] * 3 + [2] * 4 + [3] * 3
    assert [row["curriculum/episodes"] for row in rows[::4]] == [2, 4, 6]
    assert [row["curriculum/difficulty"] for row in rows[::4]] == [5.5, 6.5, 7.5]
    assert rows[0]["curriculum/frames_share"] == pytest.approx(1 / 3)
    said = capsys.readouterr().err
    assert "33% until step 3, 67% until step 7, then all" in " ".join(said.split())
    lines = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("curriculum  ")]
    assert lines[0] == "easy: the easiest 33% of the episodes until step 3"
    assert lines[1:] == ["medium: the easiest 67% of the episodes until step 7", "hard: all episodes"]


def test_a_resumed_run_equals_an_uninterrupted_one(flags, graded, tmp_path):
    more = ["--curriculum.difficulty=column:episode_index", "--save_freq=4"]
    train(words(flags, graded, tmp_path / "whole", "--steps=8", *more))
    train(words(flags, graded, tmp_path / "parts", "--steps=8", *more))
    config = tmp_path / "parts/checkpoints/000004/pretrained_model/train_config.json"
    train([f"--config_path={config}", "--resume=true", "--num_workers=0", "--save_freq=8"])
    one, two = (
        load_file(tmp_path / run / "checkpoints/last/pretrained_model/model.safetensors")
        for run in ("whole", "parts")
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_datasets_of_a_mixture_are_ranked_each_by_itself(flags, graded, tmp_path):
    make_dataset(tmp_path / "b", episodes=3)
    more = [
        "--dataset.repo_id=[me/a,me/b]",
        f"--dataset.root=[{graded / 'data'},{tmp_path / 'b'}]",
        "--curriculum.difficulty=column:index",
        "--dataset.weights=[1,2]",
    ]
    train(flags(tmp_path / "run", *more, "--steps=10", "--log_freq=1"))
    rows = rows_of(tmp_path / "run")
    assert [row["curriculum/episodes"] for row in rows[::4]] == [2 + 1, 4 + 2, 6 + 3]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("lenght", "Did you mean 'length'"),
        ("column:rewards", "there is no column 'rewards' with one number"),
        ("column:action", "with one number"),
        ("column:tasks", "holds no single numbers"),
        ("nowhere.json", "cannot be read: No such file"),
    ],
)
def test_a_difficulty_that_is_not_there_is_named(flags, graded, tmp_path, kind, said):
    with pytest.raises(ConfigError, match=said):
        train(words(flags, graded, tmp_path / "run", f"--curriculum.difficulty={kind}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"0": 1, "1": 2, "3": 1, "4": 0}', "no number for episodes 2, 5. Add them"),
        ('{"0": 1, "1": 2, "2": NaN, "3": 1, "4": 0, "5": 1}', "episode 2 has nan"),
        ("[1, 2]", "expected a JSON object"),
        ('{"first": 1}', "expected a JSON object"),
    ],
)
def test_a_file_that_lacks_an_episode_is_named(flags, graded, tmp_path, text, said):
    (tmp_path / "grades.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        train(words(flags, graded, tmp_path / "run", f"--curriculum.difficulty={tmp_path / 'grades.json'}"))


def test_a_stream_has_no_curriculum(flags, graded, tmp_path):
    more = ["--dataset.streaming=true", "--curriculum.difficulty=length"]
    with pytest.raises(ConfigError, match="needs every episode at hand"):
        train(words(flags, graded, tmp_path / "run", *more))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"thresholds": [0.5]}, "as many numbers in both"),
        ({"thresholds": [0.7, 0.3]}, "ascending numbers between 0 and 1"),
        ({"shares": [0.5, 1.5]}, "ascending numbers between 0 and 1"),
        ({"shares": [0.0, 0.5]}, "ascending numbers between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        CurriculumConfig(difficulty="length", **settings)


@pytest.mark.slow
def test_losses_are_measured_and_a_resumed_run_equals_an_uninterrupted_one(flags, graded, tmp_path):
    more = ["--curriculum.difficulty=loss", "--steps=24", "--log_freq=2", "--gradient_accumulation_steps=2"]
    whole = words(flags, graded, tmp_path / "whole", *more, "--num_workers=2", "--save_freq=0")
    train(whole)
    for stop in (11, 13):  # the second pass begins in the middle of step 4, others follow
        parts = tmp_path / f"parts{stop}"
        train(words(flags, graded, parts, *more, "--num_workers=0", f"--save_freq={stop}"))
        config = parts / f"checkpoints/{stop:06d}/pretrained_model/train_config.json"
        train([f"--config_path={config}", "--resume=true", "--num_workers=1"])
        one, two = (
            load_file(run / "checkpoints/last/pretrained_model/model.safetensors")
            for run in (tmp_path / "whole", parts)
        )
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    rows = rows_of(tmp_path / "whole")
    assert [row["curriculum/episodes"] for row in rows[::5]] == [2, 4, 6]
    assert 0 < rows[-1]["curriculum/difficulty"] < 100
