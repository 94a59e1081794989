"""ACT: imitates demonstrations by planning a chunk of actions at once.

Paper: Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware".

    batch -> model -> chunk (B, T, A);  loss = L1 of the actions that are not padding + kl_weight * KL(style |
    N(0, 1))

Shapes: B batch, T actions of a chunk, A action size, L style size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.nn.draws import Draws
from lerobot.nn.imagenet import load_imagenet_weights
from lerobot.nn.loss import Part, Reduction, add_up, count
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.model import ACT
from lerobot.policies.chunk import TemporalEnsemble
from lerobot.policies.items import num_items
from lerobot.policies.memory import Memory
from lerobot.policies.policy import PreTrainedPolicy


class ACTPolicy(PreTrainedPolicy):
    """Action chunking with transformers."""

    config_class = ACTConfig
    name = "act"
    has_initial_weights = True
    has_static_graph = True
    config: ACTConfig

    def __init__(self, config: ACTConfig, *, initial_weights: bool = True) -> None:
        """A new ACT; `initial_weights` loads the backbone's ImageNet weights that the config names."""
        super().__init__(config)
        self.model = ACT(config)
        if initial_weights and config.image_features and config.pretrained_backbone_weights:
            load_imagenet_weights(
                self.model.backbone, config.vision_backbone, source=config.pretrained_backbone_weights
            )

    def forward(
        self,
        batch: dict[str, Tensor],
        *,
        reduction: Reduction = "mean",
        totals: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and its parts `l1_loss` and, when the VAE ran, `kld_loss`; see `PreTrainedPolicy`.

        The batch holds the input features, `action` (B, T, A) and `action_is_pad` (B, T), all normalised. The
        VAE runs in training mode only.

        Raises:
            FeatureMismatchError: a feature is missing.
        """
        actions, is_pad = self.read(batch, keys.ACTION), self.read(batch, keys.ACTION + keys.PAD_SUFFIX)
        mean = log_variance = style = None
        if self.config.use_vae and self.training:
            mean, log_variance = self.model.encode_style(actions, is_pad, self._state(batch))  # (B, L) each
            style = mean + (log_variance / 2).exp() * torch.randn_like(mean)  # (B, L)
        plan = self._plan(batch, style)  # (B, T, A)

        parts = {"l1_loss": Part(F.l1_loss(plan, actions, reduction="none"), ~is_pad)}  # (B, T, A)
        if mean is not None and log_variance is not None:
            kld = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)  # (B,)
            parts["kld_loss"] = Part(kld, scale=self.config.kl_weight)
        return add_up(parts, reduction=reduction, weight=batch.get(keys.LOSS_WEIGHT), totals=totals)

    def loss_totals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Actions that are no padding, times their size; and items, over which the divergence is a mean."""
        actions, is_pad = self.read(batch, keys.ACTION), self.read(batch, keys.ACTION + keys.PAD_SUFFIX)
        num_actions = count(~is_pad, batch.get(keys.LOSS_WEIGHT))
        return {"l1_loss": num_actions * actions.shape[-1], "kld_loss": num_items(batch)}

    def plan(self, batch: dict[str, Tensor], *, draws: Draws | None = None, **how: Any) -> Tensor:
        """The chunk (B, T, A) of actions for normalised observations; nothing is drawn."""
        return self._plan(batch, style=None)

    def act(self, batch: dict[str, Tensor], memories: Sequence[Memory], **how: Any) -> Tensor:
        """The actions (B, A) of now: the next ones of a chunk, or averages of all that were planned."""
        coeff = self.config.temporal_ensemble_coeff
        if coeff is None:
            return super().act(batch, memories, **how)
        actions = []
        for memory, chunk in zip(memories, self.decide(batch, memories, **how), strict=True):
            ensemble = memory.kept.setdefault("ensemble", TemporalEnsemble(coeff, self.config.chunk_size))
            actions.append(ensemble.update(chunk[None])[0])
        return torch.stack(actions)

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Two groups: everything else, and the backbone with its own learning rate."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        prefix = "model.backbone"
        return [
            {"params": [p for name, p in named if not name.startswith(prefix)]},
            {
                "params": [p for name, p in named if name.startswith(prefix)],
                "lr": self.config.optimizer_lr_backbone,
            },
        ]

    @property
    def shard_units(self) -> list[nn.Module]:
        """The transformer's layers; the backbone stays whole."""
        model = self.model
        style = list(model.vae_encoder.layers) if self.config.use_vae else []
        return [*style, *model.encoder.layers, *model.decoder.layers]

    def _plan(self, batch: dict[str, Tensor], style: Tensor | None) -> Tensor:
        images = [self.read(batch, name) for name in self.config.image_features]
        return self.model(images, state=self._state(batch), env_state=self._env_state(batch), style=style)

    def _state(self, batch: dict[str, Tensor]) -> Tensor | None:
        return None if self.config.robot_state_feature is None else self.read(batch, keys.STATE)

    def _env_state(self, batch: dict[str, Tensor]) -> Tensor | None:
        return None if self.config.env_state_feature is None else self.read(batch, keys.ENV_STATE)
