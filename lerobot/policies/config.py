"""What every policy's config has: features, device, publishing, and what the rest of the house asks it.

File format: `config.json` of a checkpoint, flat, `type` first, then the fields below in this order.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lerobot.core import keys
from lerobot.core.config import decode, encode
from lerobot.core.errors import CheckpointError, ConfigError
from lerobot.core.registry import Choice
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.locate import locate

if TYPE_CHECKING:
    from lerobot.optim.optimizers import OptimizerConfig
    from lerobot.optim.schedulers import LRSchedulerConfig

logger = logging.getLogger(__name__)

TYPE_ALIASES = {
    "pi0fast": "pi0_fast",
    "pi0.5": "pi05",
    "gr00t": "groot",
    "groot_n1_5": "groot",
    "hilserl": "gaussian_actor",
    "sac": "gaussian_actor",
}


@dataclass(kw_only=True)
class PreTrainedConfig(
    Choice,
    package="lerobot.policies",
    config_module="config",
    plugins="lerobot_policy_",
    aliases=TYPE_ALIASES,
):
    """Base of all policy configs."""

    # Whether states and actions of any size, any image size and absent cameras fit (padded, resized, masked).
    is_shape_free: ClassVar[bool] = False
    # Last frames of each episode that are not trained on; untyped, so that a policy may make it a field.
    drop_n_last_frames = 0
    # Whether training keeps an average of the weights unless it is told otherwise (--ema.enable).
    uses_ema: ClassVar[bool] = False

    n_obs_steps: int = 1  # observations the policy looks at, the current one included
    input_features: dict[str, PolicyFeature] = field(default_factory=dict)  # empty: those of the dataset
    output_features: dict[str, PolicyFeature] = field(default_factory=dict)  # empty: those of the dataset
    device: str | None = None  # cuda, cuda:1, mps, xpu or cpu; null takes the best one there is
    use_amp: bool = False  # run the forward pass in half precision where the device has it
    use_peft: bool = False  # the checkpoint holds a PEFT adapter
    push_to_hub: bool = True  # upload the trained policy when repo_id is given
    repo_id: str | None = None  # Hub id to upload to, user/name
    private: bool | None = None  # whether that repository is private; null is your organisation's default
    tags: list[str] | None = None  # tags of the model card
    license: str | None = None  # licence of the model card
    pretrained_path: str | None = None  # checkpoint or Hub id the weights come from
    pretrained_revision: str | None = None  # revision of that Hub id

    def __post_init__(self) -> None:
        """Check the fields; policies add their own checks."""

    # --- what a policy answers about itself
    @property
    def observation_delta_indices(self) -> list[int] | None:
        """Frame offsets of each observation, or None for the current frame without a time axis."""
        return None

    @property
    def action_delta_indices(self) -> list[int] | None:
        """Frame offsets of the actions of one training item."""
        return None

    @property
    def reward_delta_indices(self) -> list[int] | None:
        """Frame offsets of the rewards of one training item."""
        return None

    def get_optimizer_preset(self) -> "OptimizerConfig":
        """The published optimizer of this policy."""
        raise ConfigError(f"{self.type} has no optimizer preset; give --optimizer.type and its fields.")

    def get_scheduler_preset(self) -> "LRSchedulerConfig | None":
        """The published learning-rate schedule of this policy, or None."""
        return None

    def doubt_about(self, *, steps: int) -> str | None:
        """What a training run of so many steps will not achieve, as a warning; None where nothing speaks."""
        return None

    def validate_features(self) -> None:
        """Check that the input and output features fit this policy.

        Raises:
            FeatureMismatchError: they do not.
        """

    @classmethod
    def tiny(cls) -> Self:
        """A config, features included, whose policy trains on a CPU in seconds; the contract tests use it."""
        raise NotImplementedError(f"{cls.__name__} has no tiny() yet.")

    @classmethod
    def older_defaults(cls, tree: dict[str, Any], *, release: tuple[int, ...]) -> dict[str, Any]:
        """Defaults, by field, of the release that wrote a file, where they were others than those above.

        Args:
            tree: what the file holds; what it says of a field is not asked for.
        """
        return {}

    # --- features by kind
    @property
    def robot_state_feature(self) -> PolicyFeature | None:
        """`observation.state`, if the policy reads it."""
        feature = self.input_features.get(keys.STATE)
        return feature if feature is not None and feature.type is FeatureType.STATE else None

    @property
    def env_state_feature(self) -> PolicyFeature | None:
        """The first environment state among the inputs."""
        return next((f for f in self.input_features.values() if f.type is FeatureType.ENV), None)

    @property
    def image_features(self) -> dict[str, PolicyFeature]:
        """All cameras, in the order the policy reads them."""
        return {k: f for k, f in self.input_features.items() if f.type is FeatureType.VISUAL}

    @property
    def action_feature(self) -> PolicyFeature | None:
        """`action`, if the policy writes it."""
        feature = self.output_features.get(keys.ACTION)
        return feature if feature is not None and feature.type is FeatureType.ACTION else None

    # --- files
    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> Self:
        """The config of a checkpoint folder or Hub id; keys of newer releases are kept and said once.

        Raises:
            CheckpointError: there is no readable config.json.
        """
        path = locate(folder, revision=overrides.pop("revision", None)) / keys.CONFIG_FILE
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
        return cls.from_tree(tree | overrides, source=str(path))

    @classmethod
    def from_tree(cls, tree: dict[str, Any], *, source: str) -> Self:
        """The config that a file holds; `source` is its name for messages."""
        if "type" not in tree:
            raise CheckpointError(f"{source} holds no 'type': it is not the config of a LeRobot policy.")
        wanted = cls.get_choice_class(str(tree["type"]))
        if not issubclass(wanted, cls):
            raise CheckpointError(f"{source} belongs to a {tree['type']!r} policy, not to {cls.__name__}.")
        release = release_of(tree)
        if release is not None:
            tree = wanted.older_defaults(tree, release=release) | tree
        unknown: dict[str, Any] = {}
        config = decode(wanted, tree, unknown=unknown)
        if unknown:
            logger.warning("%s: unknown keys are kept, not used: %s", source, ", ".join(unknown))
            config.__dict__["unknown_keys"] = unknown
        return config

    def to_tree(self) -> dict[str, Any]:
        """The JSON view, with the unknown keys it was loaded with."""
        return encode(self) | self.__dict__.get("unknown_keys", {})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` into the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_tree(), indent=4, ensure_ascii=False)
        (Path(folder) / keys.CONFIG_FILE).write_text(text, encoding="utf-8")


def release_of(tree: dict[str, Any]) -> tuple[int, ...] | None:
    """The first release that writes config files with these fields; None where a person wrote the file.

    Releases write all their fields; one that nobody types tells their files.
    """
    if "use_amp" not in tree:
        return None
    since = {"pretrained_revision": (0, 6), "use_peft": (0, 4, 3), "pretrained_path": (0, 4)}
    return next((release for name, release in since.items() if name in tree), (0, 3))


def normalization(visual: str, state: str, action: str) -> dict[str, NormalizationMode]:
    """A `normalization_mapping` from the three modes' names."""
    modes = {"VISUAL": visual, "STATE": state, "ACTION": action}
    return {kind: NormalizationMode(mode) for kind, mode in modes.items()}


