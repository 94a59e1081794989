"""Pictures of what transforms do to one frame, for a person to look at.

folder/original_frame.png   all/1.png ...           what training would see
                            <transform>/1.png ...   each transform by itself
                            <transform>/min.png, mean.png, max.png   ends and middle of its ranges
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lerobot.datasets.transforms.apply import ImageTransforms, make_transform_from_config
from lerobot.datasets.transforms.arguments import ARGUMENTS
from lerobot.datasets.transforms.config import ImageTransformConfig, ImageTransformsConfig

PICKS: dict[str, Callable[[float, float], float]] = {
    "min": lambda low, high: low,
    "mean": lambda low, high: (low + high) // 2 if isinstance(low, int) else (low + high) / 2,
    "max": lambda low, high: high,
}


def write_examples(image: Tensor, cfg: ImageTransformsConfig, folder: Path, *, count: int) -> list[Path]:
    """The files that were written below `folder`.

    Args:
        image: (3, H, W), float in 0..1.
        cfg: its transforms are shown whether or not it is enabled.
        count: pictures of random changes, of all together and of each.

    Raises:
        ValueError: an entry of the config is wrong.
    """
    cfg = dataclasses.replace(cfg, enable=True)
    torch.manual_seed(0)  # the same pictures every time
    written = [_save(image, folder / "original_frame.png")]
    transforms = ImageTransforms(cfg)
    written += [_save(transforms(image), folder / "all" / f"{n}.png") for n in range(1, count + 1)]
    for name, entry in cfg.tfs.items():
        transform = make_transform_from_config(entry)
        written += [_save(transform(image), folder / name / f"{n}.png") for n in range(1, count + 1)]
        for pick, fixed in _fixed(entry).items():
            written.append(_save(make_transform_from_config(fixed)(image), folder / name / f"{pick}.png"))
    return written


def _fixed(entry: ImageTransformConfig) -> dict[str, ImageTransformConfig]:
    """The entry with each of its ranges narrowed to one end or the middle; nothing for one without ranges."""
    values = make_transform_from_config(entry).arguments
    ranges = {
        name: values[name]
        for name, argument in ARGUMENTS[entry.type].items()
        if argument.is_range and values[name] is not None
    }
    if not ranges:
        return {}
    return {
        name: dataclasses.replace(
            entry, kwargs=entry.kwargs | {key: (pick(*span), pick(*span)) for key, span in ranges.items()}
        )
        for name, pick in PICKS.items()
    }


def _save(image: Tensor, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)  # (H, W, C)
    Image.fromarray(pixels.squeeze(2).numpy()).save(path)
    return path
