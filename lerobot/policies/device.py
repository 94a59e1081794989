"""The device a policy computes on."""

import logging

import torch

from lerobot.core.errors import DeviceError

logger = logging.getLogger(__name__)


def best_device() -> torch.device:
    """The first of cuda, mps, xpu that this machine has, else cpu."""
    return torch.device(next((name for name in ("cuda", "mps", "xpu") if is_present(name)), "cpu"))


def is_present(name: str) -> bool:
    """Whether this machine has the device, its number included."""
    device = torch.device(name)
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    if device.type == "xpu":
        return torch.xpu.is_available() and (device.index or 0) < torch.xpu.device_count()
    return device.type == "cpu"


def asked_device(name: str | None) -> torch.device:
    """The device a person asked for, or the best one.

    Raises:
        DeviceError: it is unknown or absent.
    """
    if name is None:
        return best_device()
    try:
        found = is_present(name)
    except RuntimeError as error:
        raise DeviceError(
            f"There is no kind of device called {name!r}; expected cuda, mps, xpu or cpu."
        ) from error
    if not found:
        raise DeviceError(
            f"The device {name!r} was asked for and this machine does not have it. "
            f"Type: --policy.device={best_device()}"
        )
    return torch.device(name)


def stored_device(name: str | None) -> torch.device:
    """The device a file names, or the best one there is, with a warning, where that is absent."""
    try:
        return asked_device(name)
    except DeviceError:
        device = best_device()
        logger.warning(
            "The checkpoint was made on %r, which this machine does not have: using %s.", name, device
        )
        return device
