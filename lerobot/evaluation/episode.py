"""One running episode: an environment, what it returned last, and what has come of it so far."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot.evaluation.recording import EpisodeRecorder
from lerobot.evaluation.result import EpisodeResult
from lerobot.evaluation.video import EpisodeVideo

if TYPE_CHECKING:
    import gymnasium


@dataclass(kw_only=True)
class Episode:
    """One episode of an environment; `video` is filmed when it is set."""

    env: "gymnasium.Env"
    index: int
    seed: int | None
    group: str = ""
    task: str = ""
    video: EpisodeVideo | None = None
    recorder: EpisodeRecorder | None = None
    observation: Any = None
    rewards: list[float] = field(default_factory=list)
    success: bool = False
    is_done: bool = False

    def film(self, path: Path) -> None:
        """Leave a video there; call it before `start`."""
        self.video = EpisodeVideo(path, fps=self.env.metadata["render_fps"], title=self.task)

    def start(self) -> None:
        """Reset the environment."""
        with self._naming():
            self.observation, _ = self.env.reset(seed=self.seed)
            if self.recorder is not None:
                self.recorder.begin(self.observation)
            self._take_picture()

    def step(self, action: np.ndarray) -> None:
        """One control step with an action (A,)."""
        with self._naming():
            self.observation, reward, is_done, is_over_time, info = self.env.step(action)
            self.rewards.append(float(reward))
            self.success = self.success or bool(info.get("is_success", False))
            self.is_done = bool(is_done or is_over_time)
            if self.recorder is not None:
                self.recorder.step(
                    action,
                    self.observation,
                    reward=float(reward),
                    is_done=self.is_done,
                    is_success=bool(info.get("is_success", False)),
                )
            self._take_picture()

    def finish(self) -> EpisodeResult:
        """End it here, complete the video, and say what came of it."""
        self.is_done = True
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.finish()
        video, self.video = self.video, None
        return EpisodeResult(
            index=self.index,
            number=self.index,
            seed=self.seed,
            steps=len(self.rewards),
            sum_reward=sum(self.rewards),
            max_reward=max(self.rewards),
            success=self.success,
            video=video.finish() if video else None,
            group=self.group,
            task=self.task,
        )

    def abort(self) -> None:
        """Delete video and recording, if they are unfinished."""
        if self.recorder is not None:
            self.recorder.abort()
            self.recorder = None
        if self.video is not None:
            self.video.abort()
            self.video = None

    def _take_picture(self) -> None:
        if self.video is None:
            return
        words = f"episode {self.index}   step {len(self.rewards)}   reward {sum(self.rewards):.2f}"
        self.video.add(np.asarray(self.env.render()), words + ("   success" if self.success else ""))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Adds to an error which episode it happened in."""
        try:
            yield
        except Exception as error:
            error.add_note(f"It was episode {self.index} (seed {self.seed}) after {len(self.rewards)} steps.")
            raise
