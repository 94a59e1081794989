"""Say what is installed here, as a Markdown list to paste into a question or a bug report.

lerobot-info
lerobot-info --gpu=true
"""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot import __version__
from lerobot.core import hub
from lerobot.core.command import command
from lerobot.core.flags import parse

CORE = ("torch", "numpy", "pyarrow", "av", "safetensors", "huggingface_hub", "gymnasium")
EXTRAS = {"sim": "mujoco", "pusht": "gym-pusht", "wandb": "wandb", "trackio": "trackio"}
EXTRAS |= {"tune": "optuna", "ray": "ray"}


@dataclass(kw_only=True)
class InfoConfig:
    """Say what is installed here."""

    gpu: bool = False  # also load torch and ask it for its devices, which takes some seconds


def info(args: InfoConfig | Sequence[str] | None = None) -> dict[str, str]:
    """What is installed here, by name, in the order it is shown."""
    cfg = args if isinstance(args, InfoConfig) else parse(InfoConfig, args, program="lerobot-info")
    rows = {
        "lerobot": __version__,
        "Platform": platform.platform(),
        "Python": platform.python_version(),
        **{package: version_of(package) for package in CORE},
        **{f"{package} (extra {extra})": version_of(package) for extra, package in EXTRAS.items()},
        "CPU cores": str(os.cpu_count()),
        "MUJOCO_GL": os.environ.get("MUJOCO_GL", "not set"),
        "Local datasets": str(hub.lerobot_home()),
        "Hub": f"{hub.endpoint()}{' (HF_HUB_OFFLINE is set)' if hub.is_offline() else ''}",
        "Commands": ", ".join(installed_commands()) or "none",
    }
    return rows | (devices() if cfg.gpu else {"Devices": "not asked; type: lerobot-info --gpu=true"})


def version_of(package: str) -> str:
    """The installed version of a distribution, read from its metadata: nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def installed_commands() -> list[str]:
    """Names of our commands that this Python's folder of programs or the PATH has."""
    entries = importlib.metadata.entry_points(group="console_scripts")
    names = sorted({entry.name for entry in entries if entry.name.startswith("lerobot-")})
    beside = Path(sys.executable).parent
    return [name for name in names if (beside / name).exists() or shutil.which(name)]


def devices() -> dict[str, str]:
    """What torch can compute on, the best device first."""
    import torch

    found = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
    found += [torch.xpu.get_device_name(index) for index in range(torch.xpu.device_count())]
    return {"Devices": ", ".join([*found, "cpu"]), "CUDA of torch": str(torch.version.cuda or "none")}


@command
def main() -> None:
    """Entry point of `lerobot-info`."""
    for name, text in info().items():
        print(f"- {name}: {text}")


if __name__ == "__main__":
    main()
