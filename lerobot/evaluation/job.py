"""One evaluation from its config to its report.

EvalPipelineConfig -> policy + pipelines -> episodes in simulation, or frames of a dataset -> report
--compare=A,B      -> both in the same episodes, or two earlier evaluations -> comparison -> report
"""

import dataclasses
import json
import logging
import traceback
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from lerobot.core import keys
from lerobot.core.config import encode
from lerobot.core.errors import ConfigError, EnvironmentFailedError
from lerobot.core.files import write_text
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.compare_page import compare_parts
from lerobot.evaluation.comparison import Comparison, compare
from lerobot.evaluation.config import EvalPipelineConfig
from lerobot.evaluation.fit import fitting_env
from lerobot.evaluation.provenance import provenance
from lerobot.evaluation.recording import RECORDING_FOLDER, Recordings
from lerobot.evaluation.replay import replay
from lerobot.evaluation.replay_result import ReplayResult
from lerobot.evaluation.report import INFO_FILE, write_page, write_report
from lerobot.evaluation.result import VIDEO_FOLDER, EpisodeResult, EvalResult, task_name
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
COMPARISON_FILE = "comparison.json"
SIDES = ("a", "b")  # folders of the two evaluations of a comparison


def run(cfg: EvalPipelineConfig) -> tuple[EvalResult | ReplayResult | Comparison, Path]:
    """What was found, and the path of the report.

    Raises:
        UserError: checkpoint, device, environment or dataset is not there, or they do not fit each other.
    """
    folder = output_dir(cfg)
    try:
        return run_comparison(cfg, folder) if cfg.compare is not None else run_one(cfg, folder)
    except EnvironmentFailedError as error:
        path = folder / FAILURE_FILE
        write_text(path, "".join(traceback.format_exception(error)))
        error.add_note(f"Details: {path}")
        raise


def run_one(cfg: EvalPipelineConfig, folder: Path) -> tuple[EvalResult | ReplayResult, Path]:
    """What was found of the policy of a config, and the path of the report in that folder."""
    policy = cfg.policy
    assert policy is not None
    checkpoint = locate(str(policy.pretrained_path), revision=policy.pretrained_revision)
    if cfg.executor != "ray":  # whose machines have devices of their own
        policy.device = str(asked_device(policy.device))
    cfg = dataclasses.replace(cfg, env=fitting(cfg, policy, checkpoint))
    recordings: Recordings | None = None
    if cfg.env is not None and cfg.eval.recording:
        recordings = Recordings(folder / RECORDING_FOLDER, cfg.env, repo_id=cfg.eval.recording_repo_id)
    result, device = measure(cfg, checkpoint, video_folder=folder / VIDEO_FOLDER, recordings=recordings)
    facts = {
        **result.facts,
        "checkpoint": str(checkpoint),
        "policy": policy.type,
        "device": str(device),
        "seed": cfg.seed,
        **provenance(checkpoint, device=device, env=cfg.env),
        "config": encode(cfg),
        **({"recordings": [str(path) for path in recordings.folders]} if recordings else {}),
    }
    result = dataclasses.replace(result, facts=facts)
    report = write_report(
        folder,
        evaluation=result if isinstance(result, EvalResult) else None,
        replay=result if isinstance(result, ReplayResult) else None,
        metrics_file=metrics_of(checkpoint),
        config=facts["config"],
    )
    if recordings is not None and cfg.eval.recording_repo_id is not None:  # when all results are safe
        for address in recordings.push(private=cfg.eval.recording_private):
            logger.info("The recordings are at %s", address)
    return result, report


def measure(
    cfg: EvalPipelineConfig, checkpoint: Path, *, video_folder: Path, recordings: Recordings | None
) -> tuple[EvalResult | ReplayResult, torch.device]:
    """What the policy of a checkpoint does, here or on a cluster, and the device that it was on."""
    assert cfg.policy is not None
    if cfg.env is not None and cfg.executor == "ray":
        from lerobot.evaluation.cluster import roll_out_on_ray  # Ray is an extra

        return roll_out_on_ray(cfg, checkpoint, video_folder=video_folder)
    policy, processors = load(cfg.policy, checkpoint)
    if cfg.env is not None:
        with recordings or nullcontext():
            result = roll_out(cfg, policy, processors, video_folder=video_folder, recordings=recordings)
        return result, policy.device
    assert cfg.dataset is not None
    compared = replay(
        policy,
        processors,
        cfg.dataset,
        n_episodes=cfg.eval.n_episodes,
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        rename_map=cfg.rename_map,
        task=cfg.task,
    )
    return compared, policy.device


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
        max_videos=0 if cfg.eval.recording else cfg.eval.max_videos,  # recordings instead of videos
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


