"""Settings of ACT.

Paper: Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware".
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from lerobot.core import keys
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.checks import check_backbone, check_least
from lerobot.policies.config import PreTrainedConfig, normalization

if TYPE_CHECKING:
    from lerobot.optim.optimizers import AdamWConfig


@PreTrainedConfig.register_subclass("act")
@dataclass(kw_only=True)
class ACTConfig(PreTrainedConfig):
    """ACT: a transformer that plans a chunk of actions at once, trained as a conditional VAE."""

    chunk_size: int = 100  # actions predicted at once
    n_action_steps: int = 100  # actions of a chunk that are executed before the next look; at most chunk_size
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: normalization("MEAN_STD", "MEAN_STD", "MEAN_STD")
    )  # how each kind of feature is scaled
    vision_backbone: str = "resnet18"  # resnet10 (ours, small), resnet18, 34, 50, 101 or 152
    pretrained_backbone_weights: str | None = (
        "ResNet18_Weights.IMAGENET1K_V1"  # name, file, or null: train from zero
    )
    replace_final_stride_with_dilation: bool = False  # finer last feature map; resnet50 and deeper only
    pre_norm: bool = False  # norms before instead of after each residual sum
    dim_model: int = 512  # width of the transformer
    n_heads: int = 8  # attention heads
    dim_feedforward: int = 3200  # hidden width of the feed-forward nets
    feedforward_activation: Literal["relu", "gelu"] = "relu"  # relu or gelu
    n_encoder_layers: int = 4  # layers that read the observation
    n_decoder_layers: int = 1  # layers that write the actions; the paper's code ran one of its seven
    use_vae: bool = True  # learn a style variable from the demonstrated actions
    latent_dim: int = 32  # size of the style variable
    n_vae_encoder_layers: int = 4  # layers that read the demonstrated actions
    temporal_ensemble_coeff: float | None = (
        None  # 0.01 in the paper; averages overlapping chunks, n_action_steps=1
    )
    dropout: float = 0.1  # dropout of the transformer
    kl_weight: float = 10.0  # weight of the KL term in the loss
    optimizer_lr: float = 1e-5  # learning rate
    optimizer_weight_decay: float = 1e-4  # weight decay
    optimizer_lr_backbone: float = 1e-5  # learning rate of the vision backbone

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: a combination that cannot work; the message names the flags.
        """
        super().__post_init__()
        sizes = ("chunk_size", "n_action_steps", "dim_model", "n_heads", "dim_feedforward", "latent_dim")
        check_least(self, sizes)
        if self.n_obs_steps != 1:
            raise ConfigError(f"ACT looks at one observation; n_obs_steps={self.n_obs_steps} must be 1.")
        check_backbone(self)
        if self.feedforward_activation not in ("relu", "gelu"):
            raise ConfigError(
                f"feedforward_activation={self.feedforward_activation!r} must be relu or gelu"
                + (
                    ": a gated unit halves the width and the next layer would not fit it."
                    if "glu" in self.feedforward_activation
                    else "."
                )
            )
        if self.n_action_steps > self.chunk_size:
            raise ConfigError(
                f"n_action_steps={self.n_action_steps} is more than the chunk_size={self.chunk_size} actions "
                "that are "
                f"predicted. Type: --policy.n_action_steps={self.chunk_size}"
            )
        if self.temporal_ensemble_coeff is not None and self.n_action_steps > 1:
            raise ConfigError(
                "Temporal ensembling predicts at every step, so with temporal_ensemble_coeff="
                f"{self.temporal_ensemble_coeff} n_action_steps must be 1, not {self.n_action_steps}. "
                "Type: --policy.n_action_steps=1"
            )
        if self.dim_model % self.n_heads or self.dim_model % 4:
            raise ConfigError(
                f"dim_model={self.dim_model} must be a multiple of n_heads={self.n_heads} and of 4 "
                "(sines and cosines of two image axes)."
            )

    @property
    def action_delta_indices(self) -> list[int]:
        """The current action and those that follow."""
        return list(range(self.chunk_size))

    def get_optimizer_preset(self) -> "AdamWConfig":
        """AdamW; the backbone's learning rate is in `ACTPolicy.get_optim_params`."""
        from lerobot.optim.optimizers import AdamWConfig

        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def validate_features(self) -> None:
        """Check that there is something to look at and something to do.

        Raises:
            FeatureMismatchError: neither a camera nor an environment state, or no action.
        """
        if not self.image_features and self.env_state_feature is None:
            raise FeatureMismatchError(
                f"ACT needs a camera or {keys.ENV_STATE} among its inputs; given: "
                f"{', '.join(self.input_features) or 'nothing'}."
            )
        if self.action_feature is None:
            raise FeatureMismatchError(
                f"ACT writes {keys.ACTION!r}, but its outputs are: "
                f"{', '.join(self.output_features) or 'none'}. "
                "Train on a dataset that has actions."
            )

    @classmethod
    def tiny(cls) -> Self:
        """An ACT that trains on a CPU in seconds."""
        return cls(
            input_features={
                keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
                keys.IMAGES_PREFIX + "top": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
            },
            output_features={keys.ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
            device="cpu",
            chunk_size=4,
            n_action_steps=2,
            vision_backbone="resnet10",
            pretrained_backbone_weights=None,
            dim_model=16,
            n_heads=2,
            dim_feedforward=16,
            n_encoder_layers=1,
            n_vae_encoder_layers=1,
            latent_dim=4,
            dropout=0.0,
            optimizer_lr=1e-3,
            optimizer_lr_backbone=1e-3,
        )
