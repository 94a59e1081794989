"""Planning in a learned model: sequences of actions are drawn, imagined, valued; the best say where to draw.

Papers: Williams et al. 2015, arXiv:1509.01149 (MPPI); Hansen et al. 2022, arXiv:2203.04955, section 3; Feng
et al. 2023, arXiv:2310.16029 (disagreement counts against a sequence).

    reflex -> some sequences -------------------------------------+
    mean, std -> draw N sequences -> imagine -> value -> elites --+-> mean, std -> ... -> one of the elites

The reflex's sequences stay the same in all rounds, so they are imagined once. Nothing here waits for the
device, and no candidate is handled alone.

Shapes: B batch, N candidates, T horizon, A action size, D latent size, E ensemble.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lerobot.nn.draws import Draws
from lerobot.policies.tdmpc.config import TDMPCConfig
from lerobot.policies.tdmpc.model import WorldModel


class Plan(NamedTuple):
    """What planning yields."""

    actions: Tensor  # (T, B, A) one of the best sequences, between -1 and 1
    mean: Tensor  # (T, B, A) around which the last round's best ones lie; the next plan begins from it


class Candidates(NamedTuple):
    """Sequences of actions, imagined to their end."""

    actions: Tensor  # (T, N, B, A)
    gain: Tensor  # (N, B) discounted rewards less what is doubtful about them
    end: Tensor  # (N, B, D) the latent state after them


class Planner:
    """Plans with a model as a config says."""

    def __init__(self, model: WorldModel, config: TDMPCConfig) -> None:
        self.model, self.config = model, config

    def __call__(self, latent: Tensor, draws: Draws, *, last_mean: Tensor | None = None) -> Plan:
        """A plan for states (B, D); `last_mean` (T, B, A) is that of the last one, 0 without one."""
        cfg = self.config
        reflexes = self.imagine(latent.expand(cfg.n_pi_samples, -1, -1), draws)
        shape = (cfg.horizon, len(latent), reflexes.actions.shape[-1])
        mean = latent.new_zeros(shape)  # (T, B, A)
        if last_mean is not None:
            mean[:-1] = last_mean[1:]
        std = torch.full_like(mean, cfg.max_std)
        for _ in range(cfg.cem_iterations):
            noise = draws.normal(shape[0], cfg.n_gaussian_samples, *shape[1:], like=mean, axis=2)
            drawn = torch.clamp(mean[:, None] + std[:, None] * noise, -1, 1)  # (T, N, B, A)
            imagined = self.imagine(latent.expand(cfg.n_gaussian_samples, -1, -1), draws, actions=drawn)
            actions = torch.cat([drawn, reflexes.actions], dim=1)
            best = self.worth(imagined, reflexes, draws).topk(cfg.n_elites, dim=0)
            weight = torch.exp(cfg.elite_weighting_temperature * (best.values - best.values[:1]))  # (N', B)
            weight = weight / weight.sum(0)
            elites = chosen(actions, best.indices)  # (T, N', B, A)
            centre = (weight[..., None] * elites).sum(1)  # (T, B, A)
            spread = (weight[..., None] * (elites - centre[:, None]).square()).sum(1).sqrt()  # (T, B, A)
            mean = torch.lerp(centre, mean, cfg.gaussian_mean_momentum)
            std = spread.clamp(cfg.min_std, cfg.max_std)
        one = draws.categories(weight.mT)  # (B,)
        return Plan(chosen(elites, one[None])[:, 0].clamp(-1, 1), mean)

    def imagine(self, latent: Tensor, draws: Draws, *, actions: Tensor | None = None) -> Candidates:
        """What comes of actions (T, N, B, A), or without them the reflex's, in states (N, B, D)."""
        gain, discount, taken = latent.new_zeros(latent.shape[:2]), 1.0, []
        for step in range(self.config.horizon):
            taken.append(self.react(latent, draws) if actions is None else actions[step])
            certain = self.model.reward(latent, taken[-1]) - self.doubt(latent, taken[-1])
            gain = gain + discount * certain  # (N, B)
            latent = self.model.imagine(latent, taken[-1])
            discount *= self.config.discount
        return Candidates(torch.stack(taken) if actions is None else actions, gain, latent)

    def worth(self, drawn: Candidates, reflexes: Candidates, draws: Draws) -> Tensor:
        """What all candidates are worth, (N, B): their gain, and what the reflex makes of where they end."""
        gain, end = (torch.cat([a, b]) for a, b in zip(drawn[1:], reflexes[1:], strict=True))
        values = self.model.action_values(end, self.react(end, draws))  # (E, N, B)
        last = lowest(values, draws) - self.doubt_of(values)
        return torch.nan_to_num(gain + self.config.discount**self.config.horizon * last, nan=0.0)

    def react(self, latent: Tensor, draws: Draws) -> Tensor:
        """The reflex's actions (N, B, A) in states (N, B, D), with noise, not clamped."""
        action = self.model.react(latent)
        return action + self.config.min_std * draws.normal(*action.shape, like=action, axis=1)

    def doubt(self, latent: Tensor, action: Tensor) -> Tensor | float:
        """How much the value of actions (N, B, A) in states (N, B, D) is doubted, (N, B)."""
        if self.config.uncertainty_regularizer_coeff <= 0:
            return 0.0
        return self.doubt_of(self.model.action_values(latent, action))

    def doubt_of(self, values: Tensor) -> Tensor | float:
        """How much the members of the ensemble disagree about values (E, N, B), as it is weighed, (N, B)."""
        coeff = self.config.uncertainty_regularizer_coeff
        return coeff * values.std(0) if coeff > 0 else 0.0


def chosen(actions: Tensor, index: Tensor) -> Tensor:
    """The candidates (T, N', B, A) of actions (T, N, B, A) with these numbers (N', B)."""
    return actions.gather(1, index[None, :, :, None].expand(len(actions), -1, -1, actions.shape[-1]))


def lowest(values: Tensor, draws: Draws) -> Tensor:
    """The lower one of two values (E, N, B) picked at random, perhaps twice the same; (N, B).

    Of two values or fewer it is the lowest.

    Paper: Chen et al. 2021, "Randomized Ensembled Double Q-Learning", arXiv:2101.05982.
    """
    if len(values) <= 2:
        return values.amin(0)
    picked = draws.integers(2, below=len(values), num_batch=values.shape[-1], device=values.device)  # (2, B)
    return values.gather(0, picked[:, None].expand(-1, *values.shape[1:])).amin(0)
