"""Record demonstrations of a scripted expert in a simulated environment.

lerobot-collect --env.type=so101 --env.difficulty=easy --dataset.repo_id=me/so101_easy --num_episodes=50
lerobot-collect --env.type=so101 --dataset.repo_id=me/so101_easy --num_episodes=20 --resume=true
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
    import gymnasium

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
    num_episodes: int = 50  # episodes to record now
    noise: float = 0.01  # rad by which the executed joint targets stray from the recorded ones
    seed: int = 100_000  # seed of the first episode, far from those that lerobot-eval uses
    keep_failures: bool = False  # also keep episodes in which the expert does not succeed
    resume: bool = False  # add episodes to a dataset that exists
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        if self.num_episodes < 1:
            raise ConfigError(f"--num_episodes={self.num_episodes}: expected at least 1.")
        if not self.noise >= 0:
            raise ConfigError(f"--noise={self.noise}: expected 0 or more.")
        if self.seed < 0:
            raise ConfigError(f"--seed={self.seed}: expected 0 or more.")


def collect(args: CollectConfig | Sequence[str] | None = None) -> Path:
    """Record episodes as a config, a list of flags, or (None) the command line says; returns the folder.

    Ctrl-C keeps every episode that was saved.
    """
    cfg = args if isinstance(args, CollectConfig) else parse(CollectConfig, args, program="lerobot-collect")
    from lerobot.control.collect import check_folder, open_dataset, world_with_expert  # torch loads here
    from lerobot.control.collect import collect as run
    from lerobot.evaluation.progress import EpisodeProgress

    folder = cfg.dataset.root or hub.lerobot_home() / cfg.dataset.repo_id
    check_folder(folder, resume=cfg.resume)
    env_cfg, env = started_env(cfg.env, seed=cfg.seed)
    world_with_expert(env)
    dataset = open_dataset(
        cfg.dataset.repo_id,
        folder,
        features=env_cfg.dataset_features(),
        fps=env_cfg.fps,
        robot_type=env_cfg.type,
        rgb_encoder=cfg.dataset.rgb_encoder,
        resume=cfg.resume,
    )
    before, stop = dataset.num_episodes, threading.Event()
    old_handler = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with EpisodeProgress(cfg.num_episodes, title="collecting") as shown:
            tally = run(
                env,
                dataset,
                num_episodes=cfg.num_episodes,
                noise=cfg.noise,
                first_seed=cfg.seed + RESUME_STRIDE * before,
                keep_failures=cfg.keep_failures,
                is_stopped=stop.is_set,
                tell=lambda tally: shown.update(
                    tally.saved, f"{tally.failed} failed" if tally.failed else ""
                ),
            )
    finally:
        dataset.finalize()
        env.close()
        signal.signal(signal.SIGINT, old_handler)
        if not dataset.num_episodes and not cfg.resume:
            shutil.rmtree(folder)  # made above, and empty but for its info.json
    print(f"saved {tally.saved} of {cfg.num_episodes} episodes; {tally.failed} failed and were left out")
    print(f"the dataset has {dataset.num_episodes} episodes, {dataset.num_frames} frames: {folder}")
    if stop.is_set():
        more = "--resume=true " if dataset.num_episodes else ""
        print(f"go on with: {more}--num_episodes={cfg.num_episodes - tally.saved}")
        raise KeyboardInterrupt
    return folder


def started_env(cfg: EnvConfig, *, seed: int) -> "tuple[EnvConfig, gymnasium.Env]":
    """The environment after one reset; without cameras, said aloud, where nothing can draw pictures."""
    env = cfg.build()
    try:
        env.reset(seed=seed)
    except EnvironmentSetupError as error:
        env.close()
        blind = dataclasses.replace(cfg, obs_type="state")  # type: ignore[call-arg]
        if blind == cfg:
            raise
        print(f"{error}\nGoing on without cameras: only states are recorded.")
        return started_env(blind, seed=seed)
    return cfg, env


@command
def main() -> None:
    """Entry point of `lerobot-collect`."""
    collect()


if __name__ == "__main__":
    main()
