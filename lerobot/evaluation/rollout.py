"""Rolls a policy out in simulated environments: every episode is a (task, initial state, seed), run once.

    Schedule --episode--> slot (environment) --observations--> Actor (policy) --actions (n, A)--> slot ...

A slot whose episode ends begins the next one at once, while the policy plans for others. What comes of an
episode does not depend on how many slots or processes there are, or on the other episodes: see actor.py.

Shapes: n actions planned ahead, A action size.
"""

import logging
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lerobot.core.errors import UserError
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.actor import Actor, make_actor
from lerobot.evaluation.assignment import Assignment, Schedule, assignments, share
from lerobot.evaluation.fit import fitting_names
from lerobot.evaluation.pool import Pool
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.recording import Recordings
from lerobot.evaluation.result import EpisodeResult, EvalResult
from lerobot.evaluation.stage import Here, Seen, Slots, Stage
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair

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
    num_processes: int | None = 0,
    plan_batch_size: int = 0,
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
    """The results of `n_episodes` episodes of each task; episode i of a task is reset with `seed` + i.

    Random numbers outside are afterwards as they were before.

    Args:
        processors: the policy's pre- and postprocessor.
        batch_size: environments at a time; 0 chooses from the machine's cores.
        num_processes: processes that step them; 0 chooses from the cores and `batch_size`, None steps them in
            this process.
        plan_batch_size: plans that are computed together, which decides their last digits; 0 chooses by the
            policy's device.
        seed: None leaves the episodes, and the policy's random numbers, to chance.
        max_videos: so many first episodes of a task are filmed.
        video_folder: gets `<group>_<task id>/eval_episode_<i>.mp4`.
        recordings: datasets that the episodes become.
        rename_map: environment's feature name -> policy's.
        task: task text for the policy instead of the environment's own.
        progress: is told of every episode; by default one that shows itself.
        rank, num_ranks: of several processes that share the episodes each gets the results of its own.

    Raises:
        UserError: no episodes are wanted; or environments cannot have processes, since the script lacks its
            `if __name__ == "__main__"`.
        FeatureMismatchError: environment and policy do not fit; raised before the first step.
        EnvironmentSetupError: the simulation cannot start here.
        EnvironmentFailedError: an environment failed, or its process died; names the episode.
        MissingExtraError: the environment's package is not installed.
    """
    if n_episodes < 1:
        raise UserError(f"n_episodes={n_episodes}: expected at least 1.")
    names = fitting_names(policy.config, env_config, processors[0], rename_map=rename_map or {})
    started_s = time.perf_counter()
    every = assignments(
        env_config,
        n_episodes=n_episodes,
        seed=seed,
        max_videos=max_videos,
        video_folder=video_folder,
        recording_folder=recordings.waiting_folder if recordings is not None else None,
    )
    own = share(every, rank=rank, num_ranks=num_ranks)
    results: list[EpisodeResult] = []
    if not own:  # other processes do all of it
        return EvalResult(episodes=results, eval_s=0.0)
    num_slots = min(batch_size or automatic_batch_size(), len(own))
    with undisturbed_randomness():
        actor = make_actor(policy, processors, names=names, plans_at_once=plan_batch_size)
        slots = Slots(num_looks=actor.num_looks, text=task)
        with (
            stage_for(slots, num_slots=num_slots, num_processes=num_processes, num_ranks=num_ranks) as stage,
            progress or EpisodeProgress(len(own), title="evaluating") as shown,
        ):
            for result in run_episodes(own, actor, stage, num_slots=num_slots):
                results.append(result)
                if recordings is not None:
                    recordings.add(result)
                shown.update(len(results), f"{sum(r.success for r in results)} of {len(results)} succeeded")
    place = {one.key: i for i, one in enumerate(own)}
    results.sort(key=lambda result: place[result.group, result.task_id, result.index])
    return EvalResult(episodes=results, eval_s=time.perf_counter() - started_s)


def run_episodes(
    wanted: Sequence[Assignment], actor: Actor, stage: Stage, *, num_slots: int
) -> Iterator[EpisodeResult]:
    """The result of each episode as it ends."""
    schedule = Schedule(wanted)
    running: dict[int, Assignment] = {}
    has_warned = False

    def begin(slot: int) -> None:
        before = running.pop(slot, None)
        one = schedule.next(before.task if before else None)
        if one is not None:
            running[slot] = one
            actor.begin(slot, seed=one.policy_seed)
            stage.tell(slot, one)

    for slot in range(num_slots):
        begin(slot)
    while running:
        waiting: list[Seen] = []  # for actions
        for seen in stage.hear():
            if seen.renderer_problem and not has_warned:
                logger.warning("There will be no videos. %s", seen.renderer_problem)
                has_warned = True
            if seen.result is None:
                waiting.append(seen)
                continue
            yield seen.result
            begin(seen.slot)
        for first in range(0, len(waiting), actor.max_slots):
            part = waiting[first : first + actor.max_slots]
            for seen, actions in zip(part, actor.act(part), strict=True):
                stage.tell(seen.slot, actions)


def stage_for(slots: Slots, *, num_slots: int, num_processes: int | None, num_ranks: int) -> Stage:
    """A stage in this process, or in as many as were asked for or this machine's cores suggest."""
    if num_processes == 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_processes = min(num_slots, cores // num_ranks)
        if num_processes < 2:  # nothing to gain
            num_processes = None
    if num_processes is None:
        return Here(slots)
    return Pool(slots, num_slots=num_slots, num_processes=num_processes)


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Outside, Python, NumPy and torch draw as if nothing had been drawn inside."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


def automatic_batch_size() -> int:
    """Most of the machine's cores, at most 64."""
    return min(max(1, int(CORES_SHARE * (os.cpu_count() or 1))), MAX_BATCH)
