"""Decoded pictures that are kept: the same as without, within the budget, never a damaged one."""

import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from tests.fakes import dataset as made

TOP, WRIST, DEPTH = "observation.images.top", "observation.images.wrist", "observation.images.depth"
LENGTHS = [6, 4, 7]
FRAME = 3 * made.HEIGHT * made.WIDTH + 4  # bytes of one picture and its mark


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "caches"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "made"
    made.make(folder, LENGTHS, {**made.NUMBERS, **made.VIDEO, **made.IMAGE, **made.DEPTH})
    return folder


def open_(root, **how) -> LeRobotDataset:
    return LeRobotDataset("me/made", root=root, return_uint8=True, **how)


def files():
    return sorted(hub.cache_home().glob("datasets/*/frames*.bin"))


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in (TOP, WRIST, DEPTH))


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("sizes", [{}, {TOP: (16, 20), WRIST: (40, 60)}])
def test_a_kept_picture_is_the_decoded_one(root, kind, sizes):
    deltas = {TOP: [-0.1, 0.0, 0.3]}
    plain = open_(root, image_sizes=sizes, delta_timestamps=deltas)
    kept = open_(root, image_sizes=sizes, delta_timestamps=deltas, cache=kind)
    for _ in range(2):
        for items in ([3, 3, 16], range(17), [0, 12]):
            assert same(plain.batch(items), kept.batch(items))
    assert plain.batch([0])[TOP].shape[-2:] == sizes.get(TOP, (made.HEIGHT, made.WIDTH))
    before = kept.reader.videos.num_decoded
    kept.reader.caches[TOP].take(np.arange(17), np.empty((17, *kept.reader.caches[TOP].shape), np.uint8))
    kept.batch(range(17))
    assert kept.reader.videos.num_decoded <= before + 17  # depth is decoded each time


