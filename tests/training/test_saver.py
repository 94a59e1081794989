"""Checkpoints beside the training: what a snapshot holds, who waits for whom, what a failed write does."""

import errno
import logging
import threading
import time

import pytest
import torch
from torch import nn

from lerobot.core.errors import TrainingError
from lerobot.training.checkpoints import snapshot as snapshot_room
from lerobot.training.checkpoints.saver import Saver
from lerobot.training.checkpoints.snapshot import HostBuffers, is_finite

CPU = torch.device("cpu")
BIG = 10_000  # numbers; small tensors are copied at once


@pytest.fixture
def buffers():
    return HostBuffers(CPU)


@pytest.fixture
def saver():
    return Saver(CPU)


def started(saver, write=lambda: None, tensors=None):
    snapshot = saver.take(tensors or {}, steady=tensors or {})
    saver.start(write, snapshot)
    return snapshot


# ---------------------------------------------------------------------------------------- snapshots
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_a_snapshot_is_what_the_tensors_were(buffers, dtype):
    values = (torch.rand(BIG) * 100).to(dtype)
    wanted = values.clone()
    snapshot = buffers.take({"w": values}, steady={"w"})
    snapshot.finish()
    snapshot.hold()
    values.zero_()
    assert torch.equal(snapshot.tensors["w"], wanted) and snapshot.tensors["w"].dtype == dtype


def test_tensors_in_other_layouts_are_copied_as_they_are(buffers):
    image = torch.rand(8, 16, 16, 16).contiguous(memory_format=torch.channels_last)
    turned = torch.rand(100, 120).T
    snapshot = buffers.take({"image": image, "turned": turned}, steady={"image", "turned"})
    snapshot.finish()
    assert torch.equal(snapshot.tensors["image"], image) and torch.equal(snapshot.tensors["turned"], turned)


def test_the_copy_is_made_later_only_of_what_is_steady(buffers):
    weights, running_mean, count = torch.ones(BIG), torch.ones(BIG), torch.tensor(3.0)
    snapshot = buffers.take(
        {"weights": weights, "running_mean": running_mean, "count": count}, steady={"weights", "count"}
    )
    running_mean += 1  # as a forward pass may do
    count += 1
    snapshot.finish()
    assert [name for name, *_ in snapshot.later] == ["weights"]
    assert all(torch.equal(value, torch.ones_like(value)) for value in
               (snapshot.tensors["weights"], snapshot.tensors["running_mean"]))  # fmt: skip
    assert snapshot.tensors["count"] == 3


def test_a_parameter_that_changes_in_a_forward_pass_is_an_error(buffers):
    weights = torch.ones(BIG)
    snapshot = buffers.take({"weights/codes": weights}, steady={"weights/codes"})
    weights += 1
    with pytest.raises(TrainingError, match="weights/codes .* must be a buffer"):
        snapshot.finish()
    assert snapshot.copied.is_set()  # nobody waits for a copy that was given up


