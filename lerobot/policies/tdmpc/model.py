"""The networks of TD-MPC: what is seen becomes a latent state, in which actions are imagined and valued.

Papers: Hansen et al. 2022, arXiv:2203.04955 (the task-oriented latent dynamics); Feng et al. 2023,
arXiv:2310.16029 (the value of states V, and the ensemble of Q).

    observation -> encoder -> z;   (z, a) -> dynamics -> next z, reward -> r, Qs -> values;   z -> pi -> a, V

Shapes: leading axes "..." (B; or N, B in planning; or T, B in training), D latent size, A action size, E size
of the ensemble, C H W image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.nn.activation import Mish, Tanh
from lerobot.nn.linear import Linear
from lerobot.policies.tdmpc.config import CONV_KERNELS, TDMPCConfig, map_size


class Seen(NamedTuple):
    """What is observed, each with the same leading axes, or None where the policy does not read it."""

    image: Tensor | None  # (..., C, H, W)
    state: Tensor | None  # (..., J)
    env_state: Tensor | None  # (..., J')

    def at(self, when: int | slice) -> "Seen":
        """The part of the first axis that the index or slice says."""
        return Seen(*(None if value is None else value[when] for value in self))


class WorldModel(nn.Module):
    """Latent states, what actions make of them, and what they are worth."""

    def __init__(self, config: TDMPCConfig) -> None:
        super().__init__()
        size, width = config.latent_dim, config.mlp_dim
        num_actions = config.action_feature.shape[0]  # type: ignore[union-attr]
        num_in = size + num_actions
        self._encoder = Encoder(config)
        self._dynamics = nn.Sequential(
            *deep(num_in, width), Linear(width, size), nn.LayerNorm(size), nn.Sigmoid()
        )
        self._reward = nn.Sequential(*deep(num_in, width), Linear(width, 1))
        self._pi = nn.Sequential(*deep(size, width), Linear(width, num_actions))
        self._Qs = Ensemble(valuation(num_in, width) for _ in range(config.q_ensemble_size))
        self._V = valuation(size, width)
        self.apply(begin)
        for network in (self._reward, *self._Qs):
            for parameter in network[-1].parameters():
                nn.init.zeros_(parameter)

    def encode(self, seen: Seen) -> Tensor:
        """The latent state (..., D) of what is seen."""
        return self._encoder(seen)

    def imagine(self, latent: Tensor, action: Tensor) -> Tensor:
        """The next latent state (..., D) after an action (..., A) in a state (..., D)."""
        return self._dynamics(torch.cat([latent, action], dim=-1))

    def reward(self, latent: Tensor, action: Tensor) -> Tensor:
        """The reward (...) of an action (..., A) in a state (..., D)."""
        return self._reward(torch.cat([latent, action], dim=-1)).squeeze(-1)

    def react(self, latent: Tensor) -> Tensor:
        """The action (..., A), between -1 and 1, that the reflex has for a state (..., D)."""
        return torch.tanh(self._pi(latent))

    def action_values(self, latent: Tensor, action: Tensor) -> Tensor:
        """What an action (..., A) in a state (..., D) is worth to each member of the ensemble, (E, ...)."""
        return self._Qs(torch.cat([latent, action], dim=-1)).squeeze(-1)

    def state_value(self, latent: Tensor) -> Tensor:
        """What a state (..., D) is worth, (...)."""
        return self._V(latent).squeeze(-1)


class Encoder(nn.Module):
    """The latent state as the mean of what the picture, the state and the environment's state say."""

    def __init__(self, config: TDMPCConfig) -> None:
        super().__init__()
        size, hidden = config.latent_dim, config.state_encoder_hidden_dim
        for feature in config.image_features.values():
            self.image_enc_layers = picture_layers(
                feature.shape, channels=config.image_encoder_hidden_dim, size=size
            )
        if config.robot_state_feature is not None:
            self.state_enc_layers = vector_layers(config.robot_state_feature.shape[0], hidden, size)
        if config.env_state_feature is not None:
            self.env_state_enc_layers = vector_layers(config.env_state_feature.shape[0], hidden, size)

    def forward(self, seen: Seen) -> Tensor:
        """(..., D)."""
        said = []
        if seen.image is not None:
            leading = seen.image.shape[:-3]
            flat = self.image_enc_layers(seen.image.flatten(0, -4))  # (prod(...), D)
            said.append(flat.unflatten(0, leading))  # (..., D)
        if seen.state is not None:
            said.append(self.state_enc_layers(seen.state))
        if seen.env_state is not None:
            said.append(self.env_state_enc_layers(seen.env_state))
        return torch.stack(said).mean(0)


