"""Random changes of a whole batch on the training device, one random stream per sample.

    images (B, [T,] C, H, W) uint8 or float + frame numbers (B,) + epoch + camera
      -> keys (B,)          a hash of (seed, epoch, camera, frame number)
      -> plan (B, S)        which transforms each sample gets, and in which order
      -> images, float      each transform once (per place in the order) for all samples that get it

What a sample gets follows from these four alone: not from its neighbours in the batch, the number of threads,
processes or devices, nor from how often anything was called before. So there is no state to save.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from lerobot.core.errors import ConfigError
from lerobot.datasets.transforms.apply import make_transform_from_config
from lerobot.datasets.transforms.config import ImageTransformsConfig
from lerobot.datasets.transforms.draws import KeyedDraws, sample_keys, with_place
from lerobot.datasets.transforms.transform import Shape, in_order, to_float

CPU_VALUES = 2**20  # 4 MiB of floats


class BatchTransforms:
    """The transforms of an enabled config, for batches.

    Raises:
        ValueError: an entry of the config is wrong.
    """

    def __init__(self, cfg: ImageTransformsConfig, *, seed: int) -> None:
        cfg.check()
        entries = cfg.chosen_from()
        self.seed = seed
        self.transforms = {name: make_transform_from_config(entry) for name, entry in entries.items()}
        self.weights = np.array([entry.weight for entry in entries.values()])
        self.num_chosen = min(cfg.max_num_transforms, len(entries))
        self.random_order = cfg.random_order

    def __call__(self, images: Tensor, *, index: Tensor, epoch: int, camera: str) -> Tensor:
        """Changed pictures (B, [T,] C, H, W), float32 in 0..1; the T pictures of a window change alike.

        Args:
            images: uint8 in 0..255 or float in 0..1.
            index: number of each sample's frame in its dataset (B,), best on the CPU.
            epoch: passes over the data before this one.
            camera: name of the camera; every camera gets its own changes.

        Raises:
            ConfigError: a transform would change the pictures' size or number of channels.
        """
        keys = sample_keys(seed=self.seed, epoch=epoch, camera=camera, index=index.cpu().numpy())
        plan = self._plan(keys)
        changed = torch.empty(images.shape, device=images.device)
        step = _samples_at_once(images)
        for first in range(0, len(images), step):
            part = slice(first, first + step)
            changed[part] = self._changed(images[part], keys[part], plan[part])
        return changed

    def _changed(self, images: Tensor, keys: np.ndarray, plan: Tensor) -> Tensor:
        """Some of the samples after their transforms."""
        pictures = to_float(images)
        pictures = pictures.clone() if pictures is images else pictures
        frames = pictures[:, None] if pictures.ndim == 4 else pictures  # (B, T, C, H, W)
        changes = {number: partial(self._change, keys, number) for number in range(len(self.transforms))}
        return in_order(frames, plan, changes).reshape(images.shape)

    def _plan(self, keys: np.ndarray) -> Tensor:
        """Numbers of the transforms each sample gets, in order: (B, S); -1 is none.

        Drawing without replacement by weight: the smallest of exponential waiting times (Efraimidis and
        Spirakis 2006), whose order is the order of drawing.
        """
        fractions = KeyedDraws(keys, torch.device("cpu")).unit(len(self.weights))  # (B, N)
        waits = -torch.log1p(-fractions.double()) / torch.from_numpy(self.weights)
        chosen = waits.argsort(dim=1)[:, : self.num_chosen]  # (B, S)
        if self.random_order:
            return chosen
        plan = torch.full((len(keys), len(self.weights)), -1)
        return plan.scatter_(1, chosen, chosen)

    def _change(self, keys: np.ndarray, number: int, part: Tensor, rows: Tensor) -> Tensor:
        """The samples in these rows (N,) of the batch after transform `number`."""
        name, transform = list(self.transforms.items())[number]
        draws = KeyedDraws(with_place(keys[rows.numpy()], number), part.device)
        changed = transform.apply(part, transform.draw(draws, Shape(*part.shape[1:])))
        if changed.shape != part.shape:
            raise ConfigError(
                f"image transform {name!r} ({transform}) makes pictures of {tuple(changed.shape[2:])} from "
                f"{tuple(part.shape[2:])} (channels, height, width). Training needs them unchanged: give "
                f"size={list(part.shape[3:])} (RandomCrop: with padding), num_output_channels=3 (Grayscale)."
            )
        return changed


def _samples_at_once(images: Tensor) -> int:
    """All samples on a GPU; on a CPU so many that what lies between two transforms stays in its cache."""
    if images.device.type != "cpu":
        return len(images)
    return max(1, CPU_VALUES // images[0].numel())
