"""Diffusion Policy: imitates demonstrations by turning noise into actions, step by step.

Paper: Chi et al. 2023, "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", arXiv:2303.04137.

    training:  actions + noise of a random level -> U-Net -> the noise; loss = mean squared error
    acting:    noise -> denoised n times under what is seen -> trajectory -> its next actions

Shapes: B batch, O observation steps, T horizon, A action size, n denoising steps.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.errors import FeatureMismatchError
from lerobot.nn.draws import Draws
from lerobot.nn.imagenet import load_imagenet_weights
from lerobot.nn.loss import Part, Reduction, add_up, count
from lerobot.policies.diffusion.config import DiffusionConfig
from lerobot.policies.diffusion.model import DiffusionModel
from lerobot.policies.policy import PreTrainedPolicy


class DiffusionPolicy(PreTrainedPolicy):
    """Actions by denoising."""

    config_class = DiffusionConfig
    name = "diffusion"
    has_initial_weights = True
    has_static_graph = True
    looks_back = True
    adapter_targets = r".*\.unet\..*(cond_encoder\.1|block\.0|residual_conv)"
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig, *, initial_weights: bool = True) -> None:
        """A new policy; `initial_weights` loads the backbones' ImageNet weights that the config names."""
        super().__init__(config)
        self.diffusion = DiffusionModel(config)
        source = config.pretrained_backbone_weights
        if initial_weights and source:
            for encoder in self.diffusion.encoders:
                load_imagenet_weights(encoder.backbone, config.vision_backbone, source=source)
        if config.compile_model:
            self.diffusion.unet.compile(mode=config.compile_mode)

    def forward(
        self,
        batch: dict[str, Tensor],
        *,
        reduction: Reduction = "mean",
        totals: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and its only part, `mse_loss`; see `PreTrainedPolicy`.

        The batch holds the input features (B, O, ...) and `action` (B, T, A), normalised; with
        `do_mask_loss_for_padding` also `action_is_pad` (B, T).

        Raises:
            FeatureMismatchError: a feature is missing or has another shape.
        """
        actions = self.read(batch, keys.ACTION)
        if actions.dim() != 3 or actions.shape[1] != self.config.horizon:
            raise FeatureMismatchError(
                f"diffusion learns trajectories (batch, {self.config.horizon}, actions); {keys.ACTION!r} has "
                f"the shape {list(actions.shape)}. Read the dataset with the policy's action_delta_indices."
            )
        condition = self._condition(batch)  # (B, G)
        model, schedule = self.diffusion, self.diffusion.schedule
        noise = torch.randn(actions.shape, device=actions.device, dtype=actions.dtype)  # (B, T, A)
        levels = torch.randint(0, schedule.num_levels, (len(actions),), device=actions.device)  # (B,)
        said = model.predict(schedule.add(actions, noise, levels), levels=levels, condition=condition)
        errors = F.mse_loss(said, schedule.target(actions, noise), reduction="none")  # (B, T, A)
        parts = {"mse_loss": Part(errors, self._is_real(batch))}
        return add_up(parts, reduction=reduction, weight=batch.get(keys.LOSS_WEIGHT), totals=totals)

    def loss_totals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Actions that count, times their size."""
        actions, is_real = self.read(batch, keys.ACTION), self._is_real(batch)
        if is_real is None:
            is_real = torch.ones(actions.shape[:2], dtype=torch.bool, device=actions.device)
        return {"mse_loss": count(is_real, batch.get(keys.LOSS_WEIGHT)) * actions.shape[-1]}

    def plan(
        self,
        batch: dict[str, Tensor],
        *,
        draws: Draws | None = None,
        noise: Tensor | None = None,
        **how: Any,
    ) -> Tensor:
        """The next `n_action_steps` actions (B, n_action_steps, A), normalised, for observations (B, O, ...).

        Args:
            noise: (B, T, A) what the trajectory is made of; drawn if absent.
        """
        trajectory = self.diffusion.sample(self._condition(batch), draws=draws or Draws(), noise=noise)
        now = self.config.n_obs_steps - 1  # the trajectory begins at the oldest observation
        return trajectory[:, now : now + self.config.n_action_steps]

    @property
    def shard_units(self) -> list[nn.Module]:
        """The U-Net's blocks; the encoders stay whole."""
        return list(self.diffusion.unet.blocks)

    def _is_real(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Where (B, T) actions count; None everywhere."""
        if not self.config.do_mask_loss_for_padding:
            return None
        return ~self.read(batch, keys.ACTION + keys.PAD_SUFFIX)

    def _condition(self, batch: dict[str, Tensor]) -> Tensor:
        """What the observations say, (B, G).

        Raises:
            FeatureMismatchError: one is missing, or their number is not what the policy looks at.
        """
        state = self.read(batch, keys.STATE)  # (B, O, J)
        if state.dim() != 3 or state.shape[1] != self.config.n_obs_steps:
            raise FeatureMismatchError(
                f"diffusion looks at n_obs_steps={self.config.n_obs_steps} observations, (batch, "
                f"{self.config.n_obs_steps}, joints); {keys.STATE!r} has the shape {list(state.shape)}."
            )
        images = [self.read(batch, name) for name in self.config.image_features]
        env_state = None if self.config.env_state_feature is None else self.read(batch, keys.ENV_STATE)
        return self.diffusion.condition(images, state=state, env_state=env_state)
