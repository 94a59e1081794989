"""What is kept below the cache home: found again, made again when files change, harmless when damaged."""

import logging
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset, cache, columns, episodes, rows
from tests.fakes import dataset as made

LENGTHS = [6, 4, 7]
FEATURES = {**made.NUMBERS, **made.IMAGE}


@pytest.fixture(autouse=True)
def everything_is_cached(monkeypatch, tmp_path):
    monkeypatch.setattr(columns, "CACHED_FROM_BYTES", 0)
    monkeypatch.setattr(episodes, "CACHED_FROM_BYTES", 0)
    monkeypatch.setattr(cache, "_said", set())
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "caches"))


@pytest.fixture
def root(tmp_path):
    made.make(tmp_path / "made", LENGTHS, FEATURES, data_files_size_in_mb=0.004)
    return tmp_path / "made"


@pytest.fixture
def reads(monkeypatch):
    """Data files that were read."""
    found, read = [], rows.RowSource._read

    def spy(self, path):
        found.append(path.name)
        return read(self, path)

    monkeypatch.setattr(rows.RowSource, "_read", spy)
    return found


def open_(root, **how) -> LeRobotDataset:
    return LeRobotDataset("me/made", root=root, **how)


def entries(kind="columns") -> list[Path]:
    return sorted(hub.cache_home().glob(f"datasets/*/{kind}-*.bin"))


def test_the_second_opening_reads_no_data_file(root, reads):
    made.check(open_(root), LENGTHS)
    assert len(set(reads)) == 3 and len(entries()) == len(entries("episodes")) == 1
    reads.clear()
    made.check(open_(root), LENGTHS)
    assert reads == []


def test_the_columns_of_all_files_serve_some_episodes(root, reads):
    open_(root)
    reads.clear()
    dataset = open_(root, episodes=[2, 0])
    assert [int(item["index"]) for item in dataset] == [*range(6), *range(10, 17)] and reads == []


def test_some_episodes_read_only_their_files(root, reads):
    dataset = open_(root, episodes=[1])
    assert [item["note"] for item in dataset] == [f"episode 1 frame {k}" for k in range(4)]
    assert reads == ["file-001.parquet"]


def test_numbers_are_mapped_and_not_copied(root):
    dataset = open_(root)
    assert dataset.reader.columns.path == entries()[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert again.reader.columns.path == entries()[0]
    assert "numbers" not in dataset.reader.columns.__getstate__()
    made.check(again, LENGTHS)


def test_a_changed_file_is_read_again_and_its_old_entry_goes(root, reads):
    open_(root)
    old = entries()
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    count = table.column_names.index("observation.count")
    pq.write_table(table.set_column(count, "observation.count", pa.array([7, 7, 7, 7])), path)
    reads.clear()
    dataset = open_(root)
    assert [int(dataset[k]["observation.count"]) for k in range(6, 10)] == [7] * 4
    assert len(reads) == 3 and len(entries()) == 1 and entries() != old


def test_a_touched_table_of_episodes_is_read_again(root):
    open_(root)
    old = entries("episodes")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    os.utime(path, ns=(1, 1))
    assert open_(root).meta.episodes["length"] == LENGTHS
    assert len(entries("episodes")) == 1 and entries("episodes") != old


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 255]) + data[101:]


def _spoil_header(data: bytes) -> bytes:
    return data.replace(b'"size"', b'"sise"')


@pytest.mark.parametrize("spoil", [_cut, _flip, _spoil_header, lambda data: b"", lambda data: b"x" * 500])
@pytest.mark.parametrize("kind", ["columns", "episodes"])
def test_a_damaged_entry_is_made_again(root, reads, kind, spoil):
    open_(root)
    (path,) = entries(kind)
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    reads.clear()
    made.check(open_(root), LENGTHS)
    assert entries(kind) == [path] and len(path.read_bytes()) == len(good)
    assert len(reads) == (3 if kind == "columns" else 0)