def test_names_of_one_tensor_share_its_copy(buffers):
    tied = torch.rand(BIG)
    snapshot = buffers.take({"a": tied, "b": tied, "c": tied[: BIG // 2]}, steady={"a", "b", "c"})
    snapshot.finish()
    assert snapshot.tensors["a"].data_ptr() == snapshot.tensors["b"].data_ptr() != tied.data_ptr()
    assert torch.equal(snapshot.tensors["c"], tied[: BIG // 2])


def test_the_next_snapshot_uses_the_same_memory(buffers):
    weights = torch.rand(BIG)
    first = buffers.take({"w": weights}, steady={"w"})
    first.finish()
    weights += 1
    second = buffers.take({"w": weights}, steady={"w"})
    second.finish()
    assert first.tensors["w"].data_ptr() == second.tensors["w"].data_ptr()
    assert torch.equal(second.tensors["w"], weights)


def test_without_memory_for_a_copy_the_originals_are_written_and_training_waits(saver, monkeypatch, caplog):
    monkeypatch.setattr(snapshot_room, "available_bytes", lambda: 1000)
    weights, done = torch.rand(BIG), []
    snapshot = started(saver, lambda: done.append(time.sleep(0.05)), {"w": weights})
    assert done and not saver.is_writing
    assert snapshot.tensors["w"].data_ptr() == weights.data_ptr()
    assert "training waits while a checkpoint is written" in caplog.text


def test_nan_is_found_in_every_kind_of_number():
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        values = torch.ones(100, dtype=dtype)
        assert is_finite(values)
        for bad in (float("nan"), float("-inf")):
            values[7] = bad
            assert not is_finite(values)
    assert is_finite(torch.arange(3))


# ---------------------------------------------------------------------------------------- who waits
def test_the_optimizer_waits_for_the_copy_and_not_for_the_files(saver, monkeypatch):
    go, order = threading.Event(), []
    copy = snapshot_room.copy_on_host

    def slow_copy(target, source):
        time.sleep(0.1)
        copy(target, source)
        order.append("copied")

    monkeypatch.setattr(snapshot_room, "copy_on_host", slow_copy)
    snapshot = started(saver, lambda: (go.wait(5), order.append("written")), {"w": torch.ones(BIG)})
    assert order == []  # `start` does not wait
    saver.before_change()
    order.append("changed")
    assert saver.is_writing
    go.set()
    saver.wait()
    assert order == ["copied", "changed", "written"] and bool((snapshot.tensors["w"] == 1).all())


def test_a_second_save_waits_for_the_first_and_says_so_once(saver, caplog):
    running, most = 0, 0

    def write():
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.03)
        running -= 1

    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            started(saver, write)
        saver.wait()
    assert most == 1 and caplog.text.count("still being written") == 1


def test_weights_that_move_on_do_not_reach_the_checkpoint(saver):
    """Training steps while files are written: what is written is the state at the save, every time."""
    torch.manual_seed(0)
    model = nn.Linear(200, 200)
    optimizer = torch.optim.Adam(model.parameters())
    written, wanted = [], []

    def step():
        model(torch.randn(4, 200)).square().sum().backward()
        saver.before_change()
        optimizer.step()
        optimizer.zero_grad()

    step()
    for _ in range(5):
        state = {
            f"{i}/{name}": t for i, own in enumerate(optimizer.state.values()) for name, t in own.items()
        }
        tensors = dict(model.named_parameters()) | state
        wanted.append({name: t.detach().clone() for name, t in tensors.items()})
        snapshot = saver.take(tensors, steady=tensors)

        def write(snapshot=snapshot):
            time.sleep(0.02)
            written.append({name: t.clone() for name, t in snapshot.tensors.items()})

        saver.start(write, snapshot)
        for _ in range(3):
            step()
    saver.wait()
    assert len(written) == 5
    for then, now in zip(wanted, written, strict=True):
        assert then.keys() == now.keys() and all(torch.equal(then[name], now[name]) for name in then)


# ---------------------------------------------------------------------------------------- failures
def failing(error):
    def write():
        raise error

    return write


def test_a_failed_write_ends_the_loop_at_the_next_step(saver):
    started(saver, failing(OSError(errno.ENOSPC, "No space left on device", "/disk/weights")))
    saver.thread.join()
    with pytest.raises(
        TrainingError, match=r"could not be written: No space left on device \(/disk/weights\)"
    ):
        saver.before_change()
    saver.before_change()  # said once


def test_a_failed_write_is_an_error_at_the_end_too(saver):
    with pytest.raises(TrainingError, match=r"Make room there .*--resume=true"), saver:
        started(saver, failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ZeroDivisionError), saver:  # our own mistakes keep their traceback
        started(saver, failing(ZeroDivisionError()))


def test_an_error_of_the_loop_is_not_hidden_by_one_of_the_writer(saver):
    with pytest.raises(KeyError) as caught, saver:
        started(saver, failing(OSError(errno.EIO, "Input/output error")))
        raise KeyError("loop")
    assert "Input/output error" in caught.value.__notes__[0]


def test_an_error_of_the_loop_waits_for_the_files(saver):
    done = []
    with pytest.raises(KeyError), saver:
        started(saver, lambda: (time.sleep(0.05), done.append(1)))
        raise KeyError("loop")
    assert done


def test_a_second_ctrl_c_does_not_wait_for_the_files(saver, monkeypatch):
    monkeypatch.setattr("lerobot.training.checkpoints.saver.PATIENCE_S", 0.05)
    go = threading.Event()
    begun_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt), saver:
        started(saver, lambda: go.wait(5))
        raise KeyboardInterrupt
    assert time.monotonic() - begun_s < 2 and saver.is_writing
    go.set()
    saver.wait()
