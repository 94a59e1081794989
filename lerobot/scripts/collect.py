"""Record demonstrations of a scripted expert in a simulated environment.

lerobot-collect --env.type=so101 --env.difficulty=easy --dataset.repo_id=me/so101_easy --num_episodes=50
lerobot-collect --env.type=so101 --dataset.repo_id=me/so101_easy --num_episodes=20 --resume=true
lerobot-collect --env.type=metaworld --env.task=mt10 --env.obs_type=state --dataset.repo_id=me/mt10
"""

import dataclasses
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lerobot.core import hub
from lerobot.core.command import command
from lerobot.core.errors import ConfigError, EnvironmentSetupError
from lerobot.core.flags import parse
from lerobot.datasets.config import RGBEncoderConfig
from lerobot.envs.base import EnvConfig

if TYPE_CHECKING:
    from lerobot.control.collect import Tally

RESUME_STRIDE = 1000  # seeds set aside for each episode that is there already, and for failed attempts


@dataclass(kw_only=True)
class CollectedDatasetConfig:
    """The dataset that is written."""

    repo_id: str  # user/name, as it is called on the Hub
    root: Path | None = None  # its folder; null is the local home of datasets, below repo_id
    rgb_encoder: RGBEncoderConfig = field(default_factory=RGBEncoderConfig)  # how camera videos are encoded


@dataclass(kw_only=True)
class CollectConfig:
    """Record demonstrations of a scripted expert in a simulated environment."""

    env: EnvConfig  # where the expert acts
    dataset: CollectedDatasetConfig  # where its episodes go
    expert: str | None = None  # who acts; null is the environment's own expert
    num_episodes: int = 50  # episodes to record now, of each task
    # Standard deviation by which executed actions stray from recorded ones, in rad for joints, else in the
    # action's own units; null is what the environment's experts usually take.
    noise: float | None = None
    seed: int = 100_000  # seed of the first episode, far from those that lerobot-eval uses
    keep_failures: bool = False  # also keep episodes in which the expert does not succeed
    num_processes: int = 1  # that attempt episodes side by side; the dataset is the same for every number
    resume: bool = False  # add episodes to a dataset that exists
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        if self.num_episodes < 1:
            raise ConfigError(f"--num_episodes={self.num_episodes}: expected at least 1.")
        if self.noise is not None and not self.noise >= 0:
            raise ConfigError(f"--noise={self.noise}: expected 0 or more.")
        if self.num_processes < 1:
            raise ConfigError(f"--num_processes={self.num_processes}: expected at least 1.")
        if self.seed < 0:
            raise ConfigError(f"--seed={self.seed}: expected 0 or more.")


def collect(args: CollectConfig | Sequence[str] | None = None) -> Path:
    """Record episodes as a config, a list of flags, or (None) the command line says; returns the folder.

    Ctrl-C keeps every episode that was saved.
    """
    cfg = args if isinstance(args, CollectConfig) else parse(CollectConfig, args, program="lerobot-collect")
    from lerobot.control.attempts import Driver
    from lerobot.control.collect import check_folder, open_dataset  # torch loads here
    from lerobot.control.collect import collect as run
    from lerobot.evaluation.progress import EpisodeProgress

    folder = cfg.dataset.root or hub.lerobot_home() / cfg.dataset.repo_id
    check_folder(folder, resume=cfg.resume)
    env = tried(cfg.env, expert=cfg.expert, seed=cfg.seed)
    dataset = open_dataset(
        cfg.dataset.repo_id,
        folder,
        features=env.dataset_features(),
        fps=env.fps,
        robot_type=env.type,
        rgb_encoder=cfg.dataset.rgb_encoder,
        resume=cfg.resume,
    )
    stop = threading.Event()
    old_handler = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with EpisodeProgress(cfg.num_episodes * len(env.tasks), title="collecting") as shown:
            tallies = run(
                [env.with_task(task) for task in env.tasks],
                dataset,
                num_episodes=cfg.num_episodes,
                driver=Driver(cfg.expert, cfg.noise),
                first_seed=cfg.seed + RESUME_STRIDE * dataset.num_episodes,
                keep_failures=cfg.keep_failures,
                num_processes=cfg.num_processes,
                is_stopped=stop.is_set,
                tell=lambda tallies: shown.update(*summary(tallies)),
            )
    finally:
        dataset.finalize()
        signal.signal(signal.SIGINT, old_handler)
        if not dataset.num_episodes and not cfg.resume:
            shutil.rmtree(folder)  # made above, and empty but for its info.json
    print_result(env, tallies, num_episodes=cfg.num_episodes)
    print(f"the dataset has {dataset.num_episodes} episodes, {dataset.num_frames} frames: {folder}")
    if stop.is_set():
        for line in what_is_left(env, tallies, cfg.num_episodes):
            print("go on with: " + ("--resume=true " if dataset.num_episodes else "") + line)
        raise KeyboardInterrupt
    return folder


def tried(cfg: EnvConfig, *, expert: str | None, seed: int) -> EnvConfig:
    """The config of an environment that starts and has the expert; blind, and that is said, if nothing draws.

    Raises:
        ConfigError: it has no such expert.
    """
    from lerobot.control.attempts import world_with_expert

    env = cfg.with_task(cfg.tasks[0]).build()
    try:
        world_with_expert(env, expert)
        env.reset(seed=seed)
    except EnvironmentSetupError as error:
        blind = dataclasses.replace(cfg, obs_type="state")  # type: ignore[call-arg]
        if blind == cfg:
            raise
        print(f"{error}\nGoing on without cameras: only states are recorded.")
        return tried(blind, expert=expert, seed=seed)
    finally:
        env.close()
    return cfg


def summary(tallies: "list[Tally]") -> tuple[int, str]:
    """Episodes saved, and a word on those that failed."""
    failed = sum(tally.failed for tally in tallies)
    return sum(tally.saved for tally in tallies), f"{failed} failed" if failed else ""


def print_result(env: EnvConfig, tallies: "list[Tally]", *, num_episodes: int) -> None:
    """Say how many episodes of each task were saved, and how many failed."""
    for task, tally in zip(env.tasks, tallies, strict=True):
        where = f"{task.name}: " if len(tallies) > 1 else ""
        print(
            f"{where}saved {tally.saved} of {num_episodes} episodes; {tally.failed} failed and were left out"
        )


def what_is_left(env: EnvConfig, tallies: "list[Tally]", num_episodes: int) -> list[str]:
    """The flags, a line for each number of episodes, that collect what is missing."""
    if len(tallies) == 1:
        return [f"--num_episodes={num_episodes - tallies[0].saved}"]
    names: dict[int, list[str]] = {}
    for task, tally in zip(env.tasks, tallies, strict=True):
        if tally.saved < num_episodes:
            names.setdefault(num_episodes - tally.saved, []).append(str(task.name))
    return [f"--num_episodes={number} --env.task={','.join(tasks)}" for number, tasks in names.items()]


@command
def main() -> None:
    """Entry point of `lerobot-collect`."""
    collect()


if __name__ == "__main__":
    main()