def test_without_a_writable_home_the_columns_stay_in_memory(root, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            dataset = open_(root)
            made.check(dataset, LENGTHS)
    assert dataset.reader.columns.path is None
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "cannot be written" in said[0] and "HF_DATASETS_CACHE" in said[0]
    made.check(pickle.loads(pickle.dumps(dataset)), LENGTHS)


def test_a_full_disk_leaves_no_remains(root, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    made.check(open_(root), LENGTHS)
    assert "No space left" in caplog.text
    assert [path.name for path in hub.cache_home().glob("datasets/*/*")] == ["origin.txt"]


def test_caches_of_datasets_that_are_gone_are_removed(root, tmp_path):
    made.make(tmp_path / "short", [3], made.NUMBERS)
    open_(tmp_path / "short")
    (folder,) = hub.cache_home().glob("datasets/short-*")
    import shutil

    shutil.rmtree(tmp_path / "short")
    open_(root)
    assert not folder.exists() and len(entries()) == 1


OPEN = """
import sys
from lerobot.datasets import LeRobotDataset, columns, episodes
columns.CACHED_FROM_BYTES = episodes.CACHED_FROM_BYTES = 0
dataset = LeRobotDataset("me/made", root=sys.argv[1])
print(int(dataset.reader.columns.numbers["index"].sum()), dataset.reader.columns.path is not None)
"""


def test_processes_may_open_at_once(root):
    command = [sys.executable, "-c", OPEN, str(root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0].strip() for process in running}
    assert said == {f"{sum(range(17))} True"} and len(entries()) == 1
    assert not list(hub.cache_home().glob("datasets/*/.*"))


def test_threads_may_open_at_once(root):
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda _: open_(root), range(8)))
    assert all(int(dataset[16]["index"]) == 16 for dataset in opened)


def test_a_damaged_episode_does_not_spoil_the_others(root):
    path = root / "data/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    assert len(open_(root, episodes=[0, 2])) == 13
    for _ in range(2):  # from the file, then from the cache
        with pytest.raises(DatasetError, match=r"file-001.parquet holds 3 of the 4 frames .* for episode 1"):
            open_(root)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("index", [7, 6, 8, 9], "in another order than the 4 frames"),
        ("episode_index", [1, 1, 0, 1], r"frame 2 of episode 1 says episode_index 0"),
        ("task_index", [1, 1, 1, 2], r"frame 3 of episode 1 has task_index 2; .* 2 tasks"),
        ("frame_index", [0, 1, 3, 2], r"episode 1, frame_index 3 \(expected 2\)"),
        ("timestamp", [0, 0.1, 0.2, np.nan], r"episode 1, frame_index 3 .* timestamp nan"),
    ],
)
def test_columns_that_lie_are_found_at_opening(root, column, values, words):
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), path)
    with pytest.raises(DatasetError, match=words) as error:
        open_(root)
    assert "lerobot-doctor" in str(error.value)


def test_the_table_of_many_small_files_is_one(root, tmp_path):
    table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
    for row in range(3):
        part = table.slice(row, 1)
        part = part.drop_columns(["tasks"]) if row == 1 else part
        pq.write_table(part, root / f"meta/episodes/chunk-000/file-{row:03d}.parquet")
    for _ in range(2):
        meta = open_(root).meta
        assert meta.episodes["length"] == LENGTHS and meta.episodes[1]["tasks"] is None
        assert (
            meta.episodes[2]["tasks"] == ["pick the cube"]
            and [int(row["length"]) for row in meta.episodes] == LENGTHS
        )
        assert meta.episodes.stats(2)["index"]["min"] == 10 and meta.episodes.sources[2][1] == 0


def test_a_column_of_episodes_is_a_sequence():
    one = episodes.Column(np.array([3, 1, 2]))
    assert one == [3, 1, 2] and one[-1] == 2 and one[:2] == [3, 1] and sum(one) == 6 and 1 in one
    assert isinstance(one[0], int) and np.asarray(one).dtype == np.int64
    one[1] = None
    one.append(5)
    assert one.tolist() == [3, None, 2, 5] and len(one) == 4


def test_numbers_of_items_are_found_without_a_table(root):
    found = open_(root, episodes=[2, 0]).absolute_to_relative_idx
    assert dict(found) == {frame: item for item, frame in enumerate([*range(6), *range(10, 17)])}
    assert len(found) == 13 and 8 not in found and 17 not in found


def test_tasks_choose_episodes(root):
    assert open_(root, tasks=["pick the cube"]).episodes == [0, 2]
    assert open_(root, tasks=list(made.TASKS)).num_frames == 17
    assert open_(root, tasks=["pick the cube"], episodes=[1, 2]).episodes == [2]
    with pytest.raises(DatasetError, match=r"Did you mean 'close the drawer'"):
        open_(root, tasks=["close the drawr"])
    with pytest.raises(DatasetError, match=r"none of the 1 chosen episodes"):
        open_(root, tasks=["pick the cube"], episodes=[1])
