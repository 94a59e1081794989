"""Rolls a policy out in a simulated environment: every episode is one (task, seed) and runs exactly once.

    observation -> canonical names -> rename -> preprocessor -> select_action -> postprocessor -> step

A policy's queue of planned actions belongs to a whole batch, so a batch is never refilled: its B episodes
begin together after one reset; those that have ended wait, their last observation repeated and their actions
unused. So an episode's result does not depend on who else is in its batch, up to the rounding of batched
products. A policy that draws random numbers is seeded per batch: for it the same B gives the same result.

Shapes: B episodes of a batch, A action size.
"""

import logging
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import EnvironmentSetupError, FeatureMismatchError
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.episode import Episode
from lerobot.evaluation.fit import fitting_names
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.recording import EpisodeRecorder, Recordings
from lerobot.evaluation.result import EpisodeResult, EvalResult
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.processor.observation import VanillaObservationProcessorStep
from lerobot.processor.rename import rename

if TYPE_CHECKING:
    import gymnasium

logger = logging.getLogger(__name__)
MAX_BATCH = 64
CORES_SHARE = 0.7


def evaluate(
    policy: PreTrainedPolicy,
    processors: Pair,
    env_config: EnvConfig,
    *,
    n_episodes: int,
    batch_size: int = 0,
    seed: int | None = 1000,
    max_videos: int = 0,
    video_folder: Path | None = None,
    recordings: Recordings | None = None,
    rename_map: Mapping[str, str] | None = None,
    task: str | None = None,
    progress: EpisodeProgress | None = None,
    rank: int = 0,
    num_ranks: int = 1,
) -> EvalResult:
    """The results of `n_episodes` episodes; episode i is reset with `seed` + i.

    Random numbers outside are afterwards as they were before.

    Args:
        processors: the policy's pre- and postprocessor.
        batch_size: episodes that run together; 0 chooses from the machine's cores.
        seed: None leaves the episodes, and the policy's random numbers, to chance.
        max_videos: so many first episodes leave `<video_folder>/<group>_<task id>/eval_episode_<i>.mp4`.
        recordings: datasets that the episodes become.
        rename_map: environment's feature name -> policy's.
        task: task text for the policy instead of the environment's own.
        progress: is told of every episode; by default one that shows itself.
        rank, num_ranks: of several processes that share the episodes each runs whole batches, and gets their
            results alone, which are those that one process gets with the same `batch_size`.

    Raises:
        FeatureMismatchError: environment and policy do not fit; raised before the first step.
        EnvironmentSetupError: the simulation cannot start here.
        MissingExtraError: the environment's package is not installed.
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes={n_episodes}: expected at least 1.")
    names = fitting_names(policy.config, env_config, processors[0], rename_map=rename_map or {})
    started_s = time.perf_counter()
    size = min(batch_size or min(automatic_batch_size(), -(-n_episodes // num_ranks)), n_episodes)
    results: list[EpisodeResult] = []
    if rank * size >= n_episodes:  # other processes do all of it
        return EvalResult(episodes=results, eval_s=0.0)
    with built(env_config, size) as envs, undisturbed_randomness():
        text = task if task is not None else task_text(envs[0])
        actor = Actor(policy=policy, processors=processors, names=names, task=text)
        is_filmed = video_folder is not None and max_videos > 0 and can_render(envs[0], seed)
        with progress or EpisodeProgress(n_episodes, title="evaluating") as shown:
            for first in range(rank * size, n_episodes, num_ranks * size):
                batch = new_batch(envs[: n_episodes - first], first, seed, group=env_config.type, task=text)
                for episode in batch[: max(0, max_videos - first)] if is_filmed else ():
                    path = Path(
                        video_folder or "", f"{env_config.type}_0", f"eval_episode_{episode.index}.mp4"
                    )
                    episode.film(path)
                for episode in batch if recordings is not None else ():
                    episode.recorder = EpisodeRecorder(recordings.path((episode.group, 0), episode.index))
                if seed is not None:
                    torch.manual_seed(seed + first)
                for result in run_batch(batch, actor, max_steps=env_config.episode_length):
                    results.append(result)
                    if recordings is not None:
                        recordings.add(result)
                    shown.update(
                        len(results), f"{sum(r.success for r in results)} of {len(results)} succeeded"
                    )
    results.sort(key=lambda result: result.index)
    eval_s = time.perf_counter() - started_s
    return EvalResult(episodes=results, eval_s=eval_s)


def new_batch(
    envs: "list[gymnasium.Env]", first: int, seed: int | None, *, group: str, task: str
) -> list[Episode]:
    """Episodes number `first` and following, one per environment."""
    return [
        Episode(env=env, index=i, seed=None if seed is None else seed + i, group=group, task=task)
        for i, env in enumerate(envs, first)
    ]


def run_batch(episodes: list[Episode], actor: "Actor", *, max_steps: int) -> Iterator[EpisodeResult]:
    """The result of each episode as it ends; whatever fails ends all of them."""
    actor.reset()
    try:
        for episode in episodes:
            episode.start()
        for step in range(1, max_steps + 1):
            actions = actor.act([episode.observation for episode in episodes])  # (B, A)
            check_actions(actions, episodes)
            for episode, action in zip(episodes, actions, strict=True):
                if episode.is_done:
                    continue
                episode.step(action)
                if episode.is_done or step == max_steps:
                    yield episode.finish()
            if all(episode.is_done for episode in episodes):
                break
    finally:
        for episode in episodes:
            episode.abort()


def check_actions(actions: np.ndarray, episodes: list[Episode]) -> None:
    """Return when actions (B, A) have the shape that the environment takes.

    Raises:
        FeatureMismatchError: they have another one.
    """
    wanted = (len(episodes), *(episodes[0].env.action_space.shape or ()))
    if actions.shape != wanted:
        raise FeatureMismatchError(
            f"The policy returned actions {list(actions.shape)}; the environment takes {list(wanted)}."
        )


@dataclass(kw_only=True)
class Actor:
    """A policy with all that lies between it and an environment."""

    policy: PreTrainedPolicy
    processors: Pair
    names: Mapping[str, str]  # environment's feature -> what the preprocessor calls it
    task: str

    def reset(self) -> None:
        """Forget the last batch of episodes."""
        self.policy.reset()
        for pipeline in self.processors:
            pipeline.reset()

    def act(self, observations: list[Any]) -> np.ndarray:
        """Actions (B, A) in the environment's units for B observations as environments return them."""
        before, after = self.processors
        canonical = VanillaObservationProcessorStep().observation(stack(observations))
        batch = rename({name: torch.as_tensor(value) for name, value in canonical.items()}, self.names)
        batch[keys.TASK] = [self.task] * len(observations)
        with torch.no_grad(), half_precision(self.policy):
            action: Tensor = after(self.policy.select_action(before(batch)))
        return action.float().cpu().numpy()


