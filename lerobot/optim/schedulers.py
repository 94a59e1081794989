"""Learning-rate schedules by name: each is a factor that multiplies every group's own learning rate.

factor
1 |    ______
  |   /      \\__            s   step, from 0
  |  /          \\__         W   warm-up steps
0 |_/              \\__      N   training steps in all
    W                N
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lerobot.core.errors import ConfigError
from lerobot.core.registry import Choice

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

Factor = Callable[[int], float]
Shape = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
POLYNOMIAL_END = 1e-7  # learning rate at the end of the polynomial schedule


@dataclass(kw_only=True)
class LRSchedulerConfig(Choice, package="lerobot.optim.schedulers"):
    """Base of all schedules."""

    num_warmup_steps: int | None  # steps over which the learning rate rises from 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: a number of steps is negative.
        """
        for name, value in vars(self).items():
            if name.startswith("num_") and value is not None and value < 0:
                raise ConfigError(f"{name}={value}: expected a number of at least 0.")

    def factor(self, num_training_steps: int) -> Factor:
        """step -> factor, for a run of N steps."""
        raise NotImplementedError

    def build(self, optimizer: "Optimizer", num_training_steps: int) -> "LambdaLR":
        """The torch scheduler; call its `step()` once after each optimizer step."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, self.factor(num_training_steps))


@LRSchedulerConfig.register_subclass("diffuser")
@dataclass(kw_only=True)
class DiffuserSchedulerConfig(LRSchedulerConfig):
    """The schedules of the diffusers library, by their names there."""

    num_warmup_steps: int | None = None  # steps over which the learning rate rises from 0
    name: Shape = "cosine"  # what follows the warm-up

    def __post_init__(self) -> None:
        """Check the numbers; only `constant` does without a warm-up."""
        super().__post_init__()
        if self.num_warmup_steps is None and self.name != "constant":
            raise ConfigError(
                f"--scheduler.num_warmup_steps must be given for the {self.name} schedule (0 is none)."
            )

    def factor(self, num_training_steps: int) -> Factor:
        """step -> factor."""
        warmup = self.num_warmup_steps or 0
        if self.name == "constant":
            return lambda step: 1.0
        shapes: dict[str, Callable[[float], float]] = {
            "constant_with_warmup": lambda progress: 1.0,
            "linear": lambda progress: max(0.0, 1 - progress),
            "cosine": cosine,
            "cosine_with_restarts": lambda progress: 0.0 if progress >= 1 else cosine(progress % 1),
        }
        return warmed_up(warmup, num_training_steps, shapes[self.name])

    def build(self, optimizer: "Optimizer", num_training_steps: int) -> "LambdaLR":
        """The torch scheduler; the polynomial one needs the optimizer's own learning rate."""
        if self.name != "polynomial":
            return super().build(optimizer, num_training_steps)
        from torch.optim.lr_scheduler import LambdaLR

        start = optimizer.defaults["lr"]
        if start <= POLYNOMIAL_END:
            raise ConfigError(
                f"--optimizer.lr={start}: the polynomial schedule ends at {POLYNOMIAL_END}, above it."
            )
        end = POLYNOMIAL_END / start
        shape = lambda progress: end if progress > 1 else (1 - end) * (1 - progress) + end  # noqa: E731
        return LambdaLR(optimizer, warmed_up(self.num_warmup_steps or 0, num_training_steps, shape))


@LRSchedulerConfig.register_subclass("vqbet")
@dataclass(kw_only=True)
class VQBeTSchedulerConfig(LRSchedulerConfig):
    """Constant while the VQ-VAE is trained, then warm-up and cosine for the rest."""

    num_warmup_steps: int  # steps over which the learning rate rises from 0
    num_vqvae_training_steps: int  # steps of the first phase
    num_cycles: float = 0.5  # waves of the cosine; half a wave ends at 0

    def factor(self, num_training_steps: int) -> Factor:
        """step -> factor."""

        def at(step: int) -> float:
            if step < self.num_vqvae_training_steps:
                return 1.0
            since = step - self.num_vqvae_training_steps
            if since < self.num_warmup_steps:
                return since / max(1, self.num_warmup_steps)
            # The wave's length is that of the whole run, counted from the end of the first phase.
            progress = (since - self.num_warmup_steps) / max(1, num_training_steps - self.num_warmup_steps)
            return cosine(progress, cycles=self.num_cycles)

        return at


@LRSchedulerConfig.register_subclass("constant_with_warmup")
@dataclass(kw_only=True)
class ConstantWithWarmupSchedulerConfig(LRSchedulerConfig):
    """Warm-up, then constant."""

    num_warmup_steps: int = 1000  # steps over which the learning rate rises from 0

    def factor(self, num_training_steps: int) -> Factor:
        """step -> factor."""
        return warmed_up(self.num_warmup_steps, num_training_steps, lambda progress: 1.0)


@LRSchedulerConfig.register_subclass("cosine_annealing_with_warmup")
@dataclass(kw_only=True)
class CosineAnnealingWithWarmupSchedulerConfig(LRSchedulerConfig):
    """Warm-up, then half a cosine wave down to 0 at the last step."""

    num_warmup_steps: int  # steps over which the learning rate rises from 0

    def factor(self, num_training_steps: int) -> Factor:
        """step -> factor."""
        return warmed_up(self.num_warmup_steps, num_training_steps, cosine)


@LRSchedulerConfig.register_subclass("cosine_decay_with_warmup")
@dataclass(kw_only=True)
class CosineDecayWithWarmupSchedulerConfig(LRSchedulerConfig):
    """Warm-up, then half a cosine wave from peak_lr down to decay_lr; shorter runs get a shorter wave."""

    num_warmup_steps: int  # steps over which the learning rate rises
    num_decay_steps: int  # step at which decay_lr is reached
    peak_lr: float  # learning rate that decay_lr is measured against
    decay_lr: float  # learning rate from num_decay_steps on

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        if self.peak_lr <= 0 or self.decay_lr < 0:
            raise ConfigError(f"peak_lr={self.peak_lr}, decay_lr={self.decay_lr}: expected a peak above 0.")

    def factor(self, num_training_steps: int) -> Factor:
        """step -> factor.

        The cosine is counted from step 0, not from the end of the warm-up, so there is a small drop at W.
        """
        warmup, decay = self.num_warmup_steps, self.num_decay_steps
        if num_training_steps < decay:
            warmup, decay = int(warmup * num_training_steps / decay), num_training_steps
        low = self.decay_lr / self.peak_lr

        def at(step: int) -> float:
            if step < warmup:
                start = 1 / (warmup + 1)
                return (start - 1) * (1 - step / warmup) + 1
            return (1 - low) * cosine(min(step, decay) / max(1, decay)) + low

        return at


def warmed_up(warmup: int, total: int, shape: Callable[[float], float]) -> Factor:
    """A factor that rises over `warmup` steps, then is `shape` of the progress, which is 1 at `total`."""

    def at(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        return shape((step - warmup) / max(1, total - warmup))

    return at


def cosine(progress: float, *, cycles: float = 0.5) -> float:
    """1 at progress 0, down along a cosine that makes `cycles` waves until progress 1; never below 0."""
    return max(0.0, 0.5 * (1 + math.cos(2 * math.pi * cycles * progress)))