def fill_from_checkpoint(section: dict[str, Any]) -> dict[str, Any]:
    """The `policy` section with the config of the checkpoint it names underneath.

    `policy.path=P`, or `policy.pretrained_path=P` together with the type that P has: P's config, then what
    the section says. Without either the section is returned as it is.

    Raises:
        CheckpointError: there is no checkpoint at P.
        ConfigError: P holds another type of policy.
    """
    section = dict(section)
    path = section.pop("path", None) or section.get("pretrained_path")
    if path is None or str(path).lower() in ("none", "null", ""):
        return section
    saved = PreTrainedConfig.from_pretrained(str(path), revision=section.get("pretrained_revision"))
    wanted = section.get("type")
    if wanted is not None and PreTrainedConfig.get_choice_class(str(wanted)) is not type(saved):
        raise ConfigError(
            f"--policy.type={wanted} was given, but {path} holds a {saved.type!r} policy. "
            f"Leave --policy.type out or give --policy.type={saved.type}."
        )
    known = encode(saved)
    known["device"] = portable_device(known["device"])
    return known | section | {"type": saved.type, "pretrained_path": str(path)}


def portable_device(stored: str | None) -> str | None:
    """The device a file names, where every machine has it; otherwise None, the best one there is.

    A device that a person types is taken to the letter; one that a checkpoint remembers is not asked for.
    """
    return stored if stored == "cpu" else None
