"""Where the random numbers of transforms come from: torch's global stream, or a key per sample.

    TorchDraws  one picture;  the numbers LeRobot and torchvision draw from torch's generator, in that order
    KeyedDraws  B samples;    number n of a sample is a hash of (its key, n), so that a sample's numbers never
                              depend on its neighbours in the batch, on threads, processes or devices

The hash is SplitMix64 (Steele, Lea, Flood 2014) and, for noise per pixel, the 32-bit finaliser of
MurmurHash3 (Appleby, public domain) followed by Box and Muller's transform.
"""

import math
import zlib
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws(Protocol):
    """Random numbers for B samples; every answer has B first and lies on the CPU, noise excepted."""

    def at(self, position: int) -> None:
        """What is drawn next is number `position` of each sample, however many it has drawn so far."""

    def uniform(self, low: float, high: float, *, count: int = 1) -> Tensor:
        """Numbers (B, count) from `low` to `high`."""

    def unit(self, *shape: int) -> Tensor:
        """Numbers (B, *shape) in [0, 1)."""

    def integers(self, low: int, high: Tensor | int) -> Tensor:
        """Whole numbers (B,) from `low` up to, not including, `high`."""

    def order(self, count: int) -> Tensor:
        """The numbers 0 to count - 1 in random order (B, count)."""

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Normal noise (B, *shape) with mean 0 and standard deviation 1, on the pictures' device."""


class TorchDraws:
    """Numbers for one sample from torch's global generator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def at(self, position: int) -> None:
        """One sample draws what it needs, in order."""

    def uniform(self, low: float, high: float, *, count: int = 1) -> Tensor:
        """Numbers (1, count) from `low` to `high`."""
        return torch.empty(count).uniform_(low, high)[None]

    def unit(self, *shape: int) -> Tensor:
        """Numbers (1, *shape) in [0, 1)."""
        return torch.rand(*shape)[None]

    def integers(self, low: int, high: Tensor | int) -> Tensor:
        """Whole numbers (1,) from `low` up to, not including, `high`."""
        return torch.randint(low, int(high), (1,))

    def order(self, count: int) -> Tensor:
        """The numbers 0 to count - 1 in random order (1, count)."""
        return torch.randperm(count)[None]

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Normal noise (1, *shape) of a generator of its own, seeded by one number of the global one."""
        seed = int(torch.randint(0, 2**63 - 1, ()))
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator)[None].to(self.device)


class KeyedDraws:
    """Numbers for B samples, each following from the sample's key and the number's position alone.

    Args:
        keys: (B,) uint64 of `sample_keys`.
        device: where noise per pixel is wanted.
    """

    def __init__(self, keys: np.ndarray, device: torch.device) -> None:
        self.keys, self.device, self.position = keys, device, 0

    def at(self, position: int) -> None:
        """What is drawn next is number `position` of each sample."""
        self.position = position

    def uniform(self, low: float, high: float, *, count: int = 1) -> Tensor:
        """Numbers (B, count) from `low` to `high`."""
        return (low + (high - low) * self._fractions(count)).float()

    def unit(self, *shape: int) -> Tensor:
        """Numbers (B, *shape) in [0, 1)."""
        return self._fractions(math.prod(shape)).float().reshape(-1, *shape)

    def integers(self, low: int, high: Tensor | int) -> Tensor:
        """Whole numbers (B,) from `low` up to, not including, `high`."""
        return low + (self._fractions(1)[:, 0] * (high - low)).long()

    def order(self, count: int) -> Tensor:
        """The numbers 0 to count - 1 in random order (B, count)."""
        return self._fractions(count).argsort(dim=1)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Normal noise (B, *shape), computed on the pictures' device."""
        size = math.prod(shape)
        seeds = (self._words(1)[:, 0] >> np.uint64(32)).astype(np.uint32).view(np.int32)  # (B,)
        places = torch.arange(1, (size + 1) // 2 + 1, dtype=torch.int32, device=self.device)
        pairs = normal_pairs(torch.from_numpy(seeds).to(self.device)[:, None] ^ _murmur(places))
        return pairs.flatten(1)[:, :size].reshape(-1, *shape)

    def _fractions(self, count: int) -> Tensor:
        """Numbers (B, count) in [0, 1), with 24 bits so that they stay below 1 as float32."""
        return torch.from_numpy((self._words(count) >> np.uint64(40)).astype(np.float64) * 2.0**-24)

    def _words(self, count: int) -> np.ndarray:
        """Random words (B, count) uint64 of the next position."""
        self.position += 1
        streams = mix(self.keys ^ mix(np.uint64(self.position)))  # (B,)
        with np.errstate(over="ignore"):
            return mix(streams[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)


def sample_keys(*, seed: int, epoch: int, camera: str, index: np.ndarray) -> np.ndarray:
    """One key (B,) uint64 per sample, from the numbers (B,) of their frames and what else sets them apart."""
    key = mix(np.uint64(seed % 2**64) + np.uint64(1))
    for part in (np.uint64(epoch), np.uint64(zlib.crc32(camera.encode()))):
        key = mix(key ^ mix(part))
    return mix(key ^ mix(index.astype(np.int64).view(np.uint64)))


def with_place(keys: np.ndarray, place: int) -> np.ndarray:
    """Keys (B,) of one of several independent streams of the same samples."""
    return mix(keys ^ mix(np.uint64(place + 2**32)))


def mix(words: np.ndarray | np.uint64) -> np.ndarray:
    """SplitMix64's next number after each of these states (uint64)."""
    with np.errstate(over="ignore"):
        words = words + GOLDEN
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(words ^ (words >> np.uint64(31)))


def normal_pairs(words: Tensor) -> Tensor:
    """Normal numbers (B, 2, N) from words (B, N) int32: 16 bits of each make the radius, 16 the angle."""
    words = _murmur(words)
    radius = ((words >> 16) & 0xFFFF).float().add_(1).mul_(2.0**-16).log_().mul_(-2).sqrt_()  # at most 4.7
    angle = (words & 0xFFFF).float().mul_(2 * math.pi * 2.0**-16)
    return torch.stack([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)


def _murmur(words: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser; int32 words stand for unsigned ones and overflow as these do."""
    words = (words ^ ((words >> 16) & 0xFFFF)).mul_(0x85EBCA6B - 2**32)
    words.bitwise_xor_((words >> 13) & 0x7FFFF).mul_(0xC2B2AE35 - 2**32)
    return words.bitwise_xor_((words >> 16) & 0xFFFF)
