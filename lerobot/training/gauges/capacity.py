"""How much memory a device has, how much of it is free, and how much this process uses; all in bytes.

For a CPU that is the machine's memory, within the limits that a container or a shell sets; None is not known.
"""

import os
import re
import sys
from pathlib import Path

import torch

MIB, GIB = 1024**2, 1024**3
# What torch and the C library say; none of it has a class of its own on a CPU.
SAYINGS = (
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "out of memory",
)
# What oneDNN and Python say then, but not only then: believed where the machine is nearly full.
MUTTERINGS = ("could not create a", "could not execute a", "can't start new thread")
SCARCE = 256 * MIB
CGROUPS = (
    # limit, in use, and the file that says how much of it is only cached
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def peak_bytes(device: torch.device) -> int | None:
    """The most that was used at once so far: tensors on CUDA and MPS, the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    own = re.search(r"VmHWM:\s+(\d+) kB", _read(Path("/proc/self/status")) or "")
    if own:  # where there is such a file, `resource` counts the program as well that started this one
        return int(own[1]) * 1024
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def used_bytes(device: torch.device) -> int | None:
    """What is used now: tensors on CUDA and MPS, the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    statm = _read(Path("/proc/self/statm"))
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm else peak_bytes(device)


def free_bytes(device: torch.device) -> int | None:
    """What this process may still take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    limits = [_free_ram(), *map(_free_in_group, CGROUPS), _free_addresses()]
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def total_bytes(device: torch.device) -> int | None:
    """What the device has in all; for a CPU, what is used and free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    free, used = free_bytes(device), used_bytes(device)
    return None if free is None or used is None else free + used


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that no memory is left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    if not isinstance(error, (RuntimeError, OSError)):
        return False
    if any(words in said for words in SAYINGS):
        return True
    free = free_bytes(torch.device("cpu"))
    return free is not None and free < SCARCE and any(words in said for words in MUTTERINGS)


def _free_ram() -> int | None:
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # macOS: half is what others usually leave
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _free_in_group(names: tuple[str, str, str, str]) -> int | None:
    """What the limit of a container leaves; file pages that it can drop count as free."""
    limit, used, stat, key = names
    most, now = (_read(Path("/sys/fs/cgroup") / name) for name in (limit, used))
    if not most or not now or not most.strip().isdigit():  # "max": no limit
        return None
    rows = (line.split() for line in (_read(Path("/sys/fs/cgroup") / stat) or "").splitlines())
    cached = next((int(row[1]) for row in rows if row[0] == key), 0)
    return int(most) - int(now) + cached


def _free_addresses() -> int | None:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    statm = _read(Path("/proc/self/statm"))
    if limit == resource.RLIM_INFINITY or not statm:
        return None
    return limit - int(statm.split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def readable_bytes(size: float) -> str:
    """'12 KiB', '18 MiB', '3.1 GiB'; a GiB is 1024³ bytes, as makers of GPUs count."""
    for unit, name, digits in ((GIB, "GiB", 1), (MIB, "MiB", 0)):
        if size >= unit / 10:
            return f"{size / unit:.{digits if size < 100 * unit else 0}f} {name}"
    return f"{size / 1024:.0f} KiB"
