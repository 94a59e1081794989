"""The process that rolls a policy out in simulation while the training goes on.

    FOLDER/pretrained_model/ + job.json -> policy, pipelines, environment -> evaluate -> result.json

It is started by evaluator.py as a program of its own, not forked: environments that are drawn in a fork hang,
and the training script is not run again. It steps back for the training: low priority, few threads.
"""

import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from lerobot.core import keys
from lerobot.core.config import decode, encode, read_file
from lerobot.core.errors import LeRobotError
from lerobot.core.files import write_json
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.job import load
from lerobot.evaluation.result import EvalResult
from lerobot.evaluation.rollout import evaluate
from lerobot.policies.config import PreTrainedConfig
from lerobot.training.precision import choose_kernels

JOB_FILE, RESULT_FILE, FAILURE_FILE = "job.json", "result.json", "failure.json"
WATCH_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Those of `evaluation.rollout.evaluate` besides the policy and the environment."""

    n_episodes: int
    batch_size: int
    num_processes: int | None
    plan_batch_size: int
    seed: int | None
    max_videos: int
    video_folder: Path
    rename_map: dict[str, str]
    task: str | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to evaluate, and how; `arguments` are those of `evaluate` there."""

    env: EnvConfig
    arguments: Arguments
    device: str
    num_threads: int
    is_deterministic: bool
    parent: int  # process id of the training


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no result: for a person, and in full for the log."""

    message: str
    details: str


def main(folder: Path) -> None:
    """Do the job of a folder and leave its result there."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the training decides when this ends
        signal.signal(number, signal.SIG_IGN)
    try:
        job = decode(Job, read_file(folder / JOB_FILE))
        write_json(folder / RESULT_FILE, encode(run(job, folder)))
    except Exception as error:  # noqa: BLE001 - whatever an environment does wrong is told to the training
        failure = Failure(message=said(error), details=traceback.format_exc())
        write_json(folder / FAILURE_FILE, encode(failure))


def run(job: Job, folder: Path) -> EvalResult:
    """The result of a job whose policy is in the folder."""
    threading.Thread(target=end_with, args=(job.parent,), daemon=True).start()
    torch.set_num_threads(job.num_threads)
    choose_kernels(torch.device(job.device), is_deterministic=job.is_deterministic)
    stored = folder / keys.PRETRAINED_FOLDER
    config = PreTrainedConfig.from_pretrained(stored)
    config.device = job.device
    policy, processors = load(config, stored)
    return evaluate(policy, processors, job.env, **vars(job.arguments))


def said(error: Exception) -> str:
    """An error in one paragraph: its message, with its kind where it is not one of ours."""
    text = str(error) if isinstance(error, LeRobotError) else f"{type(error).__name__}: {error}"
    return " ".join([text, *getattr(error, "__notes__", [])])


def end_with(parent: int) -> None:
    """End this process when the training has ended, however that happened."""
    while os.getppid() == parent:
        time.sleep(WATCH_EVERY_S)
    os._exit(1)