class Ensemble(nn.ModuleList):
    """Networks of one shape, (..., K) -> (E, ..., 1), that are computed as one."""

    def forward(self, x: Tensor) -> Tensor:
        """What every member says of the same input."""
        if x.device.type == "cpu":  # one member fills it, and finds what it computed last in the cache
            return torch.stack([member(x) for member in self])
        return self.at_once(x)

    def at_once(self, x: Tensor) -> Tensor:
        """The same, all members in one product per layer."""
        leading, rows = x.shape[:-1], x.flatten(0, -2)  # (S, K)
        first, norm, second, last = (self.stacked(layer) for layer in (0, 1, 3, 5))
        hidden = torch.baddbmm(first[1][:, None], rows.expand(len(self), -1, -1), first[0].mT)  # (E, S, N)
        hidden = F.layer_norm(hidden, hidden.shape[-1:]) * norm[0][:, None] + norm[1][:, None]
        hidden = F.elu(torch.baddbmm(second[1][:, None], torch.tanh(hidden), second[0].mT))  # (E, S, N)
        values = torch.baddbmm(last[1][:, None], hidden, last[0].mT)  # (E, S, 1)
        return values.unflatten(1, leading)

    def stacked(self, layer: int) -> list[Tensor]:
        """The parameters of one layer of all members, (E, ...) each."""
        each = [list(member[layer].parameters()) for member in self]  # type: ignore[index]
        return [torch.stack(same) for same in zip(*each, strict=True)]


def deep(num_in: int, width: int) -> list[nn.Module]:
    """The two hidden layers of dynamics, reward and reflex."""
    return [
        *(Linear(num_in, width), nn.LayerNorm(width), Mish()),
        *(Linear(width, width), nn.LayerNorm(width), Mish()),
    ]


def valuation(num_in: int, width: int) -> nn.Sequential:
    """A network that says a value, (..., 1)."""
    first = (Linear(num_in, width), nn.LayerNorm(width), Tanh())
    return nn.Sequential(*first, Linear(width, width), nn.ELU(), Linear(width, 1))


def vector_layers(num_in: int, hidden: int, size: int) -> nn.Sequential:
    """Reads a vector (..., J) -> (..., D)."""
    return nn.Sequential(
        Linear(num_in, hidden), nn.ELU(), Linear(hidden, size), nn.LayerNorm(size), nn.Sigmoid()
    )


def picture_layers(shape: Sequence[int], *, channels: int, size: int) -> nn.Sequential:
    """Reads square pictures (B, C, H, W) -> (B, D)."""
    layers: list[nn.Module] = []
    num_in = shape[0]
    for kernel in CONV_KERNELS:
        layers += [nn.Conv2d(num_in, channels, kernel, stride=2), nn.ReLU()]
        num_in = channels
    num_flat = channels * map_size(shape[1]) ** 2
    return nn.Sequential(*layers, nn.Flatten(), Linear(num_flat, size), nn.LayerNorm(size), nn.Sigmoid())


def begin(module: nn.Module) -> None:
    """First weights: orthogonal, biases zero."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        gain = nn.init.calculate_gain("relu") if isinstance(module, nn.Conv2d) else 1.0
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def slow_down(copy: nn.Module, model: nn.Module, *, momentum: float) -> None:
    """Move every parameter of a slow copy a little towards the model: m copy + (1 - m) model."""
    slow = [parameter.data for parameter in copy.parameters()]
    torch._foreach_lerp_(slow, [parameter.data for parameter in model.parameters()], 1 - momentum)
