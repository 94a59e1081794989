"""The fault table: each fault is made on a real dataset, opened, read, found by the doctor, and repaired.

Opening must name the file and what to type; the doctor must find it under its code; the repaired copy must be
sound and hold every unharmed episode, picture by picture.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset, columns, episodes
from lerobot.datasets.doctor import examine, repair
from lerobot.datasets.doctor.footage import copy_frames
from lerobot.datasets.doctor.videos import Video, open_video
from tests.fakes import dataset as made

LENGTHS = [6, 4, 7]
TOP, WRIST = "observation.images.top", "observation.images.wrist"
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}
DATA = "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{TOP}/chunk-000/file-000.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
ALL, NONE = (0, 1, 2), ()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("faults") / "whole"
    made.make(folder, LENGTHS, FEATURES)
    return folder


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A recording that was not finalized: every episode has files of its own."""
    folder = tmp_path_factory.mktemp("faults") / "split"
    dataset = LeRobotDataset.create("me/made", 10, FEATURES, root=folder, rgb_encoder=made.FAST)
    made.record(dataset, LENGTHS)
    return folder


# ------------------------------------------------------------------------------------------------ the faults
def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_rows(root: Path, change: Callable[[pa.Table], pa.Table], name: str = DATA) -> None:
    table = change(pq.ParquetFile(root / name).read())
    pq.write_table(table, root / name)


