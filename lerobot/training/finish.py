"""The end of a run: a report to look at, the upload that was asked for, and what to type next."""

import shlex
from pathlib import Path

from lerobot.core import keys
from lerobot.core.config import encode
from lerobot.core.flags import flags_of
from lerobot.training.checkpoints.checkpoint import EMA_FOLDER
from lerobot.training.checkpoints.pruning import keep_best
from lerobot.training.logs.metrics import METRICS_FILE
from lerobot.training.run import Run


def finish(run: Run) -> Path:
    """Write `report.html`, publish, say where everything is; gives the last checkpoint's folder."""
    last = run.last_checkpoint or run.output_dir
    if not run.world.is_main:
        return last
    if run.cfg.keep_best and run.last_checkpoint is not None:
        # Evaluations may have come in since the last save.
        keep_best(run.last_checkpoint.parent, run.output_dir / METRICS_FILE, run.cfg.keep_best)
    from lerobot.evaluation.report import write_report  # what only the end needs delays no start
    from lerobot.training.logs.story import tell

    is_early = run.has_stalled and not run.finished
    if is_early and run.patience is not None:
        run.console.say(f"Ended early after step {run.step}: {run.patience.reason()}.")
    report = write_report(
        run.output_dir,
        evaluation=run.last_evaluation,
        metrics_file=run.output_dir / METRICS_FILE,
        story=tell(run),
        config=encode(run.cfg),
    )
    if run.advisor.said is not None:
        run.console.say(f"speed       {run.advisor.said.advice}")
    run.console.say(f"report      {report}")
    if not run.finished and not is_early:
        _say_how_to_resume(run)
        return last
    if run.last_checkpoint is not None:
        is_averaged = run.ema is not None and run.cfg.ema.use_for_eval
        folder = run.last_checkpoint / (EMA_FOLDER if is_averaged else keys.PRETRAINED_FOLDER)
        run.console.say(f"checkpoint  {folder}")
        run.console.say(f"next        lerobot-eval --policy.path={folder} {_where_to_evaluate(run)}")
    _publish(run)
    return last


def _where_to_evaluate(run: Run) -> str:
    """The flags by which `lerobot-eval` finds the same environment, or else the same dataset."""
    cfg = run.cfg
    if cfg.env is not None:
        changed = [f for f in flags_of(cfg.env, "env.") if f not in flags_of(type(cfg.env)(), "env.")]
        return shlex.join([f"--env.type={cfg.env.type}", *changed])
    name, root = cfg.dataset.names[0], cfg.dataset.roots[0]
    return shlex.join([f"--dataset.repo_id={name}", *([f"--dataset.root={root}"] if root else [])])


def _publish(run: Run) -> None:
    config = run.policy.config
    if config.push_to_hub:
        url = run.evaluated_policy.push_to_hub(config.repo_id, processors=run.processors)
        run.console.say(f"published   {url}")


def _say_how_to_resume(run: Run) -> None:
    if run.last_checkpoint is None:
        run.console.say(f"Stopped at step {run.step}; nothing was saved (--save_checkpoint=false).")
        return
    last = run.output_dir / keys.CHECKPOINTS_FOLDER / keys.LAST_LINK
    config = last / keys.PRETRAINED_FOLDER / keys.TRAIN_CONFIG_FILE
    words = ["lerobot-train", f"--config_path={config}", "--resume=true"]
    run.console.say(f"Stopped after step {run.step}; the run is saved. Continue it with:")
    run.console.say(f"  {shlex.join(words)}")
