"""Memory that a training step on the CPU gives back is kept for the next step.

glibc returns large blocks to the system as soon as they are free, so that every step asks for the same
activations anew and the system clears them page by page; on a virtual machine that takes a third of the time.
"""

import ctypes
import platform

import torch

# Of glibc's malloc.h; see mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


def keep_freed_memory(device: torch.device) -> bool:
    """Whether the C library was told to keep freed memory: on Linux with glibc, for training on the CPU.

    The process then holds as much as it ever needed at once, until it ends. Elsewhere nothing changes.
    """
    if device.type != "cpu" or platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No mappings of their own for large blocks, no returning of the heap's end: free blocks are used again.
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
