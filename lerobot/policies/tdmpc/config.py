"""Settings of TD-MPC, in its variant for offline data (FOWM).

Papers: Hansen et al. 2022, "Temporal Difference Learning for Model Predictive Control", arXiv:2203.04955;
Feng et al. 2023, "Finetuning Offline World Models in the Real World", arXiv:2310.16029.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from lerobot.core import keys
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.checks import check_least
from lerobot.policies.config import PreTrainedConfig, normalization

if TYPE_CHECKING:
    from lerobot.optim.optimizers import AdamConfig

CONV_KERNELS = (7, 5, 3, 3)  # of the image encoder; every one has stride 2 and no padding
MODES = normalization("IDENTITY", "IDENTITY", "MIN_MAX") | {"ENV": NormalizationMode.IDENTITY}
AT_LEAST_ONE = (
    "n_action_repeats",
    "horizon",
    "n_action_steps",
    "image_encoder_hidden_dim",
    "state_encoder_hidden_dim",
    "latent_dim",
    "q_ensemble_size",
    "mlp_dim",
    "cem_iterations",
    "n_gaussian_samples",
    "n_elites",
)


@PreTrainedConfig.register_subclass("tdmpc")
@dataclass(kw_only=True)
class TDMPCConfig(PreTrainedConfig):
    """TD-MPC: learns what actions lead to and are worth, and plans with it; offline and online."""

    n_action_repeats: int = 2  # steps for which a planned action is held; then n_action_steps must be 1
    horizon: int = 5  # steps that are imagined ahead, in training and in planning
    n_action_steps: int = 1  # actions of a plan that are executed before the next; at most horizon
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind: MODES[kind] for kind in ("VISUAL", "STATE", "ENV", "ACTION")}
    )  # how each kind of feature is scaled; actions must be MIN_MAX: plans are made between -1 and 1
    image_encoder_hidden_dim: int = 32  # channels of the image encoder
    state_encoder_hidden_dim: int = 256  # hidden width of the encoders of states
    latent_dim: int = 50  # size of an imagined state
    q_ensemble_size: int = 5  # networks that value actions; what they disagree about is avoided
    mlp_dim: int = 512  # hidden width of the other networks
    discount: float = 0.9  # what a reward counts one step later
    use_mpc: bool = True  # plan; false acts as the learned reflex says
    cem_iterations: int = 6  # rounds of sampling in planning
    max_std: float = 2.0  # spread of the first round's actions
    min_std: float = 0.05  # least spread, also of the reflex's proposals
    n_gaussian_samples: int = 512  # sequences of actions drawn in each round
    n_pi_samples: int = 51  # sequences that the reflex proposes
    uncertainty_regularizer_coeff: float = 1.0  # how much disagreement about a value counts against it
    n_elites: int = 50  # best sequences, around which the next round draws
    elite_weighting_temperature: float = 0.5  # higher: the best of them count more
    gaussian_mean_momentum: float = 0.1  # share of the last round's mean that is kept
    max_random_shift_ratio: float = 0.0476  # in training pictures are shifted by up to this part of them
    reward_coeff: float = 0.5  # weight of the loss of rewards
    expectile_weight: float = 0.9  # how optimistic the value of a state is; 0.5 is the mean
    value_coeff: float = 0.1  # weight of the losses of values
    consistency_coeff: float = 20.0  # weight of the loss of imagined against seen states
    advantage_scaling: float = 3.0  # how much more the reflex imitates actions that were better
    pi_coeff: float = 0.5  # weight of the reflex's loss
    temporal_decay_coeff: float = 0.5  # what a step's loss weighs compared with the step before
    target_model_momentum: float = 0.995  # share of the slow copy that each training step keeps
    optimizer_lr: float = 3e-4  # learning rate

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: a combination that cannot work; the message names the flags.
        """
        super().__post_init__()
        check_least(self, AT_LEAST_ONE)
        check_least(self, ["n_pi_samples"], least=0)
        if self.n_obs_steps != 1:
            raise ConfigError(
                f"TD-MPC looks at one observation; type --policy.n_obs_steps=1, not {self.n_obs_steps}."
            )
        mode = self.normalization_mapping.get(FeatureType.ACTION.value)
        if mode is not NormalizationMode.MIN_MAX:
            raise ConfigError(
                "TD-MPC plans actions between -1 and 1, so --policy.normalization_mapping must scale ACTION "
                f"by MIN_MAX, not by {getattr(mode, 'value', mode)}."
            )
        self._check_action_steps()
        num_samples = self.n_gaussian_samples + self.n_pi_samples
        if self.n_elites > num_samples:
            raise ConfigError(
                f"--policy.n_elites={self.n_elites} is more than the {num_samples} sequences that are drawn "
                f"(n_gaussian_samples + n_pi_samples). Type: --policy.n_elites={num_samples // 10 or 1}"
            )
        if self.q_ensemble_size == 1 and self.uncertainty_regularizer_coeff > 0:
            raise ConfigError(
                "--policy.q_ensemble_size=1: one network cannot disagree with itself. "
                "Type: --policy.uncertainty_regularizer_coeff=0"
            )

    def _check_action_steps(self) -> None:
        if self.n_action_steps == 1:
            return
        given = f"--policy.n_action_steps={self.n_action_steps}"
        if self.n_action_repeats != 1:
            raise ConfigError(
                f"{given} executes several planned actions and --policy.n_action_repeats="
                f"{self.n_action_repeats} repeats the first. Type: --policy.n_action_repeats=1"
            )
        if not self.use_mpc:
            raise ConfigError(
                f"{given}: without planning there is one action at a time. Leave out "
                "--policy.use_mpc=false, or type: --policy.n_action_steps=1"
            )
        if self.n_action_steps > self.horizon:
            raise ConfigError(
                f"{given} is more than the horizon={self.horizon} steps that are planned. "
                f"Type: --policy.n_action_steps={self.horizon}"
            )

    @property
    def observation_delta_indices(self) -> list[int]:
        """The current observation and those after each of the actions."""
        return list(range(self.horizon + 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """The current action and those that follow."""
        return list(range(self.horizon))

    @property
    def reward_delta_indices(self) -> list[int]:
        """The reward of each of these actions."""
        return list(range(self.horizon))

    def get_optimizer_preset(self) -> "AdamConfig":
        """Adam without weight decay."""
        from lerobot.optim.optimizers import AdamConfig

        return AdamConfig(lr=self.optimizer_lr)

    def validate_features(self) -> None:
        """Check that there is something to look at, of a size the encoder takes, and something to do.

        Raises:
            FeatureMismatchError: nothing to look at or to do, two cameras, or pictures that are too small or
                not square.
        """
        if not self.image_features and self.robot_state_feature is None and self.env_state_feature is None:
            raise FeatureMismatchError(
                f"TD-MPC needs a camera, {keys.STATE} or {keys.ENV_STATE} among its inputs; given: "
                f"{', '.join(self.input_features) or 'nothing'}."
            )
        if self.action_feature is None:
            raise FeatureMismatchError(
                f"TD-MPC writes {keys.ACTION!r}, but its outputs are: "
                f"{', '.join(self.output_features) or 'none'}. Train on a dataset that has actions."
            )
        if len(self.image_features) > 1:
            raise FeatureMismatchError(
                f"TD-MPC looks at one camera; given: {', '.join(self.image_features)}. Name the one to keep, "
                "with the other inputs, in --policy.input_features."
            )
        for name, feature in self.image_features.items():
            _, height, width = feature.shape
            if height != width:
                raise FeatureMismatchError(
                    f"TD-MPC reads square pictures; {name} has {height}x{width}. "
                    f"Type: --input_shapes='{{{name}: [3, 84, 84]}}'"
                )
            if map_size(height) < 1:
                raise FeatureMismatchError(
                    f"{name} has {height}x{width} pixels, too few for four convolutions; 84x84 is usual."
                )

    @classmethod
    def tiny(cls) -> Self:
        """A TD-MPC that trains on a CPU in seconds."""
        return cls(
            input_features={
                keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
                keys.IMAGES_PREFIX + "top": PolicyFeature(FeatureType.VISUAL, (3, 48, 48)),
            },
            output_features={keys.ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
            device="cpu",
            horizon=3,
            image_encoder_hidden_dim=4,
            state_encoder_hidden_dim=8,
            latent_dim=8,
            mlp_dim=16,
            q_ensemble_size=3,
            cem_iterations=2,
            n_gaussian_samples=16,
            n_pi_samples=4,
            n_elites=4,
            optimizer_lr=3e-3,
        )


def map_size(pixels: int) -> int:
    """Height of the image encoder's last feature map for pictures of that height."""
    for kernel in CONV_KERNELS:
        pixels = (pixels - kernel) // 2 + 1
    return pixels
