"""A small dataset (three episodes, one 32x32 camera) and the flags of an ACT that trains on it in seconds."""

import numpy as np
import pytest

from lerobot.datasets import LeRobotDataset

FPS, LENGTH = 10, 12
TINY_ACT = [
    "--policy.type=act",
    "--policy.device=cpu",
    "--policy.vision_backbone=resnet10",
    "--policy.pretrained_backbone_weights=null",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=16",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.latent_dim=4",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=2",
    "--policy.optimizer_lr=1e-3",
]


def features(*, camera: bool = True, action: bool = True, size: int = 32) -> dict:
    joints = {"dtype": "float32", "shape": [3], "names": ["pan.pos", "lift.pos", "gripper.pos"]}
    table = {"observation.state": joints}
    if action:
        table["action"] = dict(joints)
    if camera:
        names = ["height", "width", "channels"]
        table["observation.images.top"] = {"dtype": "video", "shape": [size, size, 3], "names": names}
    return table


def make_dataset(root, *, episodes: int = 3, length: int = LENGTH, scale: float = 1.0, **how):
    table = features(**how)
    dataset = LeRobotDataset.create("local/small", FPS, table, root=root)
    noise = np.random.default_rng(0)
    for episode in range(episodes):
        for t in range(length):
            state = scale * np.array([np.sin(t / 3 + episode), t / length, episode], np.float32)
            frame = {"observation.state": state, "task": "pick: the 'red' cube # yes"}
            if "action" in table:
                frame["action"] = state * 2
            if "observation.images.top" in table:
                shape = table["observation.images.top"]["shape"]
                frame["observation.images.top"] = noise.integers(0, 255, shape, dtype=np.uint8)
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="session")
def tiny_act():
    return TINY_ACT


@pytest.fixture
def flags(small_dataset):
    """Flags of a run of 6 steps; `flags(folder, "--steps=8")` adds to them."""

    def make(output_dir, *more: str) -> list[str]:
        words = [
            "--dataset.repo_id=local/small",
            f"--dataset.root={small_dataset}",
            f"--output_dir={output_dir}",
        ]
        words += [
            *TINY_ACT,
            "--steps=6",
            "--batch_size=4",
            "--num_workers=1",
            "--log_freq=2",
            "--save_freq=3",
        ]
        return [*words, *more]

    return make
