"""Batches on their way to the device: the same numbers, also where the next one is copied meanwhile."""

import pytest
import torch

from lerobot.training.transfer import feed, to_device


def batches(count=6):
    """Pictures, numbers and texts; the last batch of an epoch is shorter."""
    for k in range(count):
        size = 4 if k % 3 < 2 else 3
        generator = torch.Generator().manual_seed(k)
        yield {
            "picture": torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator),
            "state": torch.rand(size, 5, generator=generator),
            "is_pad": torch.rand(size, 2, generator=generator) < 0.5,
            "nothing": torch.empty(size, 0),
            "task": [f"{k}.{i}" for i in range(size)],
        }


def compare(device):
    fed = list(feed(batches(), device))
    assert len(fed) == 6
    for got, want in zip(fed, (to_device(batch, torch.device("cpu")) for batch in batches()), strict=True):
        assert got.keys() == want.keys() and got["task"] == want["task"]
        for name in ("picture", "state", "is_pad", "nothing"):
            assert got[name].device.type == device.type
            assert torch.equal(got[name].cpu(), want[name])


def test_on_the_cpu_batches_pass_in_order():
    compare(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("pin", [True, False])
def test_two_buffers_serve_all_batches_on_a_gpu(pin):
    """The consumer is slow and keeps every batch: none may be overwritten by a later one."""
    device, kept = torch.device("cuda"), []
    for batch in feed(batches(), device, pin=pin):
        torch.cuda._sleep(10_000_000)
        kept.append({name: batch[name] * 1 for name in ("picture", "state")})
    for got, want in zip(kept, (to_device(batch, torch.device("cpu")) for batch in batches()), strict=True):
        assert all(torch.equal(got[name].cpu(), want[name]) for name in got)
