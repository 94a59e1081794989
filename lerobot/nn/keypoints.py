"""What a camera shows, as the places of a few keypoints: a ResNet and a spatial softmax.

Papers: Finn et al. 2016, "Deep Spatial Autoencoders for Visuomotor Learning" (spatial softmax);
Mandlekar et al. 2021, "What Matters in Learning from Offline Human Demonstrations for Robot Manipulation"
(crops and this arrangement). Used by Diffusion Policy and VQ-BeT.

    images -> [resize] -> [crop] -> ResNet -> softmax over the cells of K maps -> mean places -> linear, relu

Shapes: B images, H W height and width, K keypoints, C channels of the last map.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.core.errors import FeatureMismatchError
from lerobot.nn.resnet import NumberedResNet

Size = tuple[int, int]  # height, width
NUM_HALVINGS = 5  # of a ResNet, each rounded up


class KeypointEncoder(nn.Module):
    """Images (B, 3, H, W) -> features (B, 2K) of where K learned keypoints are.

    Args:
        image_size: H and W of the images.
        resnet: resnet10, resnet18, ...
        norm: "batch" or "group".
        resize: size that images are brought to first.
        crop: size of the part that is looked at: the centre, or while training a random one, the same for all
            images of one call.
        crop_is_random: whether crops are random while training.

    Raises:
        ConfigError: there is no such ResNet.
    """

    def __init__(
        self,
        image_size: Size,
        *,
        num_keypoints: int,
        resnet: str = "resnet18",
        norm: Literal["batch", "group"] = "batch",
        resize: Size | None = None,
        crop: Size | None = None,
        crop_is_random: bool = True,
    ) -> None:
        super().__init__()
        self.resize, self.crop, self.crop_is_random = resize, crop, crop_is_random
        self.seen_size: Size = crop or resize or image_size
        self.feature_size = 2 * num_keypoints
        self.backbone = NumberedResNet(resnet, norm=norm)
        height, width = (-(-side // 2**NUM_HALVINGS) for side in self.seen_size)
        self.pool = SpatialSoftmax((height, width), channels=self.backbone.out_channels, points=num_keypoints)
        self.out = nn.Linear(self.feature_size, self.feature_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2K).

        Raises:
            FeatureMismatchError: images of another size than the encoder was made for.
        """
        seen = self.look_at(images)  # (B, 3, *seen_size)
        places = self.pool(self.backbone(seen))  # (B, K, 2)
        return F.relu(self.out(places.flatten(1)))  # (B, 2K)

    def look_at(self, images: Tensor) -> Tensor:
        """The part (B, 3, *seen_size) of the images that the network sees."""
        height, width = images.shape[-2:]
        if self.resize is not None and images.shape[-2:] != self.resize:
            images = F.interpolate(images, self.resize, mode="bilinear", antialias=True, align_corners=False)
        if self.crop is not None:
            images = cropped(images, self.crop, is_random=self.crop_is_random and self.training)
        if images.shape[-2:] != self.seen_size:
            raise FeatureMismatchError(
                f"An image of {height} x {width} pixels was given; resized and cropped it must be "
                f"{self.seen_size[0]} x {self.seen_size[1]}, the size this policy was built for. Give it "
                "pictures of the cameras it was trained with."
            )
        return images


class SpatialSoftmax(nn.Module):
    """Maps (B, C, H, W) -> mean places (B, K, 2) of K keypoints, x and y in [-1, 1]."""

    pos_grid: Tensor

    def __init__(self, map_size: Size, *, channels: int, points: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, points, 1)
        height, width = map_size
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height, dtype=torch.float64),
            torch.linspace(-1, 1, width, dtype=torch.float64),
            indexing="ij",
        )
        self.register_buffer("pos_grid", torch.stack([x, y], dim=-1).reshape(-1, 2).float())  # (H*W, 2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, 2)."""
        share = self.nets(maps).flatten(2).softmax(-1)  # (B, K, H*W)
        return share @ self.pos_grid  # (B, K, 2)


def cropped(images: Tensor, size: Size, *, is_random: bool) -> Tensor:
    """A part (..., h, w) of images (..., H, W): the centre, or a random one that all of them share."""
    height, width = size
    room = images.shape[-2] - height, images.shape[-1] - width
    if room == (0, 0):  # nothing is drawn for it either
        return images
    if is_random and min(room) >= 0:
        place = {"device": images.device}  # where the numbers stay: nothing waits for them
        rows, columns = (
            torch.randint(0, each + 1, (1,), **place) + torch.arange(side, **place)
            for each, side in zip(room, size, strict=True)
        )
        return images[..., rows[:, None], columns]
    top, left = (round(each / 2) for each in room)
    return images[..., max(0, top) : max(0, top) + height, max(0, left) : max(0, left) + width]
