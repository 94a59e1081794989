"""TD-MPC: learns a model of the world from what happened, and plans in it at every step.

Papers: Hansen et al. 2022, "Temporal Difference Learning for Model Predictive Control", arXiv:2203.04955;
Feng et al. 2023, "Finetuning Offline World Models in the Real World", arXiv:2310.16029.

    batch -> imagined states, rewards, values against seen ones -> loss;   slow copy of the model -> targets
    observation -> latent state -> planner -> actions, between -1 and 1

Shapes: B batch, T horizon, A action size, D latent size, E size of the ensemble, C H W image.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.errors import FeatureMismatchError
from lerobot.core.types import FeatureType
from lerobot.nn.draws import Draws
from lerobot.nn.loss import Part, Reduction, add_up
from lerobot.nn.shift import randomly_shifted
from lerobot.policies.items import ITEMS, num_items
from lerobot.policies.memory import Memory, draws_of
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.tdmpc.config import TDMPCConfig
from lerobot.policies.tdmpc.model import Seen, WorldModel, slow_down
from lerobot.policies.tdmpc.planner import Planner, lowest

LONGEST_IMITATION = 100.0  # times that the best actions count more than others in the reflex's loss


class TDMPCPolicy(PreTrainedPolicy):
    """Temporal-difference learning and planning in one model."""

    config_class = TDMPCConfig
    name = "tdmpc"
    has_static_graph = True
    config: TDMPCConfig
    decay: Tensor  # (T, 1)

    def __init__(self, config: TDMPCConfig) -> None:
        """A new TD-MPC whose slow copy is equal to its model."""
        super().__init__(config)
        self.model = WorldModel(config)
        self.model_target = deepcopy(self.model).requires_grad_(False)
        decay = config.temporal_decay_coeff ** torch.arange(config.horizon)
        self.register_buffer("decay", decay[:, None], persistent=False)  # (T, 1)

    def forward(
        self,
        batch: dict[str, Tensor],
        *,
        reduction: Reduction = "mean",
        totals: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and its parts, sums over the horizon and means over items; see `PreTrainedPolicy`.

        The batch holds the observations (B, T+1, ...), `action` (B, T, A) and `next.reward` (B, T), and where
        each of them is padding. `Q`, `V` and `advantage` (B,) tell what the current state is thought to be
        worth.

        Raises:
            FeatureMismatchError: something is missing; rewards, for one, if the dataset has none.
        """
        if keys.REWARD not in batch:
            raise FeatureMismatchError(
                f"TD-MPC learns from rewards, and there is no {keys.REWARD!r} in this data. lerobot-collect "
                "records it; --policy.type=act learns from demonstrations without rewards."
            )
        cfg, draws = self.config, Draws()
        seen = self._seen(batch, is_sequence=True)
        actions = self.read(batch, keys.ACTION).transpose(0, 1)  # (T, B, A)
        rewards = self.read(batch, keys.REWARD).transpose(0, 1)  # (T, B)
        states = self._imagined(seen, actions)  # (T+1, B, D)
        here, there = states[:-1], seen.at(slice(1, None))
        imagined_rewards = self.model.reward(here, actions)  # (T, B), of all steps at once
        values, worth = self.model.action_values(here, actions), self.model.state_value(here)
        with torch.no_grad():
            reached = self.model_target.encode(there)  # (T, B, D)
            value_goals = rewards + cfg.discount * self.model.state_value(self.model.encode(there))  # (T, B)
            estimates = self.model_target.action_values(here, actions)  # (E, T, B)
            worth_goals = lowest(estimates, draws)  # (T, B)
            advantage = lowest(estimates, draws) - worth  # (T, B)
            imitation = torch.exp(cfg.advantage_scaling * advantage).clamp(max=LONGEST_IMITATION)
            optimism = torch.where(worth_goals > worth, cfg.expectile_weight, 1 - cfg.expectile_weight)
        reflexes = self.model.react(here.detach())  # (T, B, A)

        is_seen, is_done, is_paid = self._masks(batch)
        begun = self.decay * is_seen[:1] * is_done  # (T, B)
        steps = {  # what each step's losses are, (T, B), and where they count
            "consistency_loss": ((states[1:] - reached).square().mean(-1), begun * is_seen[1:]),
            "reward_loss": ((imagined_rewards - rewards).square(), begun * is_paid),
            "Q_value_loss": ((values - value_goals).square().sum(0), begun * is_paid * is_seen[1:]),
            "V_value_loss": (optimism * (worth_goals - worth).square(), begun),
            "pi_loss": (imitation * (reflexes - actions).square().sum(-1), begun / cfg.horizon),
        }
        scales = (cfg.consistency_coeff, cfg.reward_coeff, cfg.value_coeff, cfg.value_coeff, cfg.pi_coeff)
        parts = {
            name: Part((loss * counts).sum(0), scale=scale)  # (B,)
            for (name, (loss, counts)), scale in zip(steps.items(), scales, strict=True)
        }
        parts["Q"] = Part(values.detach().mean((0, 1)), scale=0.0)
        parts["V"] = Part(worth.detach().mean(0), scale=0.0)
        if totals is not None:
            totals = dict.fromkeys(parts, totals[ITEMS])
        loss, info = add_up(parts, reduction=reduction, weight=batch.get(keys.LOSS_WEIGHT), totals=totals)
        return loss, info | {"sum_loss": loss.detach() * cfg.horizon, "advantage": advantage[0]}

    def plan(
        self,
        batch: dict[str, Tensor],
        *,
        draws: Draws | None = None,
        last_mean: Tensor | None = None,
        **how: Any,
    ) -> Tensor:
        """A plan (B, T, A), of one step without planning, for normalised observations (B, ...).

        Args:
            last_mean: (T, B, A) what the plan of the step before was drawn around; zeros where there is none.
        """
        return self._plan(batch, draws or Draws(), last_mean)[0]

    def decide(self, batch: dict[str, Tensor], memories: Sequence[Memory], **how: Any) -> Tensor:
        """Plans (B, T, A) that begin from the last ones of these episodes."""
        means = [memory.kept.get("mean") for memory in memories]  # (T, A) each
        known = next((mean for mean in means if mean is not None), None)
        last_mean = None
        if known is not None:
            none = torch.zeros_like(known)
            last_mean = torch.stack([none if mean is None else mean for mean in means], dim=1)  # (T, B, A)
        actions, mean = self._plan(batch, draws_of(memories), last_mean)
        if mean is not None:
            for memory, own in zip(memories, mean.unbind(1), strict=True):
                memory.kept["mean"] = own
        return actions

    def _plan(
        self, batch: dict[str, Tensor], draws: Draws, last_mean: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Actions (B, T, A), and the mean (T, B, A) that the next plan begins from."""
        latent = self.model.encode(self._seen(batch))  # (B, D)
        if not self.config.use_mpc:
            return self.model.react(latent)[:, None], None  # (B, 1, A)
        plan = Planner(self.model, self.config)(latent, draws, last_mean=last_mean)
        return plan.actions.transpose(0, 1), plan.mean

    def carried_out(self, plan: Tensor) -> Tensor:
        """The first action as often as it is repeated, or the first few."""
        repeats = self.config.n_action_repeats
        return plan[:1].expand(repeats, -1) if repeats > 1 else super().carried_out(plan)

    def update(self) -> None:
        """Let the slow copy follow the model."""
        slow_down(self.model_target, self.model, momentum=self.config.target_model_momentum)

    def get_optim_params(self) -> list[nn.Parameter]:
        """What is trained; and, as published, the slow copy, which has no gradients and so never moves."""
        slow = {id(parameter) for parameter in self.model_target.parameters()}
        return [p for p in self.parameters() if p.requires_grad or id(p) in slow]

    def loss_totals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Items: every part of the loss is a mean over them."""
        return {ITEMS: num_items(batch)}

    def _imagined(self, seen: Seen, actions: Tensor) -> Tensor:
        """States (T+1, B, D) that come of actions (T, B, A) after what is seen first."""
        states = [self.model.encode(seen.at(0))]
        for action in actions:
            states.append(self.model.imagine(states[-1], action))
        return torch.stack(states)

    def _seen(self, batch: dict[str, Tensor], *, is_sequence: bool = False) -> Seen:
        """A batch's observations, (B, ...), or (T+1, B, ...) of sequences, whose pictures are shifted."""
        cfg = self.config
        names: tuple[str | None, ...] = (
            next(iter(cfg.image_features), None),
            keys.STATE if cfg.robot_state_feature is not None else None,
            next((name for name, f in cfg.input_features.items() if f.type is FeatureType.ENV), None),
        )
        found = Seen(*(None if name is None else self.read(batch, name) for name in names))
        if not is_sequence:
            return found
        found = Seen(*(None if value is None else value.transpose(0, 1) for value in found))
        if found.image is None or not cfg.max_random_shift_ratio:
            return found
        flat = found.image.flatten(0, 1)  # ((T+1)*B, C, H, W)
        flat = randomly_shifted(flat, reach=round(cfg.max_random_shift_ratio * flat.shape[-1]))
        return found._replace(image=flat.unflatten(0, found.image.shape[:2]))

    def _masks(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Where observations (T+1, B), actions (T, B) and rewards (T, B) are no padding."""
        names = [name + keys.PAD_SUFFIX for name in (keys.STATE, *self.config.input_features)]
        observed = next((name for name in names if name in batch), names[0])
        marks = (observed, keys.ACTION + keys.PAD_SUFFIX, keys.REWARD + keys.PAD_SUFFIX)
        seen, done, paid = (~self.read(batch, name).transpose(0, 1) for name in marks)
        return seen, done, paid