def edited(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        values = change(table[name].to_numpy().copy())
        return table.set_column(table.column_names.index(name), field, pa.array(values).cast(field.type))

    return edit


def put(at: int | slice, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[at] = value
        return values

    return change


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return damage


def empty(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(b"")


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def rows(change: Callable[[pa.Table], pa.Table], name: str = DATA) -> Callable[[Path], None]:
    return lambda root: edit_rows(root, change, name)


def info(**changes) -> Callable[[Path], None]:
    return lambda root: edit_info(root, **changes)


def flip_video(root: Path) -> None:
    """Every byte of the pictures of the last frames, so that no decoder can pass over it."""
    path = root / VIDEO
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    end = len(data) if data.index(b"moov") < begin else data.index(b"moov") - 4
    for at in range(begin + (end - begin) * 8 // 10, end):
        data[at] ^= 0xA5
    path.write_bytes(data)


def shorten_video(root: Path) -> None:
    none = np.empty(0, dtype=np.int64)
    video = Video(name=VIDEO, camera=TOP, episodes=none, numbers=none, lengths=none, first=none)
    assert not list(open_video(root, video))
    short = root / "short.mp4"
    copy_frames(root / VIDEO, short, video=video, spans=[(0, 10)], fps=10)
    short.replace(root / VIDEO)


def other_stats(root: Path) -> None:
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["action"]["mean"] = [0.0, 1.0]
    path.write_text(json.dumps(stats))


def shuffled(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(3).permutation(len(table))))


@dataclass(kw_only=True)
class Fault:
    """One line of the table."""

    make: Callable[[Path], object]
    code: str
    opens: str | None  # what opening or reading must say; None: the dataset opens
    kept: tuple[int, ...] | None = ALL  # episodes of the repaired copy; None: nothing can be repaired
    of: str = "whole"  # which dataset is damaged
    decode: str = "none"


FAULTS = {
    "parquet without its end": Fault(make=cut(DATA, 0.7), code="data.unreadable", opens=DATA),
    "truncated parquet": Fault(make=cut(DATA, 0.3), code="data.unreadable", opens=DATA, kept=(0, 1)),
    "parquet of other bytes": Fault(
        make=lambda root: (root / DATA).write_bytes(b"no parquet" * 99),
        code="data.unreadable",
        opens=DATA,
        kept=None,
    ),
    "truncated parquet of one episode": Fault(
        make=cut("data/chunk-000/file-001.parquet", 0.1),
        code="data.unreadable",
        opens="file-001.parquet",
        kept=(0, 2),
        of="split",
    ),
    "empty parquet": Fault(
        make=empty("data/chunk-000/file-002.parquet"),
        code="data.unreadable",
        opens="file-002.parquet",
        kept=(0, 1),
        of="split",
    ),
    "missing parquet": Fault(
        make=remove("data/chunk-000/file-000.parquet"),
        code="data.missing",
        opens="file-000.parquet",
        kept=(1, 2),
        of="split",
    ),
    "truncated episode table": Fault(make=cut(EPISODES, 0.9), code="episodes.unreadable", opens=EPISODES),
    "missing episode table": Fault(make=remove(EPISODES), code="episodes.missing", opens="meta/episodes"),
    "truncated task table": Fault(
        make=cut("meta/tasks.parquet", 0.9), code="tasks.unreadable", opens="meta/tasks.parquet"
    ),
    "a column is not there": Fault(
        make=rows(lambda t: t.drop_columns(["action"])), code="data.column", opens="action", kept=None
    ),
    "rows out of order": Fault(make=rows(shuffled), code="data.order", opens=DATA),
    "an index that lies": Fault(
        make=rows(edited("index", put(slice(8, None), 3))), code="data.index", opens=DATA
    ),
    "a frame_index that lies": Fault(
        make=rows(edited("frame_index", put(2, 9))), code="data.frame_index", opens=DATA
    ),
    "an episode_index that lies": Fault(
        make=rows(edited("episode_index", put(slice(6, 10), 2))), code="data.episode_index", opens=DATA
    ),
    "task numbers out of range": Fault(
        make=rows(edited("task_index", put(3, 7))), code="data.task_index", opens="task"
    ),
    "NaN": Fault(make=rows(lambda t: _with_nan(t, 7)), code="data.nan", opens=None, kept=(0, 2)),
    "cut mp4": Fault(make=cut(VIDEO, 0.8), code="video.frames", opens="file-000.mp4", kept=(0, 1)),
    "empty mp4": Fault(
        make=empty(f"videos/{TOP}/chunk-000/file-001.mp4"),
        code="video.unreadable",
        opens="file-001.mp4",
        kept=(0, 2),
        of="split",
    ),
    "missing mp4": Fault(
        make=remove(f"videos/{TOP}/chunk-000/file-001.mp4"),
        code="video.missing",
        opens="file-001.mp4",
        kept=(0, 2),
        of="split",
    ),
    "flipped mp4": Fault(
        make=flip_video, code="video.decode", opens="file-000.mp4", kept=(0, 1), decode="all"
    ),
    "an mp4 that is too short": Fault(make=shorten_video, code="video.frames", opens="frame", kept=(0, 1)),
    "episodes too many": Fault(make=info(total_episodes=5), code="info.count", opens="counts 5 episodes"),
    "frames too many": Fault(make=info(total_frames=18), code="info.count", opens="counts 18 frames"),
    "timestamps out of step": Fault(
        make=rows(edited("timestamp", put(4, 0.45))), code="data.timestamp", opens="out of step"
    ),
    "another fps": Fault(make=info(fps=20), code="data.timestamp", opens="out of step with fps=20"),
    "fps 0": Fault(make=info(fps=0), code="info.fps", opens="fps=0"),
    "fps NaN": Fault(make=info(fps=float("nan")), code="info.fps", opens="fps=nan"),
    "stats of another shape": Fault(make=other_stats, code="stats.shape", opens=None),
    "stats that are no JSON": Fault(
        make=lambda root: (root / "meta/stats.json").write_text("{"),
        code="stats.unreadable",
        opens="stats.json",
    ),
    "info from the future": Fault(
        make=info(codebase_version="v4.1"), code="info.future", opens="newer", kept=None
    ),
    "info that is no JSON": Fault(
        make=lambda root: (root / "meta/info.json").write_text("{"), code="info.unreadable", opens="info.json"
    ),
    "no info": Fault(make=remove("meta/info.json"), code="info.missing", opens="info.json"),
}


def test_an_episode_that_does_not_exist(whole):
    with pytest.raises(
        DatasetError, match=r"episode 99 does not exist; .* has 3 episodes \(0 to 2\)"
    ) as said:
        LeRobotDataset("me/made", root=whole, episodes=[99])
    assert "doctor" not in str(said.value), "nothing is wrong with the files"


def test_an_empty_dataset_opens_and_is_sound(tmp_path):
    made_empty = LeRobotDataset.create("me/made", 10, FEATURES, root=tmp_path / "made")
    made_empty.finalize()
    assert examine(tmp_path / "made").is_sound
    dataset = LeRobotDataset("me/made", root=tmp_path / "made")
    assert (len(dataset), dataset.num_episodes) == (0, 0)
    with pytest.raises(IndexError, match="0"):
        dataset[0]


def test_a_damaged_folder_is_not_looked_for_on_the_hub(whole, tmp_path, monkeypatch):
    """With the Hub reachable: a request would end in the error that conftest raises."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for k, (name, fault) in enumerate(FAULTS.items()):
        if fault.of == "whole" and fault.opens is not None and "info" not in name:
            root = shutil.copytree(whole, tmp_path / str(k))
            fault.make(root)
            with pytest.raises(DatasetError, match="lerobot-doctor"):
                list(LeRobotDataset("me/made", root=root))


@pytest.fixture
def cached(whole, tmp_path, monkeypatch):
    """A dataset whose columns, table and timelines are kept in a cache although they are small; where."""
    monkeypatch.setattr(columns, "CACHED_FROM_BYTES", 0)
    monkeypatch.setattr(episodes, "CACHED_FROM_BYTES", 0)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    made.check(LeRobotDataset("me/made", root=whole), LENGTHS)
    return tmp_path / "cache"


@pytest.mark.parametrize("damage", [b"", b"nonsense " * 50, None], ids=["empty", "overwritten", "flipped"])
def test_a_corrupt_cache_is_made_again(whole, cached, damage):
    kept = [path for path in cached.rglob("*.bin") if path.is_file()]
    assert len(kept) >= 2
    for path in kept:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0xFF
        path.write_bytes(bytes(data) if damage is None else damage)
    made.check(LeRobotDataset("me/made", root=whole), LENGTHS)
    made.check(LeRobotDataset("me/made", root=whole), LENGTHS)


def test_a_cache_home_that_cannot_be_written_costs_nothing_but_time(whole, cached, monkeypatch, caplog):
    blocked = cached.with_name("file")
    blocked.write_text("no folder can be made here")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(blocked))
    made.check(LeRobotDataset("me/made", root=whole), LENGTHS)
    assert f"{blocked}" in caplog.text and "HF_DATASETS_CACHE" in caplog.text


def damage(root: Path, random: Random) -> str:
    """Flip, cut or overwrite bytes of one file; says what was done."""
    path = random.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    data, how = bytearray(path.read_bytes()), random.choice(["flip", "flip many", "cut", "overwrite"])
    if how == "cut":
        del data[random.randrange(len(data)) :]
    elif how == "overwrite":
        at = random.randrange(len(data))
        data[at : at + 50] = random.randbytes(50)
    else:
        for _ in range(1 if how == "flip" else 30):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(data))
    return f"{how}: {path.relative_to(root)}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("of", ["whole", "split"])
def test_random_damage(request, tmp_path, of, seed):
    """Whatever is damaged: the doctor ends with a report; what it calls sound, and copies, can be read."""
    random = Random(seed)
    for number in range(6):
        root = shutil.copytree(request.getfixturevalue(of), tmp_path / str(number))
        done = [damage(root, random) for _ in range(random.choice([1, 1, 2]))]
        report = examine(root, decode="all")
        if report.is_sound:
            _read_all(root, done)
        try:
            outcome = repair(root, decode="all")
        except DatasetError as error:
            assert "info.json" in str(error), done  # the schema is lost
        else:
            assert outcome.output is not None or outcome.report.codes or report.is_sound, done
            if outcome.output is not None:
                assert set(outcome.kept) | set(outcome.lost) == set(ALL), done
                _read_all(outcome.output, done)


def _read_all(root: Path, done: list[str]) -> None:
    dataset = LeRobotDataset("me/made", root=root)
    try:
        assert len(list(dataset)) == len(dataset)
    except DatasetError as error:
        pytest.fail(f"{done}: {error}")


def test_one_damaged_row_group_costs_one_episode(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "made")
    place = pq.read_metadata(root / DATA).row_group(1).column(0)
    data = bytearray((root / DATA).read_bytes())
    at = place.dictionary_page_offset
    data[at : at + 30] = b"x" * 30
    (root / DATA).write_bytes(bytes(data))
    assert "data.unreadable" in examine(root).codes
    outcome = repair(root)
    assert outcome.report.is_sound and set(outcome.lost) == {1}, outcome.lines()
    _check_episodes(outcome.output, (0, 2))


def _with_nan(table: pa.Table, row: int) -> pa.Table:
    field = table.schema.field("action")
    values = table["action"].combine_chunks().flatten().to_numpy().copy()
    values[3 * row + 1] = np.nan
    array = pa.FixedSizeListArray.from_arrays(pa.array(values), 3)
    return table.set_column(table.column_names.index("action"), field, array)


@pytest.fixture(params=FAULTS, ids=lambda name: name.replace(" ", "_"))
def fault(request):
    return FAULTS[request.param]


@pytest.fixture
def damaged(fault, request, tmp_path):
    root = shutil.copytree(request.getfixturevalue(fault.of), tmp_path / "made")
    fault.make(root)
    return root


# ------------------------------------------------------------------------------------------------- the tests
def test_opening_names_the_file_and_what_to_do(fault, damaged):
    if fault.opens is None:
        assert LeRobotDataset("me/made", root=damaged)[0]
        return
    with pytest.raises(DatasetError) as said:
        list(LeRobotDataset("me/made", root=damaged))
    text = str(said.value)
    assert fault.opens in text
    assert f"ype: lerobot-doctor {damaged}" in text or "Install a newer lerobot" in text, text
    assert "Hub:" not in text, "a damaged folder of this machine must not lead to a look-up on the Hub"


def test_the_doctor_finds_it(fault, damaged):
    report = examine(damaged, decode=fault.decode)
    assert fault.code in report.codes, report.lines()
    assert not report.is_sound
    for one in report.findings:
        assert one.file and one.found and one.expected and one.remedy


def test_what_can_be_rebuilt_is(fault, damaged):
    before = {p: p.read_bytes() for p in damaged.rglob("*") if p.is_file()}
    if fault.kept is None:
        _check_that_nothing_is_written(damaged, fault)
    else:
        outcome = repair(damaged, decode=fault.decode)
        assert outcome.output == damaged.with_name("made_repaired"), outcome.lines()
        assert set(outcome.kept) == set(fault.kept) and set(outcome.lost) == set(ALL) - set(fault.kept)
        assert outcome.report.is_sound and examine(outcome.output, decode="all").is_sound
        _check_episodes(outcome.output, fault.kept)
    assert {p: p.read_bytes() for p in damaged.rglob("*") if p.is_file()} == before


def _check_that_nothing_is_written(root: Path, fault: Fault) -> None:
    try:
        outcome = repair(root, decode=fault.decode)
    except DatasetError as error:
        assert str(root) in str(error)
    else:
        assert outcome.output is None and not outcome.report.is_sound
        assert "Nothing was written" in outcome.lines()[-1]
    assert not root.with_name("made_repaired").exists()
    assert not list(root.parent.glob(".*"))


def _check_episodes(root: Path, kept: tuple[int, ...]) -> None:
    """Every item of the kept episodes must be what was recorded."""
    dataset = LeRobotDataset("me/made", root=root)
    assert [int(n) for n in dataset.meta.episodes["length"]] == [LENGTHS[episode] for episode in kept]
    at = 0
    for new, old in enumerate(kept):
        for k in range(LENGTHS[old]):
            item = dataset[at]
            assert (int(item["episode_index"]), int(item["frame_index"])) == (new, k)
            made.check_item(item, made.frame(FEATURES, old, k), at, f"episode {old} frame {k}")
            at += 1
    assert len(dataset) == at
