import numpy as np
import pytest
import torch

from lerobot.control.collect import OUTCOME_FEATURES
from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.datasets import LeRobotDataset
from lerobot.rl.buffer import Buffer
from tests.fakes.walk import ACTION, IMAGE, STATE, WalkConfig

FPS = 5
FEATURES = WalkConfig().dataset_features() | OUTCOME_FEATURES
DELTAS = {STATE: [-1, 0, 1, 2], IMAGE: [0, 1], ACTION: [0, 1, 2], keys.REWARD: [0, 1]}


def episode(length: int, number: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(number)
    return {
        STATE: torch.rand(length, 2, generator=random),
        IMAGE: torch.randint(0, 256, (length, 3, 9, 13), generator=random, dtype=torch.uint8),
        ACTION: torch.rand(length, 1, generator=random),
        keys.REWARD: torch.rand(length, 1, generator=random),
        keys.DONE: torch.arange(1, length + 1)[:, None] == length,
        keys.SUCCESS: torch.zeros(length, 1, dtype=torch.bool),
    }


def make_buffer(*lengths: int, capacity: int = 100) -> Buffer:
    buffer = Buffer(FEATURES, DELTAS, capacity=capacity, fps=FPS, task="walk home")
    for number, length in enumerate(lengths):
        buffer.add(episode(length, number))
    return buffer


def test_it_yields_what_a_dataset_of_the_same_episodes_yields(tmp_path):
    table = FEATURES | {IMAGE: {**FEATURES[IMAGE], "dtype": "image"}}
    dataset = LeRobotDataset.create("local/walks", FPS, table, root=tmp_path / "walks")
    lengths = (4, 7, 3)
    for number, length in enumerate(lengths):
        frames = episode(length, number)
        for i in range(length):
            frame = {name: values[i].numpy() for name, values in frames.items()}
            dataset.add_frame({**frame, keys.TASK: "walk home"})
        dataset.save_episode()
    dataset.finalize()
    seconds = {name: [offset / FPS for offset in offsets] for name, offsets in DELTAS.items()}
    read = LeRobotDataset(
        "local/walks", root=tmp_path / "walks", delta_timestamps=seconds, return_uint8=True
    ).batch(list(range(14)))
    mine = make_buffer(*lengths).batch(list(range(14)))
    assert mine.keys() == read.keys() and mine[keys.TASK] == read[keys.TASK]
    for name, value in read.items():
        if name != keys.TASK:
            assert mine[name].dtype == value.dtype, name
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-6, msg=name)


def test_the_oldest_episodes_leave():
    buffer = make_buffer(4, 7, 3, 5, capacity=12)
    assert (buffer.first_episode, buffer.num_episodes, buffer.num_frames, buffer.num_added) == (2, 2, 8, 19)
    batch = buffer.batch([11, 13, 14, 18])
    assert batch[keys.EPISODE_INDEX].tolist() == [2, 2, 3, 3]
    assert batch[keys.FRAME_INDEX].tolist() == [0, 2, 0, 4]
    torch.testing.assert_close(batch[STATE][1, 1], episode(3, 2)[STATE][2])
    torch.testing.assert_close(batch[IMAGE][2], episode(5, 3)[IMAGE][:2])
    assert batch[STATE + keys.PAD_SUFFIX].tolist()[1] == [False, False, True, True]
    for gone in (10, 19):
        with pytest.raises(IndexError, match="11 to 18 are here"):
            buffer.batch([gone])


def test_every_frame_that_is_here_is_drawn_and_no_other():
    buffer = make_buffer(4, 7, 3, 5, capacity=12)
    drawn = buffer.draw(1000, np.random.default_rng(0))
    assert set(drawn.tolist()) == set(range(11, 19))


def test_an_episode_that_is_longer_than_all_there_is_room_for():
    with pytest.raises(ConfigError, match="--online.buffer_capacity=1300"):
        make_buffer(13, capacity=12)


def test_a_made_up_item_has_the_shapes_of_a_real_one():
    empty, full = make_buffer(), make_buffer(4)
    shapes = [{n: v.shape for n, v in b.blank().items() if n != keys.TASK} for b in (empty, full)]
    assert shapes[0] == shapes[1] and empty.num_frames == 0
