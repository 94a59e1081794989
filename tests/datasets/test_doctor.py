"""The doctor on sound datasets of several writers, on states that are in order, and as a command."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.doctor import examine, repair
from lerobot.datasets.doctor.finding import CODES, Severity
from lerobot.datasets.doctor.footer import mend_footer
from lerobot.scripts.doctor import doctor
from tests.fakes import dataset as made
from tests.fakes import layouts

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets"
LENGTHS = [6, 4, 7]
TOP = "observation.images.top"
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE, **made.DEPTH}
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor") / "made"
    made.make(folder, LENGTHS, FEATURES)
    return folder


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "made")


def damage(report) -> set[str]:
    return {one.code for one in report.findings if one.severity is not Severity.NOTE} - {"data.constant"}


def change(path: Path, name: str, edit) -> None:
    """Replace a column of a parquet file by what `edit` makes of its values."""
    table = pq.ParquetFile(path).read()
    at, field = table.column_names.index(name), table.schema.field(name)
    pq.write_table(table.set_column(at, field, pa.array(edit(table[name].to_pylist()), field.type)), path)


# ------------------------------------------------------------------------------------------ sound datasets
@pytest.mark.parametrize("name", ["v30_image/dataset", "v30_depth/dataset", "v30_rollover/dataset"])
def test_datasets_of_the_reference_are_sound(name):
    report = examine(GOLDEN / name, decode="all")
    assert not report.findings, report.lines()
    assert report.num_episodes and report.num_frames


def test_older_layouts_are_sound(root, tmp_path):
    source = LeRobotDataset("me/made", root=root)
    for k, make in enumerate((layouts.v21, layouts.v20)):
        report = examine(make(source, tmp_path / str(k)), decode="all")
        assert damage(report) == set() and "info.old" in report.codes, report.lines()
        assert (report.num_episodes, report.num_frames) == (3, 17)
        (tmp_path / str(k) / f"videos/chunk-000/{TOP}/episode_000001.mp4").write_bytes(b"")
        assert "video.unreadable" in examine(tmp_path / str(k)).codes
    folder = layouts.shards(source, tmp_path / "shards", data=[[0, 1], [2]], videos=[[0, 1, 2]])
    report = examine(folder)
    assert damage(report) == set() and report.codes == {"layout.shards"}
    next(folder.glob("data/*.parquet")).write_bytes(b"")
    assert "layout.damaged" in examine(folder).codes


def test_our_own_are_sound(root):
    report = examine(root, decode="all")
    assert damage(report) == set(), report.lines()
    assert (report.num_episodes, report.num_frames) == (3, 17)
    constant = [one for one in report.findings if one.code == "data.constant"]
    assert [one.found for one in constant] == ["1 of 3 numbers of 'action' never change: c.pos"]


def test_a_recording_that_goes_on_is_sound(tmp_path):
    dataset = LeRobotDataset.create("me/made", 10, FEATURES, root=tmp_path / "made", rgb_encoder=made.FAST)
    assert examine(dataset.root).is_sound
    for episode, length in enumerate(LENGTHS):
        made.record(dataset, [length], first=episode)
        report = examine(dataset.root, decode="all")
        assert damage(report) == set(), report.lines()
    assert "files.unjoined" in report.codes


@pytest.mark.parametrize("behind", ["info", "info and stats"])
def test_counters_one_episode_behind_are_no_damage(root, tmp_path, behind):
    """What a kill leaves between the last writes of an episode."""
    before, after = tmp_path / "before", tmp_path / "after"
    made.make(before, LENGTHS[:2], FEATURES)
    made.make(after, LENGTHS, FEATURES)
    for name in ("info", "stats")[: 1 + ("stats" in behind)]:
        shutil.copyfile(before / f"meta/{name}.json", after / f"meta/{name}.json")
    report = examine(after)
    expected = {"info.behind", "info.split"} | ({"stats.behind"} if "stats" in behind else set())
    assert report.is_sound and expected - {"info.split"} <= damage(report) <= expected, report.lines()
    outcome = repair(after)
    assert outcome.report.is_sound and not damage(outcome.report)
    made.check(LeRobotDataset("me/made", root=outcome.output), LENGTHS)


# ----------------------------------------------------------------------------------- what faults do not show
def test_leftovers_are_named_and_left_out(copy):
    (copy / "data/chunk-000/.file-001.parquet.part").write_bytes(b"half")
    shutil.copyfile(copy / "data/chunk-000/file-000.parquet", copy / "data/chunk-000/file-007.parquet")
    (copy / f"images/{TOP}/episode-000003").mkdir(parents=True)
    report = examine(copy)
    assert report.is_sound and damage(report) == {"files.part", "files.unused", "files.images"}
    outcome = repair(copy)
    assert not damage(outcome.report)
    made.check(LeRobotDataset("me/made", root=outcome.output), LENGTHS)


def test_many_faults_at_once_are_all_found_and_repaired(copy):
    data = copy / "data/chunk-000/file-000.parquet"
    change(data, "frame_index", lambda values: [0] * len(values))
    change(copy / EPISODES, "length", lambda values: [6, 4, 70])
    change(copy / "meta/tasks.parquet", "task_index", lambda values: [0, 5])
    (copy / "meta/stats.json").unlink()
    assert {"data.frame_index", "episodes.length", "tasks.order", "stats.missing"} <= examine(copy).codes
    outcome = repair(copy)
    assert outcome.report.is_sound and not outcome.lost, outcome.lines()
    made.check(LeRobotDataset("me/made", root=outcome.output), LENGTHS)


def test_rows_of_the_episode_table_out_of_order(copy):
    table = pq.ParquetFile(copy / EPISODES).read()
    pq.write_table(table.take([2, 0, 1]), copy / EPISODES)
    assert {"episodes.order", "episodes.range"} <= examine(copy).codes
    outcome = repair(copy)
    assert outcome.report.is_sound and not outcome.lost, outcome.lines()
    made.check(LeRobotDataset("me/made", root=outcome.output), LENGTHS)


@pytest.mark.parametrize(
    ("name", "edit", "code"),
    [
        (f"videos/{TOP}/from_timestamp", lambda v: [0.0, 0.4, 1.0], "video.overlap"),
        (f"videos/{TOP}/to_timestamp", lambda v: [0.6, 1.0, 1.5], "video.range"),
        ("dataset_from_index", lambda v: [0, 5, 10], "episodes.range"),
        ("meta/episodes/file_index", lambda v: [1, 1, 1], "episodes.self"),
        ("tasks", lambda v: [["sing"], *v[1:]], "episodes.task"),
    ],
)
def test_the_episode_table_against_itself(copy, name, edit, code):
    change(copy / EPISODES, name, edit)
    assert code in examine(copy).codes
    outcome = repair(copy)
    assert not damage(outcome.report) and not outcome.lost, outcome.lines()
    made.check(LeRobotDataset("me/made", root=outcome.output), LENGTHS)


def edit_stats(root: Path, edit) -> None:
    stats = json.loads((root / "meta/stats.json").read_text())
    edit(stats)
    (root / "meta/stats.json").write_text(json.dumps(stats))


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda s: s.pop("action"), "stats.feature"),
        (lambda s: s["action"].update(mean=[1, 2, float("nan")]), "stats.nan"),
        (lambda s: s["action"].update(mean=[1, 2, 0.5]), "stats.values"),
        (lambda s: s["action"].update(std=[1, 2, 0.5]), "stats.std"),
        (lambda s: s["action"].update(q01=[9, 9, 9]), "stats.order"),
        (lambda s: s["action"].update(count=[99]), "stats.count"),
        (lambda s: s["index"].update(max=[99]), "stats.numbering"),
        (lambda s: s[TOP].update(std=[[[0.0]]] * 3), "stats.image_std"),
        (lambda s: s[TOP].update(max=[[[255]]] * 3), "stats.values"),
        (lambda s: s[TOP].update(min=[0, 0, 0]), "stats.shape"),
    ],
)
def test_statistics_against_the_data(copy, edit, code):
    edit_stats(copy, edit)
    assert code in examine(copy).codes
    outcome = repair(copy)
    assert not damage(outcome.report), outcome.lines()


def test_statistics_of_an_episode_against_its_rows(copy):
    change(copy / EPISODES, "stats/action/max", lambda values: [values[0], [5, 5, 5], values[2]])
    found = [one for one in examine(copy).findings if one.code == "stats.episode"]
    assert [one.episodes for one in found] == [(1,)]


def test_pictures_of_another_size_and_codec_are_found(copy):
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"][TOP]["shape"] = [32, 64, 3]
    info["features"][TOP]["info"]["video.codec"] = "av1"
    info["features"]["observation.images.wrist"]["shape"] = [16, 16, 3]
    (copy / "meta/info.json").write_text(json.dumps(info))
    assert {"video.format", "video.info", "image.size"} <= examine(copy).codes


def test_a_picture_that_is_none_is_found(copy):
    data = copy / "data/chunk-000/file-000.parquet"
    cell = {"bytes": b"\x89PNG no more", "path": "x.png"}
    change(data, "observation.images.wrist", lambda v: [*v[:7], cell, None, *v[9:]])
    report = examine(copy, decode="all")
    found = {one.code: one.episodes for one in report.findings}
    assert found["image.unreadable"] == found["image.missing"] == (1,)
    outcome = repair(copy, decode="all")
    assert set(outcome.kept) == {0, 2} and outcome.report.is_sound


def test_cameras_that_drift_and_repeat_are_named(copy):
    table = pq.ParquetFile(copy / EPISODES).read()
    times = [[k / 10 for k in range(n)] for n in LENGTHS]
    late = [
        [k / 10 + 0.02 * k for k in range(n)] if n == 7 else one
        for n, one in zip(LENGTHS, times, strict=True)
    ]
    columns = {
        "capture/times_s": times,
        f"capture/{TOP}/times_s": times,
        "capture/observation.images.wrist/times_s": late,
        f"capture/{TOP}/repeated": [[], [2], []],
        "capture/fps": [10.0, 10.0, 8.2],
    }
    table = table.drop_columns([name for name in table.column_names if name.startswith("capture/")])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, copy / EPISODES)
    report = examine(copy)
    found = {one.code: one.episodes for one in report.findings}
    assert report.is_sound
    assert (found["sync.drift"], found["sync.repeated"], found["sync.cadence"]) == ((2,), (1,), (2,))


# --------------------------------------------------------------------------- recordings that were killed
@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_recording_of_the_reference_that_was_killed_comes_back_whole(kind, tmp_path):
    source = GOLDEN / "v30_killed" / kind
    assert "episodes.missing" in examine(source).codes
    outcome = repair(source, tmp_path / "back")
    assert outcome.report.is_sound and not outcome.lost and list(outcome.kept.values()) == [0, 1, 2, 3]
    dataset, at = LeRobotDataset("me/back", root=tmp_path / "back"), 0
    for episode, length in enumerate([7, 12, 5, 9]):
        for k in range(length):
            item = dataset[at]
            assert item["note"] == f"e{episode} k{k}" and item["task"] == ("pick", "place")[episode % 2]
            np.testing.assert_allclose(item["action"], episode + k / 10, rtol=1e-6)
            np.testing.assert_allclose(item["grid"], np.arange(6).reshape(2, 3) + k)
            assert bool(item["next.done"]) == (k == length - 1)
            assert abs(float(item[TOP].mean()) * 255 - (40 * episode + 3 * k)) < 4
            at += 1
    assert at == len(dataset)


def test_a_footer_is_rebuilt_from_every_whole_row_group(root, tmp_path):
    path = root / "data/chunk-000/file-000.parquet"
    file, data = pq.ParquetFile(path), path.read_bytes()
    features = json.loads((root / "meta/info.json").read_text())["features"]
    ends = [0]
    for group in range(3):
        chunks = [file.metadata.row_group(group).column(c) for c in range(file.metadata.num_columns)]
        ends.append(
            max((c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in chunks)
        )
    for groups in (1, 2, 3):
        cut, out = tmp_path / "cut.parquet", tmp_path / "out.parquet"
        cut.write_bytes(data[: ends[groups] + 40])
        assert mend_footer(cut, out, features=features)
        assert pq.ParquetFile(out).read().equals(file.read_row_groups(range(groups)))
    cut.write_bytes(data[: ends[1] - 1])
    assert not mend_footer(cut, tmp_path / "none.parquet", features=features)


# ----------------------------------------------------------------------------------------------- the command
def run(*words: str) -> subprocess.CompletedProcess:
    code = "from lerobot.scripts.doctor import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)


def test_exit_statuses_and_json(copy, tmp_path):
    done = run(str(copy), "--json=true")
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["is_sound"] and said["episodes"] == 3
    (copy / "data/chunk-000/file-000.parquet").write_bytes(b"")
    done = run(str(copy), "--json=true")
    said = json.loads(done.stdout)
    assert done.returncode == 1 and not said["is_sound"]
    first = said["findings"][0]
    assert set(first) == {"code", "severity", "file", "found", "expected", "remedy", "episodes"}
    assert (first["code"], first["file"]) == ("data.unreadable", "data/chunk-000/file-000.parquet")
    done = run(str(tmp_path / "nowhere"))
    assert done.returncode == 2 and "is no folder" in done.stderr and "Traceback" not in done.stderr


def test_the_repaired_copy_is_told(copy, capsys):
    path = copy / "meta/info.json"
    path.write_text(path.read_text().replace('"total_frames": 17', '"total_frames": 18'))
    assert not doctor([str(copy)]).is_sound
    assert f"lerobot-doctor {copy} --repair" in capsys.readouterr().out
    assert doctor([str(copy), "--repair"]).is_sound
    said = capsys.readouterr().out
    assert f"{copy} is as it was; the sound copy is {copy}_repaired" in said
    with pytest.raises(DatasetError, match="exists already. Give another folder: --output_dir"):
        doctor([str(copy), "--repair"])
    assert doctor([str(copy), "--repair", f"--output_dir={copy}_again"]).is_sound


def test_a_sound_dataset_is_not_repaired(root):
    outcome = repair(root)
    assert outcome.output is None and "nothing to repair" in outcome.lines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give one dataset"),
        (["--output_dir=x", "--repo_id=a/b"], "give --repair too"),
        (["{root}", "--decode=some"], "expected one of none, sample, all"),
        (["{root}", "--episodes=[99]"], "episode 99 does not exist; there are 3"),
    ],
)
def test_mistakes_are_named(root, words, message):
    with pytest.raises(Exception, match=message):
        doctor([word.format(root=root) for word in words])


def test_names_are_looked_for_in_the_local_home(root, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(root.parent))
    (root.parent / "me").mkdir(exist_ok=True)
    (root.parent / "me/made").symlink_to(root)
    assert doctor(["me/made"]).is_sound
    with pytest.raises(DatasetError, match="was not found"):
        doctor(["me/other"])


def test_some_episodes_and_a_quick_look(copy):
    change(copy / "data/chunk-000/file-000.parquet", "frame_index", lambda values: [0] * len(values))
    assert "data.frame_index" not in examine(copy, quick=True).codes
    assert "data.frame_index" in examine(copy, episodes=[1]).codes
    with pytest.raises(DatasetError, match="holds no meta/info.json"):
        examine(copy / f"videos/{TOP}")


def test_progress_is_told(root):
    told = []
    examine(root, on_progress=lambda *one: told.append(one))
    assert ("data files", 1, 1) in told and ("videos", 2, 2) in told


def test_the_page_lists_every_code():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    listed = dict(re.findall(r"^\| `([\w.]+)` \| (\w+) \|", page, flags=re.MULTILINE))
    assert listed == {code: str(one.severity) for code, one in CODES.items()}
