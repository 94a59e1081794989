"""Several datasets as one: the same items under common names, differences listed, shares kept exactly."""

import numpy as np
import pytest
import torch

from lerobot.core.errors import DatasetError, FeatureMismatchError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.mixture import DatasetMixture, MixtureMetadata
from lerobot.datasets.sampler import MixtureSampler, shares
from tests.fakes import dataset as made

TOP, WRIST = "observation.images.top", "observation.images.wrist"
CAMERA = "observation.images.camera"


def renamed(features, names):
    return {names.get(name, name): one for name, one in features.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """One dataset with the camera `top`, one that calls it `camera` and has another camera besides."""
    base = tmp_path_factory.mktemp("two")
    made.make(base / "a", [3, 4])
    other = renamed({**made.NUMBERS, **made.VIDEO, **made.IMAGE}, {TOP: CAMERA})
    dataset = LeRobotDataset.create("me/b", 10, other, root=base / "b", rgb_encoder=made.FAST)
    for k in range(5):
        frame = made.frame({**made.NUMBERS, **made.VIDEO, **made.IMAGE}, 7, k)
        dataset.add_frame({{TOP: CAMERA}.get(name, name): value for name, value in frame.items()})
    dataset.save_episode()
    dataset.finalize()
    return base


NAMES = [{}, {CAMERA: TOP, WRIST: None}]


def opened(base, names=NAMES, **how):
    parts = [LeRobotDataset(f"me/{n}", root=base / n, **how) for n in ("a", "b")]
    return DatasetMixture(MixtureMetadata(parts=[part.meta for part in parts], names=names), parts)


def test_items_are_those_of_the_parts_under_common_names(two):
    mixture = opened(two, return_uint8=True)
    assert len(mixture) == mixture.num_frames == 12 and mixture.num_episodes == 3
    batch = mixture.batch([11, 0, 7, 3])
    assert batch["dataset_index"].tolist() == [1, 0, 1, 0]
    assert batch["index"].tolist() == [11, 0, 7, 3]
    assert batch["episode_index"].tolist() == [2, 0, 2, 1]
    assert batch["task"] == [made.TASKS[1], made.TASKS[0], made.TASKS[1], made.TASKS[1]]
    for row, item in enumerate([11, 0, 7, 3]):
        part, own = (mixture.parts[1], item - 7) if item >= 7 else (mixture.parts[0], item)
        want = part.batch([own])
        assert torch.equal(batch[TOP][row], want[CAMERA if item >= 7 else TOP][0])
        assert torch.equal(batch["action"][row], want["action"][0])
        assert batch["note"][row] == want["note"][0]
    assert WRIST not in batch and CAMERA not in batch


def test_windows_keep_their_flags(two):
    parts = [
        LeRobotDataset("me/a", root=two / "a", delta_timestamps={TOP: [-0.1, 0.0], "action": [0.0, 0.1]}),
        LeRobotDataset("me/b", root=two / "b", delta_timestamps={CAMERA: [-0.1, 0.0], "action": [0.0, 0.1]}),
    ]
    mixture = DatasetMixture(MixtureMetadata(parts=[p.meta for p in parts], names=NAMES), parts)
    batch = mixture.batch([7, 6])
    assert batch[TOP].shape == (2, 2, 3, made.HEIGHT, made.WIDTH)
    assert batch[f"{TOP}_is_pad"].tolist() == [[True, False], [False, False]]
    assert batch["action_is_pad"].tolist() == [[False, False], [False, True]]


def test_all_differences_are_listed(two):
    with pytest.raises(FeatureMismatchError) as error:
        opened(two, names=[{}, {}])
    text = str(error.value)
    assert all(name in text for name in (TOP, CAMERA, WRIST, "feature_map", "me/a", "me/b"))


def test_shapes_and_joint_names_are_compared(two, tmp_path):
    table = {**made.NUMBERS, **made.VIDEO}
    table["action"] = {**table["action"], "names": ["x", "y", "z"]}
    other = LeRobotDataset.create("me/c", 10, table, root=tmp_path / "c")
    a = LeRobotDataset("me/a", root=two / "a")
    with pytest.raises(FeatureMismatchError, match=r"action: .*a\.pos.*'x'"):
        MixtureMetadata(parts=[a.meta, other.meta], names=[{}, {}])


def test_rates_must_agree(two, tmp_path):
    other = LeRobotDataset.create("me/c", 20, {**made.NUMBERS, **made.VIDEO}, root=tmp_path / "c")
    a = LeRobotDataset("me/a", root=two / "a")
    with pytest.raises(DatasetError, match="10.*20 fps"):
        MixtureMetadata(parts=[a.meta, other.meta], names=[{}, {}])


@pytest.mark.parametrize(
    ("names", "said"),
    [({"observation.imges.top": TOP}, "observation.images"), ({WRIST: CAMERA}, "two features")],
)
def test_a_map_that_does_not_fit_is_refused(two, names, said):
    with pytest.raises(DatasetError, match=said):
        opened(two, names=[{}, names])


def test_merged_statistics_are_those_of_all_frames(two):
    stats = opened(two).meta.stats
    every = np.concatenate(
        [
            made.frame(made.NUMBERS, e, k)["action"][None]
            for e, n in ((0, 3), (1, 4), (7, 5))
            for k in range(n)
        ]
    )
    assert np.allclose(stats["action"]["mean"], every.mean(0)) and np.allclose(
        stats["action"]["std"], every.std(0)
    )
    assert stats["action"]["count"].tolist() == [12] and TOP in stats and CAMERA not in stats


# ------------------------------------------------------------------------------------------------ the order
FRAMES = [torch.arange(10), torch.arange(10, 40)]


def test_shares_are_exact():
    assert shares([1, 1, 1], 10) == [4, 3, 3] and shares([0.2, 0.8], 40) == [8, 32]
    assert sum(shares([0.3, 0.3, 0.4], 1001)) == 1001


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1], [10, 30]])
def test_every_epoch_has_the_shares_and_every_frame_its_turn(weights):
    sampler = MixtureSampler(FRAMES, weights, seed=3)
    epochs = [list(sampler) for _ in range(6)]
    expected = shares(weights, 40)
    for epoch in epochs:
        assert [sum(f < 10 for f in epoch), sum(f >= 10 for f in epoch)] == expected
    seen = np.bincount(sum(epochs, []), minlength=40)
    for part in FRAMES:
        counts = seen[part.numpy()]
        assert counts.max() - counts.min() <= 1
    assert epochs[0] != epochs[1]


def test_the_order_is_entered_anywhere():
    whole, later = MixtureSampler(FRAMES, [1, 2], seed=3), MixtureSampler(FRAMES, [1, 2], seed=3)
    epochs = [list(whole) for _ in range(3)]
    later.load_state_dict({"epoch": 1, "start_index": 7})
    assert list(later) == epochs[1][7:] and list(later) == epochs[2]
    assert list(MixtureSampler(FRAMES, [1, 2], seed=4)) != epochs[0]
