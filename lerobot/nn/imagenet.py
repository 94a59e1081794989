"""ImageNet weights for a ResNet: from a file, from caches on this machine, or from the Hugging Face Hub.

"ResNet18_Weights.IMAGENET1K_V1" -> torch hub cache -> Hub cache -> download -> ResNet (classifier left out)
"""

import logging
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.core.hub import HubError, Repo
from lerobot.nn.resnet import NumberedResNet, ResNet

logger = logging.getLogger(__name__)

FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
# (network, version) -> file name in torch's hub cache, Hub repository with the same numbers
KNOWN = {
    ("resnet18", "V1"): ("resnet18-f37072fd.pth", "timm/resnet18.tv_in1k"),
    ("resnet34", "V1"): ("resnet34-b627a593.pth", "timm/resnet34.tv_in1k"),
    ("resnet50", "V1"): ("resnet50-0676ba61.pth", "timm/resnet50.tv_in1k"),
    ("resnet50", "V2"): ("resnet50-11ad3fa6.pth", "timm/resnet50.tv2_in1k"),
    ("resnet101", "V1"): ("resnet101-63fe2227.pth", "timm/resnet101.tv_in1k"),
    ("resnet101", "V2"): ("resnet101-cd907fc2.pth", "timm/resnet101.tv2_in1k"),
    ("resnet152", "V1"): ("resnet152-394f9c45.pth", "timm/resnet152.tv_in1k"),
    ("resnet152", "V2"): ("resnet152-f82ba261.pth", "timm/resnet152.tv2_in1k"),
}
NO_WEIGHTS = "To start from random weights, type: --policy.pretrained_backbone_weights=null"


def load_imagenet_weights(backbone: ResNet | NumberedResNet, name: str, *, source: str) -> None:
    """Fill a backbone called `name` (resnet18, ...) from `source`.

    Args:
        source: a .safetensors or .pth file, or a name such as ResNet18_Weights.IMAGENET1K_V1 (DEFAULT is the
            newest), which is looked for in `$TORCH_HOME/hub/checkpoints` (default ~/.cache/torch), then in
            the Hub's cache, then downloaded from the Hub.

    Raises:
        CheckpointError: there is no such file, it cannot be fetched, or it does not fit the network.
    """
    path = find_weights(name, source)
    stored = read_weights(path)
    if isinstance(backbone, NumberedResNet):
        stored = backbone.own_names(stored)
    wanted = backbone.state_dict()
    weights = {key: value for key, value in stored.items() if key in wanted}
    missing = sorted(
        wanted.keys() - weights.keys() - {k for k in wanted if k.endswith("num_batches_tracked")}
    )
    misfits = sorted(key for key, value in weights.items() if value.shape != wanted[key].shape)
    if missing or misfits:
        raise CheckpointError(
            f"{path} does not hold the weights of {name}: {len(missing)} are missing, {len(misfits)} have "
            "another shape "
            f"(first: {(missing + misfits)[0]}). {NO_WEIGHTS}"
        )
    backbone.load_state_dict(weights, strict=False)  # strict above; counters of batches may be absent
    logger.info("%s starts from %s.", name, path)


def find_weights(name: str, source: str) -> Path:
    """The file that `source` names, downloaded if need be.

    Raises:
        CheckpointError: it is nowhere; the message says where it may be put.
    """
    if source.endswith(FILE_ENDINGS):
        if not Path(source).expanduser().is_file():
            raise CheckpointError(f"There is no file {source} with weights of {name}. {NO_WEIGHTS}")
        return Path(source).expanduser()
    version = weights_version(name, source)
    file_name, repo_id = KNOWN[name, version]
    cached = torch_cache() / file_name
    if cached.is_file():
        return cached
    try:
        return Repo(repo_id=repo_id).file(keys.WEIGHTS_FILE)
    except HubError as error:
        raise CheckpointError(
            f"The ImageNet weights of {name} are not on this machine, and {error} {NO_WEIGHTS} - or put "
            f"{file_name} into "
            f"{torch_cache()}, or give a file: "
            f"--policy.pretrained_backbone_weights=/path/to/{name}.safetensors"
        ) from error


def weights_version(name: str, source: str) -> str:
    """ "V1" or "V2" of a weights name such as ResNet18_Weights.IMAGENET1K_V1, IMAGENET1K_V1 or DEFAULT.

    Raises:
        CheckpointError: the name belongs to another network, or there is no such version.
    """
    owner, _, version = source.rpartition(".")
    versions = [known for network, known in KNOWN if network == name]
    version = versions[-1] if version == "DEFAULT" and versions else version.removeprefix("IMAGENET1K_")
    if version in versions and owner.lower() in ("", f"{name}_weights"):
        return version
    valid = ", ".join(f"{name.replace('resnet', 'ResNet')}_Weights.IMAGENET1K_{known}" for known in versions)
    raise CheckpointError(
        f"pretrained_backbone_weights={source!r} names no weights of vision_backbone={name!r}: expected "
        f"{valid + ', ' if valid else ''}or a .safetensors or .pth file. {NO_WEIGHTS}"
    )


def torch_cache() -> Path:
    """Folder in which PyTorch keeps downloaded weights."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch file (tensors only; no code is run)."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
