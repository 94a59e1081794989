"""Residual networks for images, cut before the pooling and the classifier.

Paper: He et al. 2015, "Deep Residual Learning for Image Recognition". Parameter names and arithmetic are
those of torchvision, so its weight files fit (`nn/imagenet.py` finds them).

    images (B, 3, H, W) -> conv1, bn1, pool: H/4 -> layer1: H/4 -> layer2: H/8 -> layer3: H/16 -> layer4: H/32

Shapes: B batch, C channels, H W height and width of the image; every halving rounds up.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.core.errors import ConfigError, suggest
from lerobot.nn.norm import FrozenBatchNorm2d

STAGE_WIDTHS = (64, 128, 256, 512)
CHANNELS_PER_GROUP = 16  # group norm's group size in visuomotor policies
# Values from which on pictures are worth another order in memory on a CPU; smaller ones keep the order of
# sums of recorded runs, which then repeat bit for bit.
LEAST_CHANNELS_LAST = 2**18
LEAST_WITHOUT_GRADIENT = 2**15  # of these nothing was recorded


def frozen_norm(width: int) -> nn.Module:
    """Batch norm that never changes; it overwrites the convolution's output, which nobody else reads."""
    return FrozenBatchNorm2d(width, inplace=True)


def batch_norm(width: int) -> nn.Module:
    """Batch norm that learns."""
    return nn.BatchNorm2d(width)


def group_norm(width: int) -> nn.Module:
    """Group norm with 16 channels per group."""
    return nn.GroupNorm(max(1, width // CHANNELS_PER_GROUP), width)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "frozen": frozen_norm,
    "batch": batch_norm,
    "group": group_norm,
}


class ResNet(nn.Module):
    """Images (B, 3, H, W) -> the last stage's map (B, out_channels, H/32, W/32).

    Its children, in order, are conv1, bn1, relu, maxpool, layer1 ... layer4.

    Args:
        name: resnet10 (ours: one basic block per stage, for small machines), resnet18, 34, 50, 101 or 152.
        norm: "frozen", "batch" or "group".
        dilate_last: the last stage keeps its resolution and dilates instead; bottleneck networks only.

    Raises:
        ConfigError: an unknown name, or `dilate_last` with basic blocks.
    """

    def __init__(self, name: str = "resnet18", *, norm: str = "batch", dilate_last: bool = False) -> None:
        super().__init__()
        block, depths = architecture(name)
        if dilate_last and block is BasicBlock:
            raise ConfigError(
                f"The last stage of {name} cannot be dilated: basic blocks have no dilation. "
                "Choose resnet50 or deeper, or set replace_final_stride_with_dilation=false."
            )
        make_norm = NORMS[norm]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width_in = 64
        stages = []
        for index, (width, depth) in enumerate(zip(STAGE_WIDTHS, depths, strict=True)):
            is_dilated = dilate_last and index == 3
            stride = 1 if index == 0 or is_dilated else 2
            blocks = []
            for position in range(depth):
                # torchvision dilates from the second block of the stage on
                dilation = 2 if is_dilated and position > 0 else 1
                first_stride = stride if position == 0 else 1
                blocks.append(block(width_in, width, stride=first_stride, dilation=dilation, norm=make_norm))
                width_in = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = width_in
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """The last stage's map (B, out_channels, H/32, W/32)."""
        return last_map(images, *self.children())


class NumberedResNet(nn.Sequential):
    """A ResNet whose parts are stored under their places in a row: conv1 as 0, bn1 as 1, stages as 4 to 7."""

    def __init__(self, name: str = "resnet18", *, norm: str = "batch") -> None:
        net = ResNet(name, norm=norm)
        super().__init__(*net.children())
        self.out_channels = net.out_channels
        self.places = {child: str(place) for place, (child, _) in enumerate(net.named_children())}

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of torchvision's names under the names they have here; the classifier's are left out."""
        parts = {name: name.partition(".") for name in weights}
        return {
            f"{self.places[child]}.{rest}": weights[name]
            for name, (child, _, rest) in parts.items()
            if child in self.places
        }

    def forward(self, images: Tensor) -> Tensor:
        """As of `ResNet`."""
        return last_map(images, *self)


def last_map(
    images: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module, pool: nn.Module, *stages: nn.Module
) -> Tensor:
    """The map (B, out_channels, H/32, W/32) that the parts of a ResNet make of images (B, 3, H, W)."""
    least = LEAST_CHANNELS_LAST if torch.is_grad_enabled() else LEAST_WITHOUT_GRADIENT
    is_last = images.is_cuda or images.numel() >= least
    if is_last:
        # The order that convolutions compute in; the maps below follow. Weights keep theirs on disk.
        images = images.contiguous(memory_format=torch.channels_last)
    x = F.relu(norm(conv(images)), inplace=True)  # (B, 64, H/2, W/2)
    x = pool(x.contiguous(memory_format=torch.channels_last))  # (B, 64, H/4, W/4); 8 times as fast so
    x = x if is_last else x.contiguous()
    for stage in stages:
        x = stage(spare_weights(x, stage))  # the last one: (B, 8*64*e, H/32, W/32)
    return x


def spare_weights(x: Tensor, stage: nn.Module) -> Tensor:
    """A map (B, C, H, W) in the order in memory that suits a stage on a CPU.

    Convolutions bring their weights to the order of their input, each time; where a map is smaller than the
    weights that costs more than it saves, and the map takes theirs.
    """
    most = max(part.weight.numel() for part in stage.modules() if isinstance(part, nn.Conv2d))
    return x if x.is_cuda or x.numel() >= most else x.contiguous()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, width_in: int, width: int, *, stride: int, dilation: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norm(width)
        self.downsample = shortcut(width_in, width, stride=stride, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y.add_(x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the output is four times wider than the middle."""

    expansion = 4

    def __init__(
        self, width_in: int, width: int, *, stride: int, dilation: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        wide = width * self.expansion
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = norm(wide)
        self.downsample = shortcut(width_in, wide, stride=stride, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4*width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y.add_(x if self.downsample is None else self.downsample(x)), inplace=True)


def shortcut(
    width_in: int, width_out: int, *, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential | None:
    """The strided 1x1 convolution and norm of a shortcut that changes shape, or None."""
    if stride == 1 and width_in == width_out:
        return None
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False), norm(width_out))


ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


def architecture(name: str) -> tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]:
    """Block class and blocks per stage of a network.

    Raises:
        ConfigError: there is no network of that name.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"There is no vision backbone called {name!r}. Known: {', '.join(ARCHITECTURES)}."
            f"{suggest(name, ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