def stack(observations: list[Any]) -> dict[str, Any]:
    """Observations as one with a batch axis: arrays (B, ...), pictures by camera or one array."""
    merged: dict[str, Any] = {}
    for name, value in observations[0].items():
        parts = [observation[name] for observation in observations]
        merged[name] = stack(parts) if isinstance(value, dict) else np.stack(parts)
    return merged


@contextmanager
def built(env_config: EnvConfig, count: int) -> "Iterator[list[gymnasium.Env]]":
    """So many environments, closed at the end."""
    envs: list[gymnasium.Env] = []
    try:
        while len(envs) < count:
            envs.append(env_config.build())
        yield envs
    finally:
        for env in envs:
            env.close()


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Outside, Python, NumPy and torch draw as if nothing had been drawn inside."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


def half_precision(policy: PreTrainedPolicy) -> Any:
    """Half precision where the policy's config asks for it."""
    return torch.autocast(policy.device.type) if policy.config.use_amp else nullcontext()


def can_render(env: "gymnasium.Env", seed: int | None) -> bool:
    """Whether pictures for videos can be drawn; says why not."""
    env.reset(seed=seed)
    try:
        env.render()
    except EnvironmentSetupError as error:
        logger.warning("There will be no videos. %s", error)
        return False
    return True


def task_text(env: "gymnasium.Env") -> str:
    """What the environment calls its task, in words: `task_description`, else `task`, else nothing."""
    for name in ("task_description", "task"):
        if env.has_wrapper_attr(name):
            said = env.get_wrapper_attr(name)
            return str(said() if callable(said) else said)
    return ""


def automatic_batch_size() -> int:
    """Most of the machine's cores, at most 64."""
    return min(max(1, int(CORES_SHARE * (os.cpu_count() or 1))), MAX_BATCH)
