"""A reader's workplace: datasets, a Hub on the loopback, the file of ImageNet weights, and a shell."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import RGBEncoderConfig
from lerobot.nn.resnet import ResNet
from tests.fakes.hub import FakeHub
from tests.guides.blocks import ROOT, block

USER = "me"
FPS, LENGTH = 10, 12
JOINTS = {"dtype": "float32", "shape": [6], "names": [f"joint_{i}.pos" for i in range(6)]}
# Appended to the flags of a guide: fewer steps, smaller batches, and a smaller ACT.
SHORT = ["--steps=2", "--batch_size=2", "--num_workers=1", "--log_freq=1"]
SMALL = [
    *SHORT,
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=16",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=4",
    "--policy.vision_backbone=resnet10",
    "--policy.pretrained_backbone_weights=null",
]

SMALL_DIFFUSION = [
    *SHORT,
    "--policy.down_dims=[8,16]",
    "--policy.vision_backbone=resnet10",
    "--policy.pretrained_backbone_weights=null",
    "--policy.num_train_timesteps=10",
]


def on_this_machine(text: str) -> str:
    """The text with the device replaced where there is no CUDA; nothing else changes."""
    return text if torch.cuda.is_available() else re.sub(r'(device"?[=:] ?"?)cuda', r"\1cpu", text)


def picture_feature(size: int) -> dict:
    return {"dtype": "video", "shape": [size, size, 3], "names": ["height", "width", "channels"]}


def write_dataset(
    home: Path,
    repo_id: str,
    *,
    camera: str,
    size: int = 32,
    joints: dict = JOINTS,
    has_rewards: bool = False,
) -> None:
    table = {"observation.state": joints, "action": joints, camera: picture_feature(size)}
    if has_rewards:
        table["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
    fast = RGBEncoderConfig(vcodec="h264", preset="ultrafast")
    dataset = LeRobotDataset.create(repo_id, FPS, table, root=home / repo_id, rgb_encoder=fast)
    noise, count = np.random.default_rng(0), joints["shape"][0]
    for episode in range(2):
        for t in range(LENGTH):
            state = np.sin(np.arange(count) + t / 3 + episode).astype(np.float32)
            pixels = noise.integers(0, 255, (size, size, 3), dtype=np.uint8)
            frame = {
                "observation.state": state,
                "action": 2 * state,
                camera: pixels,
                "task": "pick: the cube",
                **({"next.reward": np.ones(1, np.float32)} if has_rewards else {}),
            }
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def write_backbone(folder: Path) -> None:
    """ImageNet's file under its name, with made-up numbers: one per output channel, so that it is small."""
    weights = {}
    for name, value in ResNet("resnet18").state_dict().items():
        per_channel = torch.rand(value.shape[:1]).view(-1, *[1] * (value.ndim - 1)) + 0.5
        fan_in = max(1, value[0].numel()) if value.ndim else 1
        weights[name] = (per_channel / fan_in).expand(value.shape) if value.ndim else value
    folder.mkdir(parents=True)
    torch.save(weights, folder / "resnet18-f37072fd.pth")


class Place:
    """A working folder, and a shell in it where the package and the reader's account are set up."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env

    def at(self, name: str) -> "Place":
        """Another working folder of the same reader."""
        (self.folder.parent / name).mkdir(exist_ok=True)
        return Place(self.folder.parent / name, self.env)

    def type(self, line: str, *more: str) -> str:
        """Run one line of a guide in bash, flags appended; returns what it printed."""
        line = on_this_machine(" ".join([line, *(f"'{word}'" for word in more)]))
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def script(self, name: str, *words: str) -> str:
        """Run a Python block of a guide with command-line arguments; returns what it printed."""
        path = self.folder / f"{name}.py"
        path.write_text(on_this_machine(block(name)), encoding="utf-8")
        return self.type(f"python {path.name}", *words)

    def write(self, file_name: str, name: str) -> Path:
        """Write a configuration block of a guide into a file here."""
        path = self.folder / file_name
        path.write_text(on_this_machine(block(name)), encoding="utf-8")
        return path

    @property
    def home(self) -> Path:
        """Where the reader's datasets are."""
        return Path(self.env["HF_LEROBOT_HOME"])


@pytest.fixture(scope="session")
def guides_hub():
    with FakeHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def place(tmp_path_factory, guides_hub):
    base = tmp_path_factory.mktemp("guides")
    home = base / "home"
    top = "observation.images.top"
    for repo_id in ("me/your_dataset", "me/so101_test", "me/so101_newtask", "me/test_dataset"):
        write_dataset(home, repo_id, camera=top)
    for repo_id in ("user/dataset_name", "user/test_dataset"):
        write_dataset(home, repo_id, camera=top)
    write_dataset(home, "lerobot/aloha_static_coffee", camera="observation.image")
    write_backbone(base / "torch" / "hub" / "checkpoints")
    (base / "work").mkdir()
    (base / "work" / "lerobot").symlink_to(ROOT / "lerobot")  # commands name files of the repository
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_USER": USER,
        "HF_LEROBOT_HOME": str(home),
        "HF_HOME": str(base / "huggingface"),
        "HF_ENDPOINT": guides_hub.url,
        "HF_TOKEN": "hf_made_up",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TORCH_HOME": str(base / "torch"),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "PYTHONIOENCODING": "utf-8",
    }
    yield Place(base / "work", env)
    shutil.rmtree(base)  # full-size checkpoints: two gigabytes
