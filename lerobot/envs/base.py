"""What every environment shares: its config, and how its observations become features of a policy.

An environment is a `gymnasium.Env` that follows these habits:

    observation   {"pixels": {camera: (H, W, 3) uint8}, "agent_pos": (J,)} in the robot's own units; "pixels"
                  is one array where the only image is called observation.image; "environment_state" (K,)
                  where it is asked for
    action        (A,) in the same units; wrong shapes and numbers that are not finite are errors
    info          "is_success": whether the task is done now; "is_clipped", where a limit can be exceeded:
                  whether the last action did and was held at it
    is_watched    where it has this attribute, and it was set to False, observations may lack their pictures:
                  most steps of a plan are looked at by nobody, and drawing is most of the work
    and           render() -> (H, W, 3) uint8, metadata["render_fps"], task_description, and a reset(seed=...)
                  that fixes the whole episode; where a task has a list of initial states,
                  options={"episode_index": i} chooses one, i modulo their number
    experts       where there are any: name -> function that makes an expert for the episode just reset, from
                  the standard deviation of its noise, its own first; `expert_noise`: the usual deviation

Several environments at a time: start their processes with `context="spawn"`. One that is forked from a
process that has drawn cannot draw.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lerobot.core import keys
from lerobot.core.errors import ConfigError, UserError
from lerobot.core.registry import Choice
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.sim.gl import choose_backend

if TYPE_CHECKING:  # --help does without
    import gymnasium
    import numpy as np
    from gymnasium import spaces

CHANNELS = 3
OBSERVED = {keys.STATE: "agent_pos", keys.ENV_STATE: "environment_state"}
SLOW_DRAWING = (
    "Pictures are drawn in software as the environment's package draws them: a few per second. "
    "--env.fast_rendering=true leaves out shadows, reflections and smooth edges and is 4 to 40 times as "
    "fast; train on such pictures too, or on neither."
)


@dataclass(frozen=True)
class Task:
    """One of the tasks of an environment."""

    group: str  # the suite it belongs to; the environment's type where there are none
    id: int  # its number in the group
    name: str | None  # what --env.task says to have it alone


@dataclass(kw_only=True)
class EnvConfig(Choice, package="lerobot.envs", plugins="lerobot_env_"):
    """Root of the family that `--env.type` chooses from."""

    # What is simulated with, as pip calls it: results depend on these versions.
    packages: ClassVar[tuple[str, ...]] = ()

    # Name of the task inside the environment.
    task: str | None = None
    # Control steps per second.
    fps: int = 30
    # Control steps after which an episode that has not succeeded is cut off.
    episode_length: int = 300
    # Environment feature -> policy feature, where the environment's own names do not fit.
    features_map: dict[str, str] = field(default_factory=dict)
    # Kept in files: environments that are free take episodes of any task.
    max_parallel_tasks: int = 1
    # Leave out gymnasium's own checks on every step.
    disable_env_checker: bool = True

    def __post_init__(self) -> None:
        sizes = [each.name for each in fields(self) if each.name.endswith(("_height", "_width"))]
        for name in ("fps", "episode_length", "max_parallel_tasks", *sizes):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--env.{name}={value}: expected 1 or more.")

    @property
    def tasks(self) -> list[Task]:
        """The tasks that are evaluated; environments with several override it."""
        return [Task(self.type, 0, self.task)]

    def with_task(self, task: Task) -> Self:
        """The same environment with one of its tasks alone."""
        return replace(self, task=task.name)

    @property
    def renderer(self) -> str:
        """What draws MuJoCo's pictures here (see `sim.gl`); '' where a screen or another package does."""
        return choose_backend() if "mujoco" in self.packages else ""

    @abstractmethod
    def build(self) -> "gymnasium.Env":
        """A new environment; simulators are imported here and not before."""

    @property
    @abstractmethod
    def features(self) -> dict[str, PolicyFeature]:
        """What it observes and takes, by canonical key; images are (C, H, W)."""

    @abstractmethod
    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table (format v3.0) of a data set recorded here; images are (H, W, C) videos."""


def policy_view(dataset_features: dict[str, dict[str, Any]]) -> dict[str, PolicyFeature]:
    """`features` from `dataset_features`, for an environment whose two views agree."""
    found = {}
    for name, feature in dataset_features.items():
        shape = tuple(feature["shape"])
        if feature["dtype"] == "video":
            found[name] = PolicyFeature(FeatureType.VISUAL, (shape[2], shape[0], shape[1]))
        else:
            kinds = {keys.ACTION: FeatureType.ACTION, keys.ENV_STATE: FeatureType.ENV}
            found[name] = PolicyFeature(kinds.get(name, FeatureType.STATE), shape)
    return found


def video_feature(*, height: int, width: int) -> dict[str, Any]:
    """One row of the feature table: an RGB video."""
    return {"dtype": "video", "shape": [height, width, CHANNELS], "names": ["height", "width", "channels"]}


def vector_feature(names: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """One row of the feature table: a named float32 vector."""
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def observation_space(dataset_features: dict[str, dict[str, Any]]) -> "spaces.Dict":
    """The Gymnasium space of observations with these features; numbers are float32 without limits."""
    import numpy as np
    from gymnasium import spaces

    found: dict[str, spaces.Space] = {}
    pixels: dict[str, spaces.Space] = {}
    for name, feature in dataset_features.items():
        shape = tuple(feature["shape"])
        if name == keys.IMAGE:
            found["pixels"] = spaces.Box(0, 255, shape, np.uint8)
        elif feature["dtype"] == "video":
            pixels[name.removeprefix(keys.IMAGES_PREFIX)] = spaces.Box(0, 255, shape, np.uint8)
        elif name in OBSERVED:
            found[OBSERVED[name]] = spaces.Box(-np.inf, np.inf, shape, np.float32)
    return spaces.Dict(found | ({"pixels": spaces.Dict(pixels)} if pixels else {}))


def checked_action(action: "np.ndarray", names: list[str] | tuple[str, ...]) -> "np.ndarray":
    """The action (A,) as float64.

    Args:
        names: of its A numbers.

    Raises:
        UserError: it has another shape or holds numbers that are not finite.
    """
    import numpy as np

    action = np.asarray(action, dtype=np.float64)
    if action.shape != (len(names),) or not np.isfinite(action).all():
        raise UserError(
            f"Expected a finite action of {len(names)} numbers ({', '.join(names)}), got {action.tolist()}."
        )
    return action
