"""What a result depends on besides the policy's code: versions, weights, device, what draws the pictures.

checkpoint folder, environment, device -> provenance -> facts of a result -> eval_info.json
"""

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import lerobot
from lerobot.core import keys
from lerobot.envs.base import EnvConfig

PACKAGES = ("torch", "numpy", "gymnasium")
CPU_FILE = Path("/proc/cpuinfo")  # where Linux says what its processor is called
NOT_READ = (keys.TRAIN_CONFIG_FILE,)  # of a checkpoint: says how it was trained, changes nothing


def provenance(checkpoint: Path, *, device: torch.device, env: EnvConfig | None = None) -> dict[str, Any]:
    """All of it, by name."""
    return {
        "device_name": device_name(device),
        "renderer": env.renderer if env is not None else "",
        "versions": versions(env.packages if env is not None else ()),
        "checkpoint_sha256": fingerprints(checkpoint),
    }


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python, of what every policy uses, and of those of these packages that are here."""
    found = {"lerobot": lerobot.__version__, "python": platform.python_version()}
    for name in (*PACKAGES, *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a part of a simulator that this version of it does not have
            continue
    return found


def fingerprints(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint that loading it reads: weights, config, processors."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json") and path.name not in NOT_READ and path.is_file():
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def device_name(device: torch.device) -> str:
    """What the device is sold as, as far as the system says it; '' of a GPU that is on another machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else ""
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    if CPU_FILE.is_file():
        lines = CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(named, platform.machine())
    return platform.processor() or platform.machine()
