"""Write pictures of what image transforms do to one frame of a dataset.

lerobot-imgtransform-viz --repo_id=me/so101_easy
lerobot-imgtransform-viz --repo_id=me/so101_easy --camera=observation.images.wrist --frame=120
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.core.command import command
from lerobot.core.errors import ConfigError, suggest
from lerobot.core.flags import parse
from lerobot.datasets.source import DatasetConfig


@dataclass(kw_only=True)
class ImageTransformVizConfig(DatasetConfig):
    """Write pictures of what image transforms do to one frame of a dataset."""

    output_dir: Path = Path("outputs/image_transforms")  # pictures go below it, into the dataset's name
    n_examples: int = 5  # pictures of random changes, of all transforms together and of each
    frame: int = 0  # number of the frame
    camera: str | None = None  # its colour camera; null is the first

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.names) > 1:
            raise ConfigError(f"--repo_id={self.repo_id}: give one dataset.")
        if self.n_examples < 1:
            raise ConfigError(f"--n_examples={self.n_examples}: expected at least 1.")
        try:
            self.image_transforms.check()
        except ValueError as error:
            raise ConfigError(f"--image_transforms: {error}") from error


def visualize_image_transforms(args: ImageTransformVizConfig | Sequence[str] | None = None) -> Path:
    """Write the pictures that a config, flags, or (None) the command line ask for; returns their folder."""
    program = "lerobot-imgtransform-viz"
    cfg = (
        args
        if isinstance(args, ImageTransformVizConfig)
        else parse(ImageTransformVizConfig, args, program=program)
    )
    from lerobot.datasets import LeRobotDataset  # torch loads here
    from lerobot.datasets.transforms.examples import write_examples

    dataset = LeRobotDataset(
        cfg.names[0],
        root=cfg.roots[0],
        episodes=cfg.episodes or [0],
        revision=cfg.revision,
        download_videos=cfg.download_videos,
    )
    cameras = [name for name in dataset.meta.camera_keys if name not in dataset.meta.depth_keys]
    camera = cfg.camera or next(iter(cameras), None)
    if camera not in cameras:
        near = suggest(camera or "", cameras)
        raise ConfigError(
            f"--camera={camera}: {cfg.names[0]} has the colour cameras {', '.join(cameras) or 'none'}.{near}"
        )
    if not 0 <= cfg.frame < len(dataset):
        raise ConfigError(f"--frame={cfg.frame}: expected 0 to {len(dataset) - 1}.")
    folder = cfg.output_dir / cfg.names[0].rsplit("/", 1)[-1]
    image = dataset[cfg.frame][camera]  # (3, H, W)
    written = write_examples(image, cfg.image_transforms, folder, count=cfg.n_examples)
    print(f"{len(written)} pictures of frame {cfg.frame} of {camera}: {folder}")
    return folder


@command
def main() -> None:
    """Entry point of `lerobot-imgtransform-viz`."""
    visualize_image_transforms()


if __name__ == "__main__":
    main()
