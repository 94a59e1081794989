"""VQ-BeT: imitates people who do the same thing in different ways, by choosing among learned codes.

Paper: Lee et al. 2024, "Behavior Generation with Latent Actions".

    phase 1, n_vqvae_training_steps:   loss = L1 of rebuilt chunks + 5 * distance to the codebooks
    phase 2:                           loss = focal loss of the codes + offset_loss_weight * L1 of the actions

Shapes: B batch, O observations, W chunks of an item, c actions of a chunk, A action size, G layers of codes,
K entries of a codebook.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.types import FeatureType
from lerobot.nn.draws import Draws
from lerobot.nn.imagenet import load_imagenet_weights
from lerobot.nn.loss import Part, Reduction, add_up, at_least_one
from lerobot.policies.items import ITEMS, num_items
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.vqbet.config import VQBeTConfig
from lerobot.policies.vqbet.model import VQVAE, VQBeT

logger = logging.getLogger(__name__)

COMMITMENT_WEIGHT = 5.0
TO_LOOK_AT = 0.0  # scale of what is a mean over the batch and no part of the loss
PARTS = (
    *("recon_l1_error", "commitment_loss"),
    *("classification_loss", "offset_loss"),
    *("equal_primary_code_rate", "equal_secondary_code_rate"),
    *("vq_action_error", "offset_action_error", "action_mse_error"),
)
VQVAE_STEPS = "vqvae_steps"  # in a checkpoint's progress


class VQBeTPolicy(PreTrainedPolicy):
    """Vector-quantised behaviour transformer."""

    config_class = VQBeTConfig
    name = "vqbet"
    has_initial_weights = True
    looks_back = True
    batch_facts = ("n_different_codes", "n_different_combinations", "action_error_max")
    config: VQBeTConfig

    def __init__(self, config: VQBeTConfig, *, initial_weights: bool = True) -> None:
        """A new VQ-BeT; `initial_weights` loads the backbone's ImageNet weights that the config names."""
        super().__init__(config)
        self.vqbet = VQBeT(config)
        self._has_warned = False
        if initial_weights and config.image_features and config.pretrained_backbone_weights:
            load_imagenet_weights(
                self.vqbet.vision_backbone, config.vision_backbone, source=config.pretrained_backbone_weights
            )

    @property
    def vqvae(self) -> VQVAE:
        """Chunks of actions as codes and back."""
        return self.vqbet.action_head.vqvae_model

    # --- learning
    def forward(
        self,
        batch: dict[str, Tensor],
        *,
        reduction: Reduction = "mean",
        totals: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () of the phase under way, and numbers to look at; see `PreTrainedPolicy`.

        The batch holds `action` (B, W+c-1, A) and, for phase 2, the input features (B, O, ...), normalised.
        Actions that are padding count as the others do. In phase 1 a batch that comes without totals is a
        whole step and moves the codebooks at once; those with totals do so together, in `update`.

        Raises:
            FeatureMismatchError: a feature is missing, or has another number of steps.
        """
        chunks = self.vqbet.chunks(self.read(batch, keys.ACTION))  # (B, W, c, A)
        weight, is_first_phase = batch.get(keys.LOSS_WEIGHT), not self.vqvae.is_discretized
        parts, facts = self._rebuild(chunks, weight) if is_first_phase else self._imitate(batch, chunks)
        loss, info = add_up(parts, reduction=reduction, weight=weight, totals=totals)
        if totals is not None:
            share = num_items(batch) / at_least_one(totals[ITEMS])
            facts = {name: value * share for name, value in facts.items()}
        elif is_first_phase and not torch.compiler.is_compiling():
            self.update()
        return loss, info | facts

    def _rebuild(self, chunks: Tensor, weight: Tensor | None) -> tuple[dict[str, Part], dict[str, Tensor]]:
        """Phase 1: parts of the loss, and facts about the codes of these chunks (B, W, c, A)."""
        num_batch, num_chunks = chunks.shape[:2]
        flat = chunks.flatten(2).flatten(0, 1)  # (B*W, c*A)
        of_chunk = None if weight is None else weight.repeat_interleave(num_chunks)  # (B*W,)
        rebuilt, quantised = self.vqvae(flat, weight=of_chunk)
        parts = {"recon_l1_error": Part(of_items((flat - rebuilt).abs(), num_batch))}
        if self.training:
            misses = of_items(quantised.misses, num_batch)
            parts["commitment_loss"] = Part(misses, scale=COMMITMENT_WEIGHT)
        return parts, variety(quantised.codes, self.config.vqvae_n_embed)

    def _imitate(self, batch: dict[str, Tensor], chunks: Tensor) -> tuple[dict[str, Part], dict[str, Tensor]]:
        """Phase 2: parts of the loss, and the largest error; chunks (B, W, c, A) are what to predict."""
        config, num_batch = self.config, len(chunks)
        labels = self.vqvae.encode(chunks.flatten(2))  # (B, W, G)
        chosen = self.vqbet.action_head(self._features(batch), Draws())
        log_share = chosen.logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]  # (B, W, G)
        focal = -(1 - log_share.exp()).square() * log_share  # (B, W, G)
        weights = (config.primary_code_loss_weight, config.secondary_code_loss_weight)
        classification = weights[0] * focal[..., 0] + weights[1] * focal[..., 1]  # (B, W)
        error, of_codes = (chunks - chosen.actions).abs(), (chunks - chosen.rough).abs()  # (B, W, c, A)
        means = {"equal_primary_code_rate": (labels == chosen.codes)[..., 0].float()}  # (B, W)
        means["equal_secondary_code_rate"] = (labels == chosen.codes)[..., 1].float()
        means |= {"vq_action_error": of_codes, "offset_action_error": error.detach()}
        means["action_mse_error"] = error.detach().square()
        parts = {
            "classification_loss": Part(of_items(classification, num_batch)),
            "offset_loss": Part(of_items(error, num_batch), scale=config.offset_loss_weight),
        }
        parts |= {name: Part(of_items(value, num_batch), scale=TO_LOOK_AT) for name, value in means.items()}
        return parts, {"action_error_max": error.detach().max()}

    def loss_totals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Items: every part of the loss is a mean over them."""
        return dict.fromkeys((*PARTS, ITEMS), num_items(batch))

    @torch.no_grad()
    def update(self) -> None:
        """Move the codebooks by what the step's batches showed them, of all processes; ends phase 1."""
        self.vqvae.advance(self.sum_over_processes)

    def progress(self) -> dict[str, Any]:
        """How far phase 1 is, which files have no place for."""
        return {VQVAE_STEPS: self.vqvae.num_steps}

    def resume(self, progress: Mapping[str, Any], *, step: int) -> None:
        """Go on with phase 1 where it was; other releases' checkpoints only tell the step."""
        self.vqvae.num_steps = int(progress.get(VQVAE_STEPS, step))

    # --- acting
    def plan(self, batch: dict[str, Tensor], *, draws: Draws | None = None, **how: Any) -> Tensor:
        """The chunk (B, c, A) of normalised actions from now on, for observations (B, O, ...)."""
        if not self.vqvae.is_discretized and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "This VQ-BeT has not learned its codes yet (phase 1 takes %d steps): what it does means "
                "nothing.",
                self.config.n_vqvae_training_steps,
            )
        chosen = self.vqbet.action_head(self._features(batch), draws or Draws())
        return chosen.actions[:, self.config.n_obs_steps - 1]  # (B, c, A)

    def _features(self, batch: dict[str, Tensor]) -> Tensor:
        kind = FeatureType.VISUAL if self.config.image_features else FeatureType.ENV
        eye = next(name for name, feature in self.config.input_features.items() if feature.type is kind)
        return self.vqbet(self.read(batch, eye), self.read(batch, keys.STATE))  # (B, W, F)

    # --- what training asks
    def get_optim_params(self) -> list[dict[str, Any]]:
        """Three groups: matrices and what reads and writes around the GPT; the VQ-VAE; the GPT's vectors."""
        model, head, config = self.vqbet, self.vqbet.action_head, self.config
        gpt = sorted(model.policy.named_parameters())
        is_matrix = {
            name: name.endswith("weight") and "ln_" not in name and "wpe" not in name for name, _ in gpt
        }
        around: list[nn.Module] = []
        if config.image_features:
            around += [model.rgb_encoder, model.state_projector, model.rgb_feature_projector]
        else:
            around += [model.env_state_projector, model.state_projector]
        heads = [module for name, module in head.named_children() if name.startswith("map_to_cbet_preds")]
        heads.sort(key=lambda module: module is not head.map_to_cbet_preds_offset)  # published order
        groups: list[dict[str, Any]] = [
            {
                "params": [
                    *(p for name, p in gpt if is_matrix[name]),
                    *(p for module in around for p in module.parameters()),
                    model.action_token,
                    *(p for module in heads for p in module.parameters()),
                ]
            },
            {
                "params": list(self.vqvae.parameters()),
                "weight_decay": config.optimizer_vqvae_weight_decay,
                "lr": config.optimizer_vqvae_lr,
            },
            {"params": [p for name, p in gpt if not is_matrix[name]], "weight_decay": 0.0},
        ]
        return [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]

    @property
    def shard_units(self) -> list[nn.Module]:
        """The GPT's layers; the rest stays whole."""
        return list(self.vqbet.policy.blocks)


def of_items(values: Tensor, num_batch: int) -> Tensor:
    """The mean (B,) of each item's values, (B, ...) or (B*W, ...)."""
    return values.reshape(num_batch, -1).mean(1)


@torch.no_grad()
def variety(codes: Tensor, num_codes: int) -> dict[str, Tensor]:
    """How many different codes (N, G) there are, added over layers, and how many tuples; () each."""
    num_layers = codes.shape[1]
    of_layer = codes.new_zeros(num_layers, num_codes).scatter_(1, codes.t(), 1)  # (G, K)
    together = (codes * num_codes ** torch.arange(num_layers, device=codes.device)).sum(-1)  # (N,)
    of_all = codes.new_zeros(num_codes**num_layers).scatter_(0, together, 1)  # (K^G,)
    return {"n_different_codes": of_layer.sum(), "n_different_combinations": of_all.sum()}
