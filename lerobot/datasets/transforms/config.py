"""Which random changes camera pictures get during training: `dataset.image_transforms` of a training run."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.datasets.transforms.arguments import read_arguments


@dataclass(kw_only=True)
class ImageTransformConfig:
    """One transform and how often it is chosen."""

    weight: float = 1.0  # chance of being chosen, relative to the others; 0 is never
    type: str = "Identity"  # class name, such as ColorJitter
    kwargs: dict[str, Any] = field(default_factory=dict)  # its arguments by name

    def check(self) -> None:
        """Say what is wrong with it, if anything.

        Raises:
            ValueError: a negative weight, an unknown type or argument, a value out of range.
        """
        if not self.weight >= 0:
            raise ValueError(f"weight={self.weight}: expected 0 or more.")
        read_arguments(self.type, (), self.kwargs)


def published_transforms() -> dict[str, ImageTransformConfig]:
    """The set that is used when none is named: light changes of colour and sharpness, a small move."""
    table: dict[str, tuple[str, dict[str, Any]]] = {
        "brightness": ("ColorJitter", {"brightness": [0.8, 1.2]}),
        "contrast": ("ColorJitter", {"contrast": [0.8, 1.2]}),
        "saturation": ("ColorJitter", {"saturation": [0.5, 1.5]}),
        "hue": ("ColorJitter", {"hue": [-0.05, 0.05]}),
        "sharpness": ("SharpnessJitter", {"sharpness": [0.5, 1.5]}),
        "affine": ("RandomAffine", {"degrees": [-5.0, 5.0], "translate": [0.05, 0.05]}),
    }
    return {name: ImageTransformConfig(type=kind, kwargs=kwargs) for name, (kind, kwargs) in table.items()}


@dataclass(kw_only=True)
class ImageTransformsConfig:
    """Random changes of camera pictures during training; checked when they are enabled."""

    enable: bool = False  # apply them
    max_num_transforms: int = 3  # so many of them per picture, chosen by weight
    random_order: bool = False  # apply them in random order instead of the order they are listed
    # name: {weight, type, kwargs} of each; not given is the published set
    tfs: dict[str, ImageTransformConfig] = field(default_factory=published_transforms)

    def __post_init__(self) -> None:
        if self.enable:
            self.check()

    def check(self) -> None:
        """Say what is wrong with it, if anything.

        Raises:
            ValueError: no transform can be chosen, or one of them is wrong; its name comes first.
        """
        if self.max_num_transforms < 1:
            raise ValueError(f"max_num_transforms={self.max_num_transforms}: expected at least 1.")
        for name, transform in self.tfs.items():
            try:
                transform.check()
            except ValueError as error:
                raise ValueError(f"tfs.{name}: {error}") from None
        if not self.chosen_from():
            raise ValueError("no entry of tfs has a weight above 0; give one, or enable=false.")

    def chosen_from(self) -> dict[str, ImageTransformConfig]:
        """The transforms that can be chosen, in order."""
        return {name: transform for name, transform in self.tfs.items() if transform.weight > 0}