def test_a_filled_cache_opens_no_file(root, monkeypatch):
    kept = open_(root, cache="ram")
    wanted = kept.batch(range(17))
    monkeypatch.setattr(kept.reader, "_decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(kept.reader, "_distances", lambda *_: np.zeros((17, 1, 1, 1), np.float32))
    assert torch.equal(kept.batch(range(17))[TOP], wanted[TOP])


def test_resizing_averages(root):
    small = open_(root, image_sizes={TOP: (8, 12)})[5][TOP].float()
    large = open_(root)[5][TOP].float()
    assert (small.mean((1, 2)) - large.mean((1, 2))).abs().max() < 1
    assert open_(root, image_sizes={WRIST: (made.HEIGHT, made.WIDTH)})[5][WRIST].equal(open_(root)[5][WRIST])


def test_what_has_no_room_is_decoded_each_time(root, caplog):
    with caplog.at_level(logging.INFO):
        kept = open_(root, cache="ram", cache_bytes=2 * 4096 + 2 * 5 * FRAME)
    assert "5 of 17 frames of 2 cameras fit" in caplog.text
    plain = open_(root)
    for _ in range(2):
        assert same(plain.batch(range(17)), kept.batch(range(17)))
    assert {name: len(one) for name, one in kept.reader.caches.items()} == {TOP: 5, WRIST: 5}
    assert sum(one._pixels.nbytes + one._marks.nbytes for one in kept.reader.caches.values()) <= 10 * FRAME
    assert open_(root, cache="ram", cache_bytes=10).reader.caches == {}


def test_the_next_run_finds_the_pictures(root, monkeypatch):
    wanted = open_(root, cache="disk").batch(range(17))
    assert len(files()) == 2
    again = open_(root, cache="disk")
    monkeypatch.setattr(again.reader, "_decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(again.reader, "_distances", lambda *_: np.zeros((17, 1, 1, 1), np.float32))
    assert torch.equal(again.batch(range(17))[TOP], wanted[TOP]) and len(files()) == 2


def test_other_pictures_have_other_files(root):
    for how in ({}, {"episodes": [0, 1]}, {"image_sizes": {TOP: (8, 8)}}):
        plain, kept = open_(root, **how), open_(root, cache="disk", **how)
        for _ in range(2):
            assert same(plain.batch(range(10)), kept.batch(range(10)))
    assert len(files()) == 5  # both cameras; both; another size of one


def test_a_changed_video_is_decoded_again(root, tmp_path):
    import shutil

    copy = shutil.copytree(root, tmp_path / "copy")
    open_(copy, cache="disk").batch(range(17))
    other = made.make(tmp_path / "other", LENGTHS, made.VIDEO | made.NUMBERS, robot_type="other")
    path = other.meta.get_video_file_path(0, TOP)
    (other.root / path).replace(copy / path)
    plain, kept = open_(copy), open_(copy, cache="disk")
    assert torch.equal(plain.batch(range(17))[TOP], kept.batch(range(17))[TOP])
    assert len(files()) == 3


def test_damaged_and_unfinished_pictures_are_not_served(root):
    wanted = open_(root, cache="disk").batch(range(17))
    for path in files():
        data = bytearray(path.read_bytes())
        data[4096 + 5 * (FRAME - 4) + 7] ^= 1  # a pixel of item 5
        data[4096 + 9 * (FRAME - 4) :][: FRAME - 4] = bytes(FRAME - 4)
        data[4 * 9 : 4 * 10] = b"\x01\x02\x03\x04"  # item 9 is marked and not written
        path.write_bytes(data)
    kept = open_(root, cache="disk")
    for _ in range(2):
        assert same(kept.batch(range(17)), wanted)
    path = files()[0]
    path.write_bytes(path.read_bytes()[:-50])
    assert same(open_(root, cache="disk").batch(range(17)), wanted)


FILL = """
import sys
from lerobot.datasets import LeRobotDataset
dataset = LeRobotDataset("me/made", root=sys.argv[1], return_uint8=True, cache="disk")
total = sum(int(dataset.batch([k])["observation.images.top"].sum()) for k in (*range(17), *range(17)))
print(total)
"""


def test_several_processes_share_a_file(root):
    command = [sys.executable, "-c", FILL, str(root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {int(process.communicate()[0]) for process in running}
    assert said == {2 * int(open_(root).batch(range(17))[TOP].sum())} and len(files()) == 2
    assert not list(hub.cache_home().glob("datasets/*/.*"))


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_threads_fill_it_together(root, kind):
    plain, kept = open_(root), open_(root, cache=kind)
    wanted = plain.batch(range(17))
    order = np.random.default_rng(0).integers(0, 17, (40, 4))
    with ThreadPoolExecutor(6) as threads:
        for items, batch in zip(order, threads.map(kept.batch, order), strict=True):
            assert all(torch.equal(batch[name], wanted[name][items]) for name in (TOP, WRIST))


def test_a_pickled_dataset_maps_the_same_file(root):
    kept = open_(root, cache="disk")
    wanted = kept.batch(range(17))
    again = pickle.loads(pickle.dumps(kept))
    assert len(again.reader.caches[TOP]) == 17 and same(again.batch(range(17)), wanted)
    assert len(pickle.loads(pickle.dumps(open_(root, cache="ram"))).reader.caches[TOP]) == 0


def test_old_files_make_room(root):
    room = 2 * 4096 + 2 * 17 * FRAME
    open_(root, cache="disk", cache_bytes=room).batch([0])
    old = files()
    open_(root, cache="disk", cache_bytes=room, image_sizes={TOP: (8, 8), WRIST: (8, 8)}).batch([0])
    assert (
        len(files()) >= 2 and sum(path.stat().st_size for path in files()) <= room and set(old) - set(files())
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"cache": "dsk"}, "cache='dsk': expected 'ram', 'disk'"),
        ({"image_sizes": {"observation.images.tip": (8, 8)}}, f"Did you mean '{TOP}'"),
        ({"image_sizes": {DEPTH: (8, 8)}}, "is no colour camera"),
        ({"image_sizes": {TOP: (8,)}}, r"expected \(height, width\)"),
    ],
)
def test_options_that_cannot_be(root, how, words):
    with pytest.raises(DatasetError, match=words):
        open_(root, **how)


def test_a_home_without_room_is_said(root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"cannot be reserved.*smaller cache_bytes, cache='ram'"):
        open_(root, cache="disk")
