"""Settings of VQ-BeT.

Paper: Lee et al. 2024, "Behavior Generation with Latent Actions".
"""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from lerobot.core import keys
from lerobot.core.config import encode
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.checks import check_backbone, check_least, check_size
from lerobot.policies.config import PreTrainedConfig, normalization

if TYPE_CHECKING:
    from lerobot.optim.optimizers import AdamConfig
    from lerobot.optim.schedulers import VQBeTSchedulerConfig

TOKENS_PER_LOOK = 3  # what is seen, the state, a question
POSITIVE = (
    "n_obs_steps",
    "n_action_pred_token",
    "action_chunk_size",
    "spatial_softmax_num_keypoints",
    "vqvae_n_embed",
    "vqvae_embedding_dim",
    "vqvae_enc_hidden_dim",
    "gpt_block_size",
    "gpt_input_dim",
    "gpt_output_dim",
    "gpt_n_layer",
    "gpt_n_head",
    "gpt_hidden_dim",
)


@PreTrainedConfig.register_subclass("vqbet")
@dataclass(kw_only=True)
class VQBeTConfig(PreTrainedConfig):
    """VQ-BeT: a GPT that chooses codes of a residual VQ-VAE for the next actions, and corrects them."""

    n_obs_steps: int = 5  # observations the policy looks at, the current one included
    n_action_pred_token: int = 3  # chunks predicted from now on, each one step later than the one before
    action_chunk_size: int = 5  # actions of a chunk; all are executed before the next look
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: normalization("IDENTITY", "MIN_MAX", "MIN_MAX")
    )  # how each kind of feature is scaled
    vision_backbone: str = "resnet18"  # resnet10 (ours, small), resnet18, 34, 50, 101 or 152
    crop_shape: tuple[int, int] | None = (84, 84)  # height, width of the part that is seen; null: all
    crop_is_random: bool = True  # crop at random places while training; the centre otherwise
    pretrained_backbone_weights: str | None = (
        "ResNet18_Weights.IMAGENET1K_V1"  # name, file, or null: train from zero
    )
    use_group_norm: bool = False  # group norm instead of batch norm in the backbone; from zero only
    spatial_softmax_num_keypoints: int = 32  # keypoints that an image becomes
    n_vqvae_training_steps: int = 20000  # steps of the first phase, which learns the codes; 0 leaves it out
    vqvae_n_embed: int = 16  # entries of each of the two codebooks
    vqvae_embedding_dim: int = 256  # width of a codebook's vectors
    vqvae_enc_hidden_dim: int = 128  # hidden width of the VQ-VAE
    gpt_block_size: int = 500  # positions there are for tokens
    gpt_input_dim: int = 512  # width of the tokens
    gpt_output_dim: int = 512  # width of what the heads read
    gpt_n_layer: int = 8  # layers of the GPT
    gpt_n_head: int = 8  # attention heads
    gpt_hidden_dim: int = 512  # width of the GPT
    dropout: float = 0.1  # dropout of the GPT
    offset_loss_weight: float = 10000.0  # weight of the corrected actions' error
    primary_code_loss_weight: float = 5.0  # weight of the first code's loss
    secondary_code_loss_weight: float = 0.5  # weight of the second code's loss
    bet_softmax_temperature: float = 0.1  # of the distribution that codes are drawn from; 0.1 is sharp
    sequentially_select: bool = False  # choose the second code knowing the first one
    optimizer_lr: float = 1e-4  # learning rate
    optimizer_betas: tuple[float, float] = (0.95, 0.999)  # decay of Adam's averages
    optimizer_eps: float = 1e-8  # added to Adam's denominator
    optimizer_weight_decay: float = 1e-6  # weight decay
    optimizer_vqvae_lr: float = 1e-3  # learning rate of the VQ-VAE
    optimizer_vqvae_weight_decay: float = 1e-4  # weight decay of the VQ-VAE
    scheduler_warmup_steps: int = 500  # steps over which the learning rate rises after the first phase

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: a combination that cannot work; the message names the flags.
        """
        super().__post_init__()
        check_least(self, POSITIVE)
        check_least(self, ["n_vqvae_training_steps"], least=0)
        if self.bet_softmax_temperature <= 0:
            raise ConfigError(
                f"--policy.bet_softmax_temperature={self.bet_softmax_temperature}: expected more than 0."
            )
        check_backbone(self)
        check_size(self, "crop_shape")
        if self.gpt_hidden_dim % self.gpt_n_head:
            raise ConfigError(
                f"gpt_hidden_dim={self.gpt_hidden_dim} must be a multiple of gpt_n_head={self.gpt_n_head}."
            )
        if self.num_tokens > self.gpt_block_size:
            raise ConfigError(
                f"{self.n_obs_steps} observations and {self.n_action_pred_token} predictions are "
                f"{self.num_tokens} tokens, more than the GPT has positions for. "
                f"Type: --policy.gpt_block_size={self.num_tokens}"
            )

    @classmethod
    def older_defaults(cls, tree: dict[str, Any], *, release: tuple[int, ...]) -> dict[str, Any]:
        """The backbone began from zero, with group norm, before 0.6."""
        return {} if release >= (0, 6) else {"pretrained_backbone_weights": None, "use_group_norm": True}

    # --- what follows from the fields
    @property
    def n_action_steps(self) -> int:
        """Actions that are executed before the next look: the whole chunk."""
        return self.action_chunk_size

    @property
    def num_chunks(self) -> int:
        """Chunks that one training item has: one for each observation and each later prediction."""
        return self.n_obs_steps + self.n_action_pred_token - 1

    @property
    def num_tokens(self) -> int:
        """Tokens that the GPT reads."""
        return TOKENS_PER_LOOK * self.n_obs_steps + self.n_action_pred_token - 1

    @property
    def observation_delta_indices(self) -> list[int]:
        """The current observation and those before it."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """From the first observation's action to the last chunk's end."""
        return list(range(1 - self.n_obs_steps, self.n_action_pred_token + self.action_chunk_size - 1))

    def get_optimizer_preset(self) -> "AdamConfig":
        """Adam; the VQ-VAE's own rates are in `VQBeTPolicy.get_optim_params`."""
        from lerobot.optim.optimizers import AdamConfig

        return AdamConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> "VQBeTSchedulerConfig":
        """Constant in the first phase, then warm-up and cosine."""
        from lerobot.optim.schedulers import VQBeTSchedulerConfig

        return VQBeTSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_vqvae_training_steps=self.n_vqvae_training_steps,
        )

    def doubt_about(self, *, steps: int) -> str | None:
        """A run that ends in its first phase learns codes, and never which of them to choose."""
        if steps > self.n_vqvae_training_steps:
            return None
        return (
            f"All {steps} steps of this run are of VQ-BeT's first phase, which learns codes for actions: "
            "afterwards it still acts at random. Train longer, or type: "
            f"--policy.n_vqvae_training_steps={max(1, steps // 4)}"
        )

    def validate_features(self) -> None:
        """Check that there is one camera, or else an environment state, beside the robot's state.

        Raises:
            FeatureMismatchError: the inputs are others, the crop does not fit, or there is no action.
        """
        cameras, env, state = self.image_features, self.env_state_feature, self.robot_state_feature
        has_eye = len(cameras) == 1 or (not cameras and env is not None)
        if not has_eye or state is None or len(self.input_features) != 2:
            raise FeatureMismatchError(
                f"VQ-BeT looks at two features: one camera (or, instead of it, {keys.ENV_STATE}) and "
                f"{keys.STATE}. Given: {', '.join(self.input_features) or 'nothing'}.{self._fitting_flag()}"
            )
        for name, feature in cameras.items():
            size = feature.shape[1:]
            if self.crop_shape is not None and any(c > s for c, s in zip(self.crop_shape, size, strict=True)):
                raise FeatureMismatchError(
                    f"A crop of {self.crop_shape[0]} x {self.crop_shape[1]} does not fit into the images of "
                    f"{name}, {size[0]} x {size[1]}. Type: --policy.crop_shape='[{size[0]}, {size[1]}]' or "
                    "smaller, or --policy.crop_shape=null"
                )
        if self.action_feature is None:
            raise FeatureMismatchError(
                f"VQ-BeT writes {keys.ACTION!r}, but its outputs are: "
                f"{', '.join(self.output_features) or 'none'}. Train on a dataset that has actions."
            )

    def _fitting_flag(self) -> str:
        """What to type to leave out what is too much; empty where something is missing."""
        others = {name: f for name, f in self.input_features.items() if f.type is FeatureType.ENV}
        eyes = list((self.image_features or others).items())
        if not eyes or self.robot_state_feature is None:
            return ""
        chosen = dict([eyes[0], (keys.STATE, self.robot_state_feature)])
        return f" Type, for example: --policy.input_features='{json.dumps(encode(chosen))}'"

    @classmethod
    def tiny(cls) -> Self:
        """A VQ-BeT that trains on a CPU in seconds; its codes stay as they come, so that its GPT learns."""
        return cls(
            input_features={
                keys.IMAGE: PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
                keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
            },
            output_features={keys.ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
            device="cpu",
            n_obs_steps=2,
            n_action_pred_token=2,
            action_chunk_size=2,
            vision_backbone="resnet10",
            crop_shape=(28, 28),
            pretrained_backbone_weights=None,
            use_group_norm=True,
            spatial_softmax_num_keypoints=4,
            n_vqvae_training_steps=0,
            vqvae_n_embed=4,
            vqvae_embedding_dim=8,
            vqvae_enc_hidden_dim=16,
            gpt_block_size=8,
            gpt_input_dim=16,
            gpt_output_dim=16,
            gpt_n_layer=2,
            gpt_n_head=2,
            gpt_hidden_dim=16,
            dropout=0.0,
            optimizer_lr=1e-3,
        )
