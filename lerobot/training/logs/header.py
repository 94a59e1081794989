"""The lines before a run: what is trained on what, how, how long, what happens on the way, where it goes."""

import torch

from lerobot.datasets.sampler import MixtureSampler
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.distributed.shard import is_sharded
from lerobot.training.gauges.preflight import memory_rows
from lerobot.training.logs.console import readable_count
from lerobot.training.precision import half_precision
from lerobot.training.run import Run
from lerobot.training.sampling.stream import StreamLoader
from lerobot.training.statistics import statistics_line


def header(run: Run) -> dict[str, str]:
    """Names and values, in the order they are shown."""
    rows = {
        "data": _data(run),
        "statistics": statistics_line(run.cfg) or "",
        **_mixture(run),
        "experience": run.experience.summary if run.experience else "",
        "curriculum": run.curriculum.summary if run.curriculum else "",
        "weights": run.weighting.summary if run.weighting else "",
        "policy": _policy(run),
        "inputs": _features(run.policy.config.input_features),
        "actions": _features(run.policy.config.output_features),
        "device": _device(run),
        **memory_rows(run),
        "batch": _batch(run),
        "processes": _processes(run),
        "optimizer": _optimizer(run),
        "steps": _steps(run),
        "evaluation": _evaluation(run),
        "checkpoints": _checkpoints(run),
        "folder": str(run.output_dir),
        "metrics": ", ".join(run.tracker.places) if run.tracker is not None else "",
    }
    if run.policy.config.push_to_hub:
        rows["publish"] = f"{run.policy.config.repo_id}, at the end"
    return {name: value for name, value in rows.items() if value}


def _data(run: Run) -> str:
    data = run.dataset
    size = f"{data.num_episodes:,} episodes, {data.num_frames:,} frames at {data.fps} fps"
    text = f"{run.cfg.dataset.label}: {size}"
    held_out = run.held_out
    count = held_out.num_frames if isinstance(held_out, StreamingLeRobotDataset) else len(held_out or ())
    return f"{text}; {count:,} frames held out" if count else text


def _processes(run: Run) -> str:
    """How several processes train one policy."""
    if run.world.size == 1:
        return ""
    how = "one policy in shards (fsdp)" if is_sharded(run.policy) else "each with a copy of the policy (ddp)"
    return f"{run.world.size}, {how}"


def _mixture(run: Run) -> dict[str, str]:
    """How frames are mixed: how much of each dataset an epoch holds, and whose statistics are used."""
    if isinstance(run.loader, StreamLoader):
        return {"streaming": f"mixed in a buffer of {run.cfg.dataset.buffer_size} frames"}
    sampler, names = run.loader.sampler, run.cfg.dataset.names
    if not isinstance(sampler, MixtureSampler):
        return {}
    shares = (
        f"{name} {count / len(sampler):.0%} ({len(frames)} frames)"
        for name, count, frames in zip(names, sampler.counts, sampler.frames, strict=True)
    )
    rows = {"mixture": ", ".join(shares)}
    if run.other_processors:
        rows["statistics"] = f"each dataset its own; the policy keeps those of {names[0]}"
    return rows


def _policy(run: Run) -> str:
    weights = list(run.policy.parameters())
    total = sum(one.numel() for one in weights)
    trained = sum(one.numel() for one in weights if one.requires_grad)
    start = (
        f"from {run.policy.config.pretrained_path}" if run.policy.config.pretrained_path else "from scratch"
    )
    how_many = "all" if trained == total else f"{readable_count(trained)} ({trained / total:.1%})"
    name = run.policy.config.type
    return f"{name}, {readable_count(total)} parameters, {how_many} of them trained, {start}"


def _features(features: dict) -> str:
    return ", ".join(f"{name} {list(feature.shape)}" for name, feature in features.items())


def _device(run: Run) -> str:
    device = run.world.device
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    dtype = half_precision(run.cfg, device) or torch.float32
    return f"{device}{name}, {str(dtype).removeprefix('torch.')}{', compiled' if run.cfg.compile else ''}"


def _batch(run: Run) -> str:
    """How many frames a step sees, and what --batch_size counts where that is a question."""
    each, micro, processes = run.loader.batch_size, run.cfg.gradient_accumulation_steps, run.world.size
    factors = [f"{each}", *([f"{micro} micro-batches"] if micro > 1 else [])]
    factors += [f"{processes} processes"] if processes > 1 else []
    text = f"{each * micro * processes} frames a step"
    if len(factors) > 1:
        text += f" = {' × '.join(factors)}"
    if processes > 1:
        text += f"; --batch_size is {'per process' if run.cfg.global_batch_size is None else 'global'}"
    return text


def _optimizer(run: Run) -> str:
    cfg = run.cfg
    settings = cfg.optimizer or run.policy.config.get_optimizer_preset()
    groups = run.optimizer.param_groups
    rates = sorted({group.get("initial_lr", group["lr"]) for group in groups}, reverse=True)
    words = [settings.type, "lr " + " and ".join(f"{rate:g}" for rate in rates)]
    decays = sorted({group.get("weight_decay", 0.0) for group in groups}, reverse=True)
    words += ["weight decay " + " and ".join(f"{decay:g}" for decay in decays)] if any(decays) else []
    words += [f"gradients clipped at {run.grad_clip_norm:g}"] if run.grad_clip_norm > 0 else []
    if cfg.scheduler is None:
        return ", ".join([*words, "constant lr"])
    shape = getattr(cfg.scheduler, "name", None) or cfg.scheduler.type
    warmup = cfg.scheduler.num_warmup_steps
    return ", ".join([*words, f"schedule {shape}", *([f"{warmup:,} warm-up steps"] if warmup else [])])


def _steps(run: Run) -> str:
    cfg = run.cfg
    frames = run.loader.batch_size * cfg.gradient_accumulation_steps * run.world.size
    epochs = cfg.steps * frames / run.loader.frames_per_epoch
    start = f"{run.step:,} to " if run.step else ""
    if run.experience is not None:
        return f"{start}{cfg.steps:,}"
    return f"{start}{cfg.steps:,}, {epochs:.1f} passes over {run.loader.frames_per_epoch:,} frames"


def _evaluation(run: Run) -> str:
    cfg, words = run.cfg, []
    if cfg.eval_steps:
        words.append(f"loss on held-out frames every {cfg.eval_steps:,} steps")
    if cfg.env is not None and cfg.eval_freq:
        words.append(f"{cfg.eval.n_episodes} episodes of {cfg.env.type} every {cfg.eval_freq:,} steps")
    return "; ".join(words) or "none (--dataset.eval_split=0.1 --eval_steps=N, or --env.type=NAME)"


def _checkpoints(run: Run) -> str:
    cfg = run.cfg
    if not cfg.save_checkpoint:
        return "none"
    text = f"every {cfg.save_freq:,} steps and at the end" if 0 < cfg.save_freq < cfg.steps else "at the end"
    text += f"; the last {cfg.keep_last} stay" if cfg.keep_last else ""
    return text + (f"; the best by {cfg.keep_best} stays" if cfg.keep_best else "")
