"""Trials on a Ray cluster: each is an actor that holds the trial's process, wherever Ray finds room for it.

    search (study.db) --job--> actor on some machine --TrialProcess--> lerobot-train
           <--rows of metrics and the end, as answers to questions--

No shared file system is needed for that. A trial's files lie on the machine that ran it, in the folder that
this machine would have used; checkpoints therefore stay there unless the folder is shared.
"""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lerobot.core.cluster import ray_cluster
from lerobot.search.config import TuneConfig
from lerobot.search.trial import Ending, Job, News, TrialProcess
from lerobot.training.config import TrainConfig

logger = logging.getLogger(__name__)


@contextmanager
def ray_executor(cfg: TuneConfig, train: TrainConfig) -> Iterator["RayExecutor"]:
    """An executor on the cluster at `cfg.ray_address`, or on one that is started here.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no such cluster.
    """
    with ray_cluster(cfg.ray_address) as ray:
        yield RayExecutor(ray, cfg, train)


class RayExecutor:
    """Starts trials as actors that reserve CPUs and GPUs."""

    def __init__(self, ray: Any, cfg: TuneConfig, train: TrainConfig) -> None:
        assert train.policy is not None
        self.ray, self.n_jobs = ray, cfg.n_jobs
        there = ray.cluster_resources()
        uses_cuda = train.policy.device is None or str(train.policy.device).startswith("cuda")
        self.num_cpus = cfg.cpus_per_trial or 1
        self.num_gpus = cfg.gpus_per_trial
        if self.num_gpus is None:
            self.num_gpus = int(uses_cuda and there.get("GPU", 0) > 0)
        for name, wanted in (("CPU", self.num_cpus), ("GPU", self.num_gpus)):
            if wanted > there.get(name, 0):  # an elastic cluster may still bring such a machine
                logger.warning(
                    "A trial asks for %d %ss, the cluster has %d now.", wanted, name, there.get(name, 0)
                )
        self.where = f"on Ray with {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"

    def start(self, job: Job, *, place: int) -> "RayTrial":
        """A trial that begins as soon as the cluster has room."""
        actor = self.ray.remote(TrialProcess).options(num_cpus=self.num_cpus, num_gpus=self.num_gpus)
        job = dataclasses.replace(job, folder=job.folder.absolute(), num_threads=self.num_cpus)
        return RayTrial(self.ray, actor.remote(job))

    def describe(self) -> str:
        """'2 at once on Ray with 8 CPUs and 2 GPUs, each with CPUs 1, GPUs 1'."""
        return f"{self.n_jobs} at once {self.where}, each with CPUs {self.num_cpus}, GPUs {self.num_gpus}"


class RayTrial:
    """A trial on the cluster; one question to its actor is always on its way."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor
        self.answer = actor.poll.remote()
        self.has_begun = False
        self.ending: Ending | None = None

    def poll(self) -> News:
        """What the actor answered since the last call, if it did."""
        if self.ending is not None or not self.ray.wait([self.answer], timeout=0)[0]:
            return News((), self.ending)
        try:
            news: News = self.ray.get(self.answer)
        except self.ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            self.ending = Ending(1, f"Ray lost it: {said[-1] if said else type(error).__name__}")
            return News((), self.ending)
        self.has_begun, self.ending = True, news.ending
        if news.ending is None:
            self.answer = self.actor.poll.remote()
        return news

    def stop(self, *, is_urgent: bool = False) -> None:
        """Ask the actor to stop its process; one that still waits for room is withdrawn."""
        if self.has_begun:
            self.actor.stop.remote(is_urgent=is_urgent)
        else:
            self.ray.kill(self.actor)
            self.ending = Ending(0)

    def drop_checkpoints(self) -> None:
        """Delete its checkpoints on the machine where they are."""
        if self.has_begun:
            self.actor.drop_checkpoints.remote()
