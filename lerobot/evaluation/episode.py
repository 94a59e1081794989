"""One running episode: an environment, what it returned last, and what has come of it so far.

    reset -> observations -> [policy] -> actions (n, A) -> n steps -> the last O observations -> ...

Shapes: O observations that a policy looks at, n actions planned ahead, A action size.
"""

import copy
import random
from collections import deque
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot.core.errors import (
    EnvironmentFailedError,
    EnvironmentSetupError,
    FeatureMismatchError,
    LeRobotError,
)
from lerobot.evaluation.assignment import Assignment
from lerobot.evaluation.recording import EpisodeRecorder
from lerobot.evaluation.result import EpisodeResult
from lerobot.evaluation.video import EpisodeVideo

if TYPE_CHECKING:
    import gymnasium

WATCHED = "is_watched"  # of an environment that can leave out pictures which nobody looks at


class Episode:
    """One episode of an environment; filmed and recorded where the assignment says so.

    Args:
        env: built for the assignment's task.
        num_looks: how many of the last observations a policy wants to see.
        text: what to call the task instead of the environment's own words.
    """

    def __init__(
        self, env: "gymnasium.Env", assignment: Assignment, *, num_looks: int = 1, text: str | None = None
    ) -> None:
        self.env, self.assignment, self.text = env, assignment, text
        self.observations: deque[Any] = deque(maxlen=num_looks)
        self.randomness = OwnRandomness(assignment.seed)
        self.can_skip_pictures = env.has_wrapper_attr(WATCHED)
        self.rewards: list[float] = []
        self.success = self.is_done = False
        self.recorder = EpisodeRecorder(assignment.recording) if assignment.recording else None
        self.video: EpisodeVideo | None = None
        self.renderer_problem: str | None = None  # why it is not filmed although it should be

    def start(self) -> None:
        """Reset the environment.

        Raises:
            EnvironmentFailedError: the environment failed; names the episode.
        """
        one = self.assignment
        with naming(one, self.rewards), self.randomness:
            self._watch(True)
            observation, _ = self.env.reset(seed=one.seed, options={"episode_index": one.index})
            self._keep(observation)
            if self.recorder is not None:
                self.recorder.begin(observation)
            self.text = self.text if self.text is not None else task_text(self.env)
            if one.video is not None:
                self._begin_film()

    def run(self, actions: np.ndarray) -> None:
        """So many control steps with these actions (n, A); fewer if it ends before.

        Raises:
            EnvironmentFailedError: the environment failed; names the episode and the step.
            FeatureMismatchError: the actions have another size than the environment takes.
        """
        wanted = self.env.action_space.shape or ()
        if actions.shape[1:] != wanted:
            raise FeatureMismatchError(
                f"The policy returned actions {list(actions.shape[1:])}; the environment takes "
                f"{list(wanted)}."
            )
        with naming(self.assignment, self.rewards), self.randomness:
            for left in range(len(actions), 0, -1):
                self._watch(left <= (self.observations.maxlen or 1) or self.recorder is not None)
                self._step(actions[-left])
                if self.is_done:
                    return

    def _step(self, action: np.ndarray) -> None:
        observation, reward, is_done, is_over_time, info = self.env.step(action)
        self._keep(observation)
        self.rewards.append(float(reward))
        is_success = bool(info.get("is_success", False))
        self.success = self.success or is_success
        is_cut_off = len(self.rewards) >= self.assignment.env.episode_length
        self.is_done = bool(is_done or is_over_time or is_cut_off)
        if self.recorder is not None:
            self.recorder.step(
                action, observation, reward=float(reward), is_done=self.is_done, is_success=is_success
            )
        self._take_picture()

    def _keep(self, observation: Any) -> None:
        """Remember an observation, copied where older ones stay: some environments reuse their arrays."""
        self.observations.append(observation if self.observations.maxlen == 1 else copy.deepcopy(observation))

    def _watch(self, is_watched: bool) -> None:
        if self.can_skip_pictures:
            self.env.set_wrapper_attr(WATCHED, is_watched)

    def finish(self) -> EpisodeResult:
        """Complete video and recording, and say what came of the episode."""
        if self.recorder is not None:
            self.recorder.finish()
        video, self.video = self.video, None
        return EpisodeResult(
            index=self.assignment.index,
            seed=self.assignment.seed,
            steps=len(self.rewards),
            sum_reward=sum(self.rewards),
            max_reward=max(self.rewards),
            success=self.success,
            video=video.finish() if video else None,
            group=self.assignment.task.group,
            task_id=self.assignment.task.id,
            task=self.text or "",
        )

    def abort(self) -> None:
        """Delete video and recording, if they are unfinished."""
        if self.recorder is not None:
            self.recorder.abort()
        if self.video is not None:
            self.video.abort()
            self.video = None

    def _begin_film(self) -> None:
        try:
            self.env.render()
        except EnvironmentSetupError as error:
            self.renderer_problem = str(error)
            return
        assert self.assignment.video is not None
        self.video = EpisodeVideo(
            self.assignment.video, fps=self.env.metadata["render_fps"], title=self.text or ""
        )
        self._take_picture()

    def _take_picture(self) -> None:
        if self.video is None:
            return
        words = f"episode {self.assignment.index}   step {len(self.rewards)}   reward {sum(self.rewards):.2f}"
        self.video.add(np.asarray(self.env.render()), words + ("   success" if self.success else ""))


@contextmanager
def naming(one: Assignment, steps: Sized) -> Iterator[None]:
    """Says with an error which episode it happened in, and after how many of its steps."""
    try:
        yield
    except LeRobotError as error:
        error.add_note(f"It was {one} after {len(steps)} steps.")
        raise
    except Exception as error:
        raise EnvironmentFailedError(
            f"The {one.env.type} environment failed in {one} after {len(steps)} steps: "
            f"{type(error).__name__}: {error}"
        ) from error


class OwnRandomness:
    """Inside, Python and NumPy draw from states of their own, which go on from one `with` to the next.

    Some environments draw from the global generators; so they meet the same numbers whoever else runs here.
    """

    def __init__(self, seed: int | None) -> None:
        entropy = np.random.SeedSequence(seed).generate_state(2)
        self.python = random.Random(int(entropy[0])).getstate()
        self.numpy = np.random.RandomState(entropy[1]).get_state()

    def __enter__(self) -> None:
        self.outside = random.getstate(), np.random.get_state()
        random.setstate(self.python)
        np.random.set_state(self.numpy)

    def __exit__(self, *error: object) -> None:
        self.python, self.numpy = random.getstate(), np.random.get_state()
        python, numpy = self.outside
        random.setstate(python)
        np.random.set_state(numpy)


def task_text(env: "gymnasium.Env") -> str:
    """What the environment calls its task, in words: `task_description`, else `task`, else nothing."""
    for name in ("task_description", "task"):
        if env.has_wrapper_attr(name):
            said = env.get_wrapper_attr(name)
            return str(said() if callable(said) else said)
    return ""
