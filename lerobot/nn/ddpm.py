"""Diffusion: how data turns into noise, and how a network's guesses lead back, drawing on the way or not.

Papers: Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (DDPM), arXiv:2006.11239; Song et al. 2021,
"Denoising Diffusion Implicit Models" (DDIM), arXiv:2010.02502; Nichol and Dhariwal 2021, "Improved Denoising
Diffusion Probabilistic Models" (the cosine schedule), arXiv:2102.09672.

    forward:  x_t = signal_t * data + noise_t * N(0, 1)         signal_t^2 + noise_t^2 = 1, t = 0 ... T-1
    back:     x_t -> network -> data, roughly -> x of the level r = T // n below -> ... -> data     (n steps)

All constants are computed in double precision once and kept in float32 buffers that follow the device; they
are no weights and are not saved. A step reads nothing off the device, so the whole way back can be captured.

Shapes: B batch, T noise levels, n denoising steps.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lerobot.core.errors import ConfigError
from lerobot.nn.draws import Draws

LARGEST_BETA = 0.999  # of the cosine schedule, whose end would be 1
LEAST_VARIANCE = 1e-20

BetaSchedule = Literal["squaredcos_cap_v2", "linear", "scaled_linear"]
Prediction = Literal["epsilon", "sample"]
Way = Literal["DDPM", "DDIM"]


def betas_of(schedule: BetaSchedule, *, num_levels: int, start: float, end: float) -> Tensor:
    """The variances (T,), float32, of the noise that each level adds.

    Raises:
        ConfigError: there is no schedule of that name.
    """
    if schedule == "squaredcos_cap_v2":

        def left(share: float) -> float:  # of the signal's variance
            return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

        falls = [1 - left((i + 1) / num_levels) / left(i / num_levels) for i in range(num_levels)]
        return torch.tensor([min(fall, LARGEST_BETA) for fall in falls], dtype=torch.float32)
    if schedule == "linear":
        return torch.linspace(start, end, num_levels, dtype=torch.float32)
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, num_levels, dtype=torch.float32).square()
    raise ConfigError(
        f"There is no noise schedule {schedule!r}. Known: squaredcos_cap_v2, linear, scaled_linear."
    )


class NoiseSchedule(nn.Module):
    """The way from data to noise.

    Args:
        predicts: what a network is trained for: the noise ("epsilon") or the data ("sample").
    """

    signal: Tensor
    noise: Tensor

    def __init__(
        self,
        num_levels: int,
        *,
        schedule: BetaSchedule = "squaredcos_cap_v2",
        start: float = 1e-4,
        end: float = 0.02,
        predicts: Prediction = "epsilon",
    ) -> None:
        super().__init__()
        self.num_levels, self.predicts = num_levels, predicts
        betas = betas_of(schedule, num_levels=num_levels, start=start, end=end)
        # The products are float32 in published models, which were trained with them; what follows is exact.
        self.left = torch.cumprod(1 - betas, 0).double().tolist()  # of the signal's variance, T floats
        left = torch.tensor(self.left, dtype=torch.float64)
        self.register_buffer("signal", left.sqrt().float(), persistent=False)  # (T,)
        self.register_buffer("noise", (1 - left).sqrt().float(), persistent=False)  # (T,)

    def add(self, data: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Data (B, ...) with noise (B, ...) of these levels (B,)."""
        shape = (-1,) + (1,) * (data.dim() - 1)
        return self.signal[levels].view(shape) * data + self.noise[levels].view(shape) * noise

    def target(self, data: Tensor, noise: Tensor) -> Tensor:
        """What the network should have said."""
        return noise if self.predicts == "epsilon" else data


class Sampler(nn.Module):
    """The way from noise to data, in `num_steps` steps of equal length.

    Args:
        way: "DDPM" draws noise in each step, "DDIM" only for the beginning.
        clip: the data's largest size, to which each step's guess is cut; None cuts nothing.

    Raises:
        ConfigError: more steps than there are levels of noise.
    """

    levels: Tensor
    table: Tensor

    def __init__(
        self, schedule: NoiseSchedule, *, num_steps: int, way: Way = "DDPM", clip: float | None = 1.0
    ) -> None:
        super().__init__()
        if not 1 <= num_steps <= schedule.num_levels:
            raise ConfigError(
                f"{num_steps} denoising steps were asked for; expected 1 to {schedule.num_levels}, the "
                "levels of noise."
            )
        self.way, self.clip, self.predicts, self.num_steps = way, clip, schedule.predicts, num_steps
        stride = schedule.num_levels // num_steps
        levels = [step * stride for step in reversed(range(num_steps))]  # ..., 2r, r, 0
        rows = ddpm_row if way == "DDPM" else ddim_row
        table = [
            (
                math.sqrt(left),
                math.sqrt(1 - left),
                *rows(left, schedule.left[t - stride] if t >= stride else 1.0),
            )
            for t, left in ((t, schedule.left[t]) for t in levels)
        ]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)  # (n,)
        self.register_buffer("table", torch.tensor(table), persistent=False)  # (n, 5), float32

    def step(self, x: Tensor, predicted: Tensor, *, index: int, draws: Draws) -> Tensor:
        """What x (B, ...) of level `levels[index]` is one step on, given what the network says about it."""
        signal, noise, of_data, of_rest, spread = self.table[index].to(x.dtype).unbind()
        data = (x - noise * predicted) / signal if self.predicts == "epsilon" else predicted
        guess = data if self.clip is None else data.clamp(-self.clip, self.clip)
        if self.way == "DDIM":  # its noise goes with the guess before it was cut
            rest = predicted if self.predicts == "epsilon" else (x - signal * data) / noise
        else:
            rest = x
        moved = of_data * guess + of_rest * rest
        if self.way == "DDIM" or index == self.num_steps - 1:  # nothing is drawn on the way to level 0
            return moved
        return moved + spread * draws.normal(*x.shape, like=x)


def ddpm_row(left: float, left_below: float) -> tuple[float, float, float]:
    """Weights of the guess and of x in the mean of the level below, and the spread around it.

    Equation 7 of the DDPM paper, for steps over one level or several.
    """
    kept = left / left_below
    lost = 1 - kept
    of_data = math.sqrt(left_below) * lost / (1 - left)
    of_x = math.sqrt(kept) * (1 - left_below) / (1 - left)
    return of_data, of_x, math.sqrt(max((1 - left_below) / (1 - left) * lost, LEAST_VARIANCE))


def ddim_row(left: float, left_below: float) -> tuple[float, float, float]:
    """Weights of the guess and of the noise at the level below, and no spread: equation 12 of DDIM, eta 0."""
    return math.sqrt(left_below), math.sqrt(1 - left_below), 0.0
