"""Settings of Diffusion Policy.

Paper: Chi et al. 2023, "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", arXiv:2303.04137.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from lerobot.core import keys
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.checks import check_backbone, check_least, check_size
from lerobot.policies.config import PreTrainedConfig, normalization

if TYPE_CHECKING:
    from lerobot.optim.optimizers import AdamConfig
    from lerobot.optim.schedulers import DiffuserSchedulerConfig


@PreTrainedConfig.register_subclass("diffusion")
@dataclass(kw_only=True)
class DiffusionConfig(PreTrainedConfig):
    """Diffusion Policy: a U-Net that turns noise into a sequence of actions, step by step."""

    uses_ema: ClassVar[bool] = True

    n_obs_steps: int = 2  # observations the policy looks at, the current one included
    horizon: int = 64  # steps of the trajectory that is denoised, from the oldest observation on
    n_action_steps: int = 32  # actions that are executed before the next look, as far as the horizon reaches
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: normalization("MEAN_STD", "MIN_MAX", "MIN_MAX")
    )  # how each kind of feature is scaled
    drop_n_last_frames: int = 7  # frames at the end of each episode that are not trained on
    vision_backbone: str = "resnet18"  # resnet10 (ours, small), resnet18, 34, 50, 101 or 152
    resize_shape: tuple[int, int] | None = None  # height and width that images are brought to first
    crop_ratio: float = 1.0  # part of resize_shape's sides that is looked at; sets crop_shape
    crop_shape: tuple[int, int] | None = None  # height and width of the part of an image that is looked at
    crop_is_random: bool = True  # random crops while training; otherwise always the centre
    pretrained_backbone_weights: str | None = (
        "ResNet18_Weights.IMAGENET1K_V1"  # name, file, or null: train from zero
    )
    use_group_norm: bool = False  # group instead of batch norm in the backbone; only without weights for it
    spatial_softmax_num_keypoints: int = 32  # keypoints per camera
    use_separate_rgb_encoder_per_camera: bool = True  # an encoder for each camera instead of one for all
    down_dims: tuple[int, ...] = (
        512,
        1024,
        2048,
    )  # widths of the U-Net's stages; all but the last halve time
    kernel_size: int = 5  # of the U-Net's convolutions over time, odd
    n_groups: int = 8  # groups of the U-Net's group norms
    diffusion_step_embed_dim: int = 128  # width of the code of a denoising step, even
    use_film_scale_modulation: bool = True  # the condition scales channels, besides shifting them
    gradient_checkpointing: bool = False  # recompute the U-Net's activations: less memory, more time
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"  # DDPM draws noise at each step, DDIM at the first
    num_train_timesteps: int = 100  # noise levels of the forward process
    beta_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"  # of noise
    beta_start: float = 0.0001  # of the linear ones: variance of the noise added first
    beta_end: float = 0.02  # of the linear ones: variance of the noise added last
    prediction_type: Literal["epsilon", "sample"] = (
        "epsilon"  # what the U-Net predicts: noise, or clean actions
    )
    clip_sample: bool = True  # clip the clean actions that each step assumes
    clip_sample_range: float = 1.0  # to this size
    num_inference_steps: int | None = None  # denoising steps when acting; null is num_train_timesteps
    compile_model: bool = False  # run the U-Net as code compiled for this machine
    compile_mode: str = "reduce-overhead"  # of torch.compile
    do_mask_loss_for_padding: bool = False  # leave the copies beyond an episode's end out of the loss
    optimizer_lr: float = 1e-4  # learning rate
    optimizer_betas: tuple[float, float] = (0.95, 0.999)  # Adam's decay of gradients and of their squares
    optimizer_eps: float = 1e-8  # Adam's epsilon
    optimizer_weight_decay: float = 1e-6  # weight decay
    scheduler_name: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = "cosine"  # how the learning rate falls
    scheduler_warmup_steps: int = 500  # steps over which it rises from 0

    def __post_init__(self) -> None:
        """Check the fields; with `resize_shape`, `crop_shape` follows from `crop_ratio`.

        Raises:
            ConfigError: a combination that cannot work; the message names the flags.
        """
        super().__post_init__()
        self._check_numbers()
        self._check_images()
        self._check_unet()
        if self.resize_shape is not None:
            height, width = self.resize_shape
            crop = (int(height * self.crop_ratio), int(width * self.crop_ratio))
            self.crop_shape = crop if self.crop_ratio < 1 else None

    def _check_numbers(self) -> None:
        names = ("n_obs_steps", "horizon", "n_action_steps", "num_train_timesteps", "n_groups")
        check_least(self, [*names, "spatial_softmax_num_keypoints"])
        check_least(self, ["drop_n_last_frames"], least=0)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be {' or '.join(known)}.")
        if self.n_obs_steps > self.horizon:
            raise ConfigError(
                f"A trajectory of horizon={self.horizon} steps begins at the oldest of n_obs_steps="
                f"{self.n_obs_steps} observations and does not reach the current one. Type: "
                f"--policy.n_obs_steps={min(2, self.horizon)}"
            )
        steps = self.num_inference_steps
        if steps is not None and not 1 <= steps <= self.num_train_timesteps:
            raise ConfigError(
                f"num_inference_steps={steps} must be between 1 and "
                f"num_train_timesteps={self.num_train_timesteps}."
            )

    def _check_images(self) -> None:
        check_backbone(self)
        for name in ("resize_shape", "crop_shape"):
            check_size(self, name)
        if not 0 < self.crop_ratio <= 1:
            raise ConfigError(f"crop_ratio={self.crop_ratio} must be more than 0 and at most 1.")
        if self.resize_shape is not None and min(self.resize_shape) * self.crop_ratio < 1:
            raise ConfigError(f"crop_ratio={self.crop_ratio} leaves nothing of {list(self.resize_shape)}.")

    def _check_unet(self) -> None:
        if not self.down_dims or min(self.down_dims) < 1:
            raise ConfigError(f"down_dims={list(self.down_dims)} must be one or more positive widths.")
        factor = 2 ** len(self.down_dims)
        if self.horizon % factor:
            raise ConfigError(
                f"horizon={self.horizon} must be a multiple of {factor}: each of the {len(self.down_dims)} "
                f"stages of down_dims={list(self.down_dims)} counts for a halving. Type: --policy.horizon="
                f"{-(-self.horizon // factor) * factor}"
            )
        misfit = next((width for width in self.down_dims if width % self.n_groups), None)
        if misfit is not None or self.down_dims[0] % 8:
            raise ConfigError(
                f"down_dims={list(self.down_dims)} must be multiples of n_groups={self.n_groups}, the groups "
                f"of their norms, and the first one of 8; {misfit or self.down_dims[0]} is not."
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ConfigError(
                f"kernel_size={self.kernel_size} must be odd, or sequences change their length."
            )
        if self.diffusion_step_embed_dim < 4 or self.diffusion_step_embed_dim % 2:
            raise ConfigError(
                f"diffusion_step_embed_dim={self.diffusion_step_embed_dim} must be even (sines and cosines) "
                "and at least 4."
            )

    @classmethod
    def older_defaults(cls, tree: dict[str, Any], *, release: tuple[int, ...]) -> dict[str, Any]:
        """Defaults that changed in 0.6, and the crop of the first releases."""
        if release >= (0, 6):
            return {}
        return {
            "horizon": 16,
            "n_action_steps": 8,
            "pretrained_backbone_weights": None,
            "use_group_norm": True,
            "use_separate_rgb_encoder_per_camera": False,
            # 0.4.4 brought resizing, and no crop by default with it
            "crop_shape": None if "resize_shape" in tree or "crop_ratio" in tree else (84, 84),
        }

    @property
    def num_planned(self) -> int:
        """How many actions from the current step on a trajectory holds."""
        return self.horizon - self.n_obs_steps + 1

    @property
    def observation_delta_indices(self) -> list[int]:
        """The current observation and those before it."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """A trajectory that begins at the oldest observation."""
        return list(range(1 - self.n_obs_steps, 1 - self.n_obs_steps + self.horizon))

    def get_optimizer_preset(self) -> "AdamConfig":
        """Adam."""
        from lerobot.optim.optimizers import AdamConfig

        return AdamConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> "DiffuserSchedulerConfig":
        """Half a cosine after a warm-up."""
        from lerobot.optim.schedulers import DiffuserSchedulerConfig

        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)

    def validate_features(self) -> None:
        """Check that there is something to look at and something to do, and that crops fit into images.

        Raises:
            FeatureMismatchError: no state, neither a camera nor an environment state, no action, cameras that
                differ in size, or a crop larger than they are.
        """
        given = ", ".join(self.input_features) or "nothing"
        if self.robot_state_feature is None:
            raise FeatureMismatchError(f"Diffusion needs {keys.STATE} among its inputs; given: {given}.")
        if not self.image_features and self.env_state_feature is None:
            raise FeatureMismatchError(
                f"Diffusion needs a camera or {keys.ENV_STATE} among its inputs; given: {given}."
            )
        if self.action_feature is None:
            raise FeatureMismatchError(
                f"Diffusion writes {keys.ACTION!r}, but its outputs are: "
                f"{', '.join(self.output_features) or 'none'}. Train on a dataset that has actions."
            )
        shapes = {name: tuple(feature.shape) for name, feature in self.image_features.items()}
        if len(set(shapes.values())) > 1:
            raise FeatureMismatchError(
                "Diffusion needs cameras of one size; given: "
                f"{', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}. Record or convert "
                "them to one size, or choose a camera with --policy.input_features."
            )
        for name, (_, height, width) in shapes.items():
            crop = self.crop_shape if self.resize_shape is None else None
            if crop is not None and (crop[0] > height or crop[1] > width):
                raise FeatureMismatchError(
                    f"crop_shape={list(crop)} is larger than {name} with {height} x {width} pixels. Give a "
                    "smaller one, or none: --policy.crop_shape=null"
                )

    @classmethod
    def tiny(cls) -> Self:
        """A Diffusion Policy that trains on a CPU in seconds."""
        return cls(
            input_features={
                keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
                keys.IMAGES_PREFIX + "top": PolicyFeature(FeatureType.VISUAL, (3, 40, 40)),
            },
            output_features={keys.ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
            device="cpu",
            horizon=8,
            n_action_steps=4,
            drop_n_last_frames=0,
            vision_backbone="resnet10",
            crop_shape=(36, 36),
            pretrained_backbone_weights=None,
            use_group_norm=True,
            use_separate_rgb_encoder_per_camera=False,
            spatial_softmax_num_keypoints=4,
            down_dims=(16, 32),
            kernel_size=3,
            n_groups=4,
            diffusion_step_embed_dim=8,
            num_train_timesteps=10,
            optimizer_lr=1e-3,
            scheduler_warmup_steps=0,
        )


CHOICES = {
    "noise_scheduler_type": ("DDPM", "DDIM"),
    "prediction_type": ("epsilon", "sample"),
    "beta_schedule": ("squaredcos_cap_v2", "linear", "scaled_linear"),
}
