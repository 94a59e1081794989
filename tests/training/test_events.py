"""TensorBoard's own reader reads our event files; a resumed run takes back what came after its checkpoint."""

import errno
import logging

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lerobot.training.logs.events import FOLDER, EventFile
from lerobot.training.logs.tracking import Tracker


def read(run) -> EventAccumulator:
    found = EventAccumulator(str(run / FOLDER))
    found.Reload()
    return found


def points(run, name) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in read(run).Scalars(name)]


def test_tensorboard_reads_every_number_by_its_name(tmp_path):
    file = EventFile(tmp_path)
    file.write({"step": 1, "loss": 0.5, "lr": 3, "eval/loss": 0.25, "note": "words are left out"})
    file.write({"step": 300, "loss": -1e300, "eval/success_rate": 1.0})
    file.close()
    assert set(read(tmp_path).Tags()["scalars"]) == {
        "train/loss",
        "train/lr",
        "eval/loss",
        "eval/success_rate",
    }
    assert points(tmp_path, "train/loss") == [(1, 0.5), (300, float("-inf"))]
    assert points(tmp_path, "eval/loss") == [(1, 0.25)] and points(tmp_path, "train/lr") == [(1, 3.0)]


def test_rows_are_on_disk_at_once(tmp_path):
    file = EventFile(tmp_path)
    file.write({"step": 1, "loss": 0.5})
    assert points(tmp_path, "train/loss") == [(1, 0.5)]  # not closed: as after a kill
    file.close()


def test_a_resumed_run_takes_back_later_points(tmp_path):
    first = EventFile(tmp_path)
    for step in range(1, 10):
        first.write({"step": step, "loss": float(step)})
    first.close()
    second = EventFile(tmp_path, resume_step=6)
    second.write({"step": 7, "loss": 70.0})
    second.close()
    assert points(tmp_path, "train/loss") == [*((s, float(s)) for s in range(1, 7)), (7, 70.0)]


class FullDisk:
    """A file that refuses rows while the disk is full."""

    def __init__(self):
        self.is_full, self.rows = True, []

    def write(self, row):
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.rows.append(row)

    def close(self):
        self.write({"step": 0})


def test_a_full_disk_is_said_once_and_stops_nothing(caplog):
    tracker, file = object.__new__(Tracker), FullDisk()
    tracker.files, tracker.boards, tracker.has_warned = [file], [], False
    with caplog.at_level(logging.WARNING):
        tracker.write({"step": 1})
        tracker.write({"step": 2})
    (record,) = caplog.records
    assert "cannot be written now: No space left on device" in record.message
    file.is_full = False
    tracker.write({"step": 3})
    tracker.close()
    assert file.rows == [{"step": 3}, {"step": 0}]


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**40])
def test_whole_numbers_as_protobuf_writes_them(tmp_path, number):
    file = EventFile(tmp_path)
    file.write({"step": number, "loss": 1.0})
    file.close()
    assert points(tmp_path, "train/loss") == [(number, 1.0)]
