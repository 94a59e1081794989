"""Transforms of one picture at a time, chosen by weight: what `image_transforms=` of a dataset takes.

These draw from torch's global generator, in the order LeRobot and torchvision do; training itself uses
`batch.py`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lerobot.datasets.transforms import color, filters, geometry, patches
from lerobot.datasets.transforms.config import ImageTransformConfig, ImageTransformsConfig
from lerobot.datasets.transforms.transform import Identity, ImageTransform

Transform = Callable[[Tensor], Tensor]


class Compose:
    """Callables one after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Tensor) -> Tensor:
        """The picture ([T,] C, H, W) after all of them."""
        for transform in self.transforms:
            image = transform(image)
        return image


class RandomSubsetApply:
    """`n_subset` of the given callables, chosen without replacement by their weights `p`.

    Args:
        p: weights, all equal when None.
        n_subset: how many are chosen; all when None.
        random_order: apply them as drawn instead of as listed.

    Raises:
        ValueError: as many weights as transforms are needed, and 1 to all transforms can be chosen.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        p: Sequence[float] | None = None,
        n_subset: int | None = None,
        random_order: bool = False,
    ) -> None:
        self.transforms = list(transforms)
        self.p = [1.0] * len(self.transforms) if p is None else [float(weight) for weight in p]
        self.n_subset = len(self.transforms) if n_subset is None else n_subset
        self.random_order = random_order
        if len(self.p) != len(self.transforms):
            raise ValueError(f"p has {len(self.p)} weights for {len(self.transforms)} transforms.")
        if not 1 <= self.n_subset <= len(self.transforms):
            raise ValueError(f"n_subset={n_subset}: expected 1 to {len(self.transforms)}.")

    def __call__(self, image: Tensor) -> Tensor:
        """The picture ([T,] C, H, W) after the chosen ones."""
        chosen = torch.multinomial(torch.tensor(self.p), self.n_subset)
        if not self.random_order:
            chosen = chosen.sort().values
        return Compose([self.transforms[i] for i in chosen.tolist()])(image)


class ImageTransforms:
    """What a config asks for, as one callable on pictures ([T,] C, H, W).

    Raises:
        ValueError: the config is enabled and an entry is wrong.
    """

    def __init__(self, cfg: ImageTransformsConfig) -> None:
        self.transforms: dict[str, ImageTransform] = {}
        self.tf: Transform = Identity()
        if cfg.enable:
            cfg.check()
            entries = cfg.chosen_from()
            self.transforms = {name: make_transform_from_config(entry) for name, entry in entries.items()}
            self.tf = RandomSubsetApply(
                list(self.transforms.values()),
                p=[entry.weight for entry in entries.values()],
                n_subset=min(cfg.max_num_transforms, len(entries)),
                random_order=cfg.random_order,
            )

    def __call__(self, image: Tensor) -> Tensor:
        """The picture after the chosen transforms."""
        return self.tf(image)


def make_transform_from_config(cfg: ImageTransformConfig) -> ImageTransform:
    """The transform of one entry.

    Raises:
        ValueError: an unknown type or argument, or a value out of range.
    """
    cfg.check()
    homes = (color, filters, geometry, patches)
    found = next((getattr(home, cfg.type) for home in homes if hasattr(home, cfg.type)), Identity)
    return found(**cfg.kwargs)
