"""The lines before a run: what is trained on what, how much, and where it goes."""

from lerobot.datasets.sampler import MixtureSampler
from lerobot.training.console import readable_count
from lerobot.training.run import Run
from lerobot.training.statistics import statistics_line
from lerobot.training.stream import StreamLoader


def header(run: Run) -> dict[str, str]:
    """The header: what is trained on what, how much, and where it goes."""
    cfg, total = run.cfg, sum(p.numel() for p in run.policy.parameters())
    trained = sum(p.numel() for p in run.policy.parameters() if p.requires_grad)
    size = f"{readable_count(total)} parameters"
    if trained < total:
        size += f", {readable_count(trained)} of them trained"
    assert cfg.policy is not None
    effective = cfg.batch_size * cfg.gradient_accumulation_steps * run.world.size
    epochs = cfg.steps * effective / run.loader.frames_per_epoch
    episodes, frames = run.dataset.num_episodes, run.dataset.num_frames
    rows = {
        "dataset": f"{cfg.dataset.label}: {episodes} episodes, {frames} frames at {run.dataset.fps} fps",
        **_mixture(run),
        **({"curriculum": run.curriculum.summary} if run.curriculum else {}),
        **({"weights": run.weighting.summary} if run.weighting else {}),
        "policy": f"{cfg.policy.type}, {size}, on {run.world.device}",
        "inputs": ", ".join(f"{n} {list(f.shape)}" for n, f in cfg.policy.input_features.items()),
        "batch": f"{effective} frames a step"
        + (
            f" ({cfg.batch_size} x {cfg.gradient_accumulation_steps} x {run.world.size} processes)"
            if effective != cfg.batch_size
            else ""
        ),
        "steps": f"{run.step} to {cfg.steps}, {epochs:.1f} passes over the data"
        if run.step
        else f"{cfg.steps}, {epochs:.1f} passes over the data",
        "output": str(run.output_dir),
    }
    whose = statistics_line(cfg)
    if whose is not None:
        rows.setdefault("statistics", whose)
    if cfg.policy.push_to_hub:
        rows["publish"] = f"{cfg.policy.repo_id}, at the end"
    return rows


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