# ------------------------------------------------------------------------------------------------ comparison
def run_comparison(cfg: EvalPipelineConfig, folder: Path) -> tuple[Comparison, Path]:
    """The comparison of what `cfg.compare` names, and the path of its report.

    With an environment these are policies, which are evaluated into the folders a and b; without, folders of
    earlier evaluations.
    """
    names = cfg.compared
    sides: list[EvalResult | ReplayResult]
    if cfg.env is None:
        sides = [read_result(Path(name)) for name in names]
    else:
        both = [of_side(cfg, name) for name in names]  # what is wrong with B is said before A has run
        sides = [run_one(one, folder / side)[0] for one, side in zip(both, SIDES, strict=True)]
    a, b = sides
    assert isinstance(a, EvalResult) and isinstance(b, EvalResult)
    found = compare(a, b, names=(names[0], names[1]))
    write_text(folder / COMPARISON_FILE, json.dumps(found.to_tree(), indent=2, ensure_ascii=False))
    title = f"Two policies in {a.where}"
    parts = compare_parts(found, folder)
    return found, write_page(folder, title, parts, config=encode(cfg), used=a.facts["versions"])


def of_side(cfg: EvalPipelineConfig, name: str) -> EvalPipelineConfig:
    """The config of an evaluation of one of the two policies.

    Raises:
        CheckpointError: it is not there.
        FeatureMismatchError: it does not fit the environment.
    """
    assert cfg.policy is not None and cfg.env is not None
    policy = PreTrainedConfig.from_pretrained(name)
    policy.pretrained_path = name
    policy.device = str(asked_device(cfg.policy.device))
    env = fitting(cfg, policy, locate(name))
    return dataclasses.replace(cfg, policy=policy, env=env, compare=None)


def fitting(cfg: EvalPipelineConfig, policy: PreTrainedConfig, checkpoint: Path) -> EnvConfig | None:
    """The environment to evaluate in, if there is one, such that the policy of a checkpoint fits it.

    Raises:
        FeatureMismatchError: it does not fit.
    """
    if cfg.env is None:
        return None
    preprocessor, _ = make_pre_post_processors(policy, checkpoint)
    return fitting_env(policy, cfg.env, preprocessor, rename_map=cfg.rename_map)


def read_result(path: Path) -> EvalResult:
    """The earlier evaluation in a folder, or in its `eval_info.json`.

    Raises:
        ConfigError: there is none, or none in simulation.
    """
    file = path if path.is_file() else path / INFO_FILE
    if not file.is_file():
        raise ConfigError(
            f"--compare: there is no {INFO_FILE} in {path}. Without --env.type two folders of earlier "
            "evaluations are compared; to evaluate two policies, add --env.type=NAME."
        )
    try:
        tree: Any = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file} cannot be read as JSON: {error}") from error
    result = EvalResult.from_tree(tree, source=str(file))
    return dataclasses.replace(result, episodes=[_with_video(one, file.parent) for one in result.episodes])


def _with_video(episode: EpisodeResult, folder: Path) -> EpisodeResult:
    """The episode with its video where that is now: the folder may have been moved."""
    if episode.video is None:
        return episode
    return dataclasses.replace(
        episode, video=folder / VIDEO_FOLDER / task_name(episode.task_key) / episode.video.name
    )


# ---------------------------------------------------------------------------------------------------- places
def output_dir(cfg: EvalPipelineConfig) -> Path:
    """The folder of the results; an earlier evaluation in it will be replaced, which is said.

    Raises:
        ConfigError: it is a file, or holds an evaluation where a comparison is to be written.
    """
    now = datetime.now().astimezone()
    folder = cfg.output_dir or Path("outputs/eval") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{cfg.name}"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output_dir={folder} is a file. Give a folder.")
    if cfg.compare is not None and (folder / INFO_FILE).exists():
        raise ConfigError(
            f"--output_dir={folder} holds an evaluation, whose report would be replaced by that of the "
            "comparison. Give another folder."
        )
    if any((folder / name).exists() for name in (INFO_FILE, COMPARISON_FILE)):
        logger.warning("The earlier evaluation in %s will be replaced.", folder)
    return folder


def numbers_file(report: Path, result: EvalResult | ReplayResult | Comparison) -> Path:
    """The file for programs, beside the report."""
    return report.parent / (COMPARISON_FILE if isinstance(result, Comparison) else INFO_FILE)


def metrics_of(checkpoint: Path) -> Path | None:
    """The metrics of the run that a checkpoint folder belongs to, if it still lies there."""
    run = (
        checkpoint.resolve().parent.parent.parent if checkpoint.name == keys.PRETRAINED_FOLDER else checkpoint
    )
    path = run / METRICS_FILE
    return path if path.is_file() else None
