"""Random changes of a run's colour pictures on the training device: `--dataset.image_transforms`.

    loader -> numbered: frame numbers and epoch stay on the host -> feed: to the device -> changed pictures

Only training batches pass through here; validation sees pictures as they are.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.training.config import TrainConfig
from lerobot.training.sampling.data import Batch, BatchLoader
from lerobot.training.sampling.source import Metadata
from lerobot.training.sampling.stream import StreamLoader

if TYPE_CHECKING:
    from lerobot.datasets.transforms.batch import BatchTransforms

DRAWN_FOR = "image_transforms.drawn_for"  # of a batch on its way: its frame numbers, the loader's position


class Augmentation:
    """The random changes that a config asks for; none when they are not enabled.

    Raises:
        ConfigError: they are enabled and the data has no colour camera.
    """

    def __init__(self, cfg: TrainConfig, meta: Metadata) -> None:
        wanted = cfg.dataset.image_transforms
        self.cameras = sorted(set(meta.camera_keys) - set(meta.depth_keys))
        self.transforms: BatchTransforms | None = None
        if not wanted.enable:
            return
        if not self.cameras:
            raise ConfigError(
                "--dataset.image_transforms.enable=true, but the dataset has no colour camera to change."
            )
        from lerobot.datasets.transforms import batch  # 50 ms that most runs do not need

        self.transforms = batch.BatchTransforms(wanted, seed=cfg.seed or 0)

    def numbered(self, loader: BatchLoader | StreamLoader) -> Iterator[Batch]:
        """The loader's batches, each with what its random numbers follow from."""
        for count, batch in enumerate(loader):
            if self.transforms is not None:
                # Kept on the host: to ask the device for them would wait for the step before.
                batch = batch | {DRAWN_FOR: (batch[keys.INDEX], loader.position(count))}
            yield batch

    def __call__(self, batch: Batch) -> Batch:
        """A numbered batch with changed pictures, float in 0..1."""
        place = batch.pop(DRAWN_FOR, None)
        if self.transforms is None or place is None:
            return batch
        index, position = place
        self.transforms.seed = position.seed  # a resumed run goes on with its own
        changed = {
            camera: self.transforms(batch[camera], index=index, epoch=position.epoch, camera=camera)
            for camera in self.cameras
            if camera in batch  # those that the policy does not look at are not read
        }
        return batch | changed
