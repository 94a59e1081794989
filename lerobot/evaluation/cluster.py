"""Episodes on a Ray cluster: each actor loads the policy and runs a share of them, wherever there is room.

    checkpoint files, config --> actor k of n --evaluate(rank=k, num_ranks=n)--> results, video files

No shared file system is needed: the checkpoint travels there, and the videos come back.
"""

import dataclasses
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lerobot.core.cluster import ray_cluster
from lerobot.core.errors import EnvironmentFailedError
from lerobot.evaluation.config import EvalPipelineConfig
from lerobot.evaluation.job import load, roll_out
from lerobot.evaluation.pool import Trouble, WorkerTraceback, told
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.result import EvalResult
from lerobot.evaluation.rollout import CORES_SHARE

LOOK_EVERY_S = 1.0
CPUS_OF_AN_ACTOR = 4  # where there are that many, and no number of actors was asked for
Files = dict[str, bytes]  # path in a folder -> content


@dataclasses.dataclass(frozen=True)
class Returned:
    """What an actor found, the videos that it filmed, and on which device the policy was."""

    result: EvalResult
    videos: Files
    device: torch.device


def roll_out_on_ray(
    cfg: EvalPipelineConfig, checkpoint: Path, *, video_folder: Path
) -> tuple[EvalResult, torch.device]:
    """The result of all episodes, in order, and the device that the policy was on.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no such cluster.
        LeRobotError: what failed in an actor; its cause is the traceback there.
    """
    assert cfg.policy is not None and cfg.env is not None
    num_episodes = cfg.eval.n_episodes * len(cfg.env.tasks)
    with ray_cluster(cfg.ray_address) as ray:
        there = ray.cluster_resources()
        num_cpus, num_gpus = int(there.get("CPU", 1)), there.get("GPU", 0)
        uses_gpus = num_gpus and (cfg.policy.device is None or str(cfg.policy.device).startswith("cuda"))
        count = cfg.n_jobs or int(num_gpus if uses_gpus else max(1, num_cpus // CPUS_OF_AN_ACTOR))
        count = min(count, num_episodes)
        needs = {"num_cpus": max(1, num_cpus // count), "num_gpus": num_gpus / count if uses_gpus else 0}
        kind = ray.remote(Share).options(**needs, max_concurrency=2)  # it runs, and says how far it is
        files = ray.put(read_files(checkpoint))
        actors = [
            kind.remote(cfg, files, num_cpus=needs["num_cpus"], rank=rank, num_ranks=count)
            for rank in range(count)
        ]
        returned = _collect(ray, actors, num_episodes)
    for one in returned:
        write_files(one.videos, video_folder)
    episodes = [
        dataclasses.replace(episode, video=None if episode.video is None else video_folder / episode.video)
        for one in returned
        for episode in one.result.episodes
    ]
    eval_s = max(one.result.eval_s for one in returned)
    return EvalResult(episodes=episodes, eval_s=eval_s), returned[0].device


def _collect(ray: Any, actors: list[Any], num_episodes: int) -> list[Returned]:
    """What the actors return, in their order; shows meanwhile how far they are."""
    waiting = {actor.run.remote(): rank for rank, actor in enumerate(actors)}
    found: dict[int, Returned] = {}
    with EpisodeProgress(num_episodes, title="evaluating") as shown:
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=LOOK_EVERY_S)
            try:
                for answer in ready:
                    rank, returned = waiting.pop(answer), ray.get(answer)
                    if isinstance(returned, Trouble):
                        raise returned.error from WorkerTraceback(returned.details)
                    found[rank] = returned
                counts = ray.get([actors[rank].count.remote() for rank in waiting.values()])
            except ray.exceptions.RayError as error:
                said = str(error).strip().splitlines()
                raise EnvironmentFailedError(
                    f"Ray lost one of {len(actors)} actors that evaluate: {said[-1] if said else error}. If "
                    "nobody ended it, its machine had no memory left: try a smaller --eval.batch_size."
                ) from error
            done = sum(counts) + sum(len(one.result.episodes) for one in found.values())
            shown.update(done)
    return [found[rank] for rank in range(len(actors))]


class Share:
    """One actor: runs share `rank` of `num_ranks` with so many CPUs of its machine."""

    def __init__(
        self, cfg: EvalPipelineConfig, files: Files, *, num_cpus: int, rank: int, num_ranks: int
    ) -> None:
        fields = cfg.eval
        batch_size = fields.batch_size or max(1, int(CORES_SHARE * num_cpus))
        own = dataclasses.replace(
            fields, batch_size=batch_size, num_processes=fields.num_processes or min(num_cpus, batch_size)
        )
        self.cfg, self.files = dataclasses.replace(cfg, eval=own), files
        self.rank, self.num_ranks = rank, num_ranks
        self.progress = EpisodeProgress(1, title="evaluating", console=Console(quiet=True))

    def run(self) -> "Returned | Trouble":
        """Run all of it."""
        assert self.cfg.policy is not None
        try:
            with tempfile.TemporaryDirectory() as name:
                checkpoint, videos = Path(name, "checkpoint"), Path(name, "videos")
                write_files(self.files, checkpoint)
                policy, processors = load(self.cfg.policy, checkpoint)
                result = roll_out(
                    self.cfg, policy, processors, video_folder=videos,
                    progress=self.progress, rank=self.rank, num_ranks=self.num_ranks,
                )  # fmt: skip
                episodes = [
                    dataclasses.replace(one, video=one.video and one.video.relative_to(videos))
                    for one in result.episodes
                ]
                result = dataclasses.replace(result, episodes=episodes)
                return Returned(result, read_files(videos), policy.device)
        except Exception as error:  # noqa: BLE001  whatever it is, the other side says it
            return Trouble(told(error), traceback.format_exc())

    def count(self) -> int:
        """How many episodes have ended."""
        return self.progress.done


def read_files(folder: Path) -> Files:
    """All files below a folder; none where there is no folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_files(files: Files, folder: Path) -> None:
    """Those files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
