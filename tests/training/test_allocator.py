"""Freed memory is kept where glibc gives it back; what is kept is used again."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from lerobot.training.allocator import keep_freed_memory

ON_GLIBC = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
# The first pass touches every page, kept or not; faults of the later ones show who gave them back.
COUNT = """
import resource, sys, torch
from lerobot.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory(torch.device("cpu"))
counts = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(10_000_000) for _ in range(3)]
    del blocks
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(counts[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not ON_GLIBC, reason="needs glibc")
def test_no_page_is_asked_for_twice():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)
        for how in ("keep", "return")
    }
    pages = 3 * 40_000_000 / resource.getpagesize()
    assert faults["keep"] < 0.01 * pages < faults["return"]


def test_elsewhere_nothing_happens(monkeypatch):
    assert not keep_freed_memory(torch.device("cuda"))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not keep_freed_memory(torch.device("cpu"))
    monkeypatch.undo()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory(torch.device("cpu"))
