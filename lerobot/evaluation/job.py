"""One evaluation from its config to its report.

EvalPipelineConfig -> policy + pipelines -> episodes in simulation, or frames of a dataset -> report
"""

import dataclasses
import logging
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from lerobot.core import keys
from lerobot.core.config import encode
from lerobot.core.errors import ConfigError, EnvironmentFailedError
from lerobot.core.files import write_text
from lerobot.evaluation.config import EvalPipelineConfig
from lerobot.evaluation.replay import replay
from lerobot.evaluation.report import INFO_FILE, write_report
from lerobot.evaluation.result import EvalResult, ReplayResult
from lerobot.evaluation.rollout import evaluate
from lerobot.policies.classes import get_policy_class
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.device import asked_device
from lerobot.policies.locate import locate
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.processors import make_pre_post_processors
from lerobot.processor.defaults import Pair

logger = logging.getLogger(__name__)
FAILURE_FILE = "failure.txt"  # the traceback of an environment that failed
METRICS_FILE = "metrics.jsonl"  # of a training run, in its output folder
VIDEO_FOLDER = "videos"


def run(cfg: EvalPipelineConfig) -> tuple[EvalResult | ReplayResult, Path]:
    """What was found, and the path of the report.

    Raises:
        UserError: checkpoint, device, environment or dataset is not there, or they do not fit each other.
    """
    folder = output_dir(cfg)
    try:
        return found_and_reported(cfg, folder)
    except EnvironmentFailedError as error:
        path = folder / FAILURE_FILE
        write_text(path, "".join(traceback.format_exception(error)))
        error.add_note(f"Details: {path}")
        raise


def found_and_reported(cfg: EvalPipelineConfig, folder: Path) -> tuple[EvalResult | ReplayResult, Path]:
    """What was found, and the path of the report in that folder."""
    assert cfg.policy is not None
    checkpoint = locate(str(cfg.policy.pretrained_path), revision=cfg.policy.pretrained_revision)
    result: EvalResult | ReplayResult
    if cfg.env is not None and cfg.executor == "ray":
        from lerobot.evaluation.cluster import roll_out_on_ray  # Ray is an extra

        result, device = roll_out_on_ray(cfg, checkpoint, video_folder=folder / VIDEO_FOLDER)
    else:
        policy, processors = load(cfg.policy, checkpoint)
        device = policy.device
        if cfg.env is not None:
            result = roll_out(cfg, policy, processors, video_folder=folder / VIDEO_FOLDER)
        else:
            assert cfg.dataset is not None
            result = replay(
                policy,
                processors,
                cfg.dataset,
                n_episodes=cfg.eval.n_episodes,
                batch_size=cfg.batch_size,
                rename_map=cfg.rename_map,
                task=cfg.task,
            )
    facts = {"checkpoint": str(checkpoint), "policy": cfg.policy.type, "device": str(device)}
    result = dataclasses.replace(result, facts=facts)
    report = write_report(
        folder,
        evaluation=result if isinstance(result, EvalResult) else None,
        replay=result if isinstance(result, ReplayResult) else None,
        metrics_file=metrics_of(checkpoint),
        config=encode(cfg),
    )
    return result, report


def roll_out(
    cfg: EvalPipelineConfig, policy: PreTrainedPolicy, processors: Pair, *, video_folder: Path, **share: Any
) -> EvalResult:
    """What a policy does in `cfg.env`, in this process; `share` is passed on to `evaluate`."""
    assert cfg.env is not None
    return evaluate(
        policy,
        processors,
        cfg.env,
        n_episodes=cfg.eval.n_episodes,
        batch_size=cfg.eval.batch_size,
        num_processes=cfg.eval.num_processes if cfg.eval.use_async_envs else None,
        plan_batch_size=cfg.eval.plan_batch_size,
        seed=cfg.seed,
        max_videos=cfg.eval.max_videos,
        video_folder=video_folder,
        rename_map=cfg.rename_map,
        task=cfg.task,
        **share,
    )


def load(config: PreTrainedConfig, checkpoint: Path) -> tuple[PreTrainedPolicy, Pair]:
    """The policy of a checkpoint on the device that its config asks for, and its two pipelines.

    Raises:
        CheckpointError: weights or pipelines are missing or do not fit.
        DeviceError: the device is absent.
    """
    config.device = str(asked_device(config.device))
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
    return policy, make_pre_post_processors(config, checkpoint)


def output_dir(cfg: EvalPipelineConfig) -> Path:
    """The folder of the results; an earlier evaluation in it will be replaced, which is said.

    Raises:
        ConfigError: it is a file.
    """
    now = datetime.now().astimezone()
    folder = cfg.output_dir or Path("outputs/eval") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{cfg.name}"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output_dir={folder} is a file. Give a folder.")
    if (folder / INFO_FILE).exists():
        logger.warning("The earlier evaluation in %s will be replaced.", folder)
    return folder


def metrics_of(checkpoint: Path) -> Path | None:
    """The metrics of the run that a checkpoint folder belongs to, if it still lies there."""
    run = (
        checkpoint.resolve().parent.parent.parent if checkpoint.name == keys.PRETRAINED_FOLDER else checkpoint
    )
    path = run / METRICS_FILE
    return path if path.is_file() else None
