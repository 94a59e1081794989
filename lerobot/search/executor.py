"""Where trials run: as processes of this machine, each with its share of GPUs and CPU threads.

Job without a share -> Executor.start -> a running trial, on one of `n_jobs` places
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from lerobot.search.config import TuneConfig
from lerobot.search.trial import Job, Trial, TrialProcess
from lerobot.training.config import TrainConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Executor(Protocol):
    """Starts trials."""

    def start(self, job: Job, *, place: int) -> Trial:
        """A running trial; `place` is the number of a free one of the `n_jobs` places."""

    def describe(self) -> str:
        """Where trials run, in a few words."""


@contextmanager
def open_executor(cfg: TuneConfig, train: TrainConfig) -> Iterator[Executor]:
    """The executor that was asked for."""
    if cfg.executor == "local":
        yield LocalExecutor(cfg, train)
        return
    from lerobot.search.cluster import ray_executor  # Ray is an extra

    with ray_executor(cfg, train) as executor:
        yield executor


class LocalExecutor:
    """Runs trials on this machine; places take the GPUs in turn."""

    def __init__(self, cfg: TuneConfig, train: TrainConfig) -> None:
        self.n_jobs = cfg.n_jobs
        self.gpus = visible_gpus(train) if cfg.gpus_per_trial != 0 else []
        self.gpus_per_trial = cfg.gpus_per_trial or 1
        self.hides_gpus = cfg.gpus_per_trial == 0
        self.num_threads = threads_per_trial(cfg)

    def start(self, job: Job, *, place: int) -> Trial:
        """A running process."""
        gpus = self.gpus_of(place)
        return TrialProcess(dataclasses.replace(job, gpus=gpus, num_threads=self.num_threads))

    def gpus_of(self, place: int) -> tuple[str, ...] | None:
        """Ids of the GPUs of a place; None where nothing is to be said about them."""
        if self.hides_gpus:
            return ()
        if not self.gpus:
            return None
        count = min(self.gpus_per_trial, len(self.gpus))
        return tuple(self.gpus[(place * count + i) % len(self.gpus)] for i in range(count))

    def describe(self) -> str:
        """'2 at once on this machine, each with CPU threads 8, GPUs 1 of 2'."""
        threads = self.num_threads or os.environ["OMP_NUM_THREADS"]
        share = f"CPU threads {threads}"
        if self.gpus:
            share += f", GPUs {min(self.gpus_per_trial, len(self.gpus))} of {len(self.gpus)}"
        return f"{self.n_jobs} at once on this machine, each with {share}"


def threads_per_trial(cfg: TuneConfig) -> int | None:
    """CPU threads of a trial: what was asked for, else the machine's divided; None where a user set them."""
    if cfg.cpus_per_trial is not None:
        return cfg.cpus_per_trial
    if "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // cfg.n_jobs)


def visible_gpus(train: TrainConfig) -> list[str]:
    """Ids of the CUDA devices that trials may use; none for a policy on another device."""
    assert train.policy is not None
    if train.policy.device is not None and not str(train.policy.device).startswith("cuda"):
        return []
    if VISIBLE in os.environ:
        return [word.strip() for word in os.environ[VISIBLE].split(",") if word.strip()]
    import torch  # counts devices without taking one

    return [str(i) for i in range(torch.cuda.device_count())]
