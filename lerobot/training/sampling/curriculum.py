"""Easy episodes first: which part of the data is drawn at each stage of a run, and in which order.

    difficulty of every episode -> ranked -> stage k of the run draws from its easiest `shares[k]`
    step / steps -> stage: before thresholds[0] easy, before thresholds[1] medium, then all episodes

Bengio et al. 2009, "Curriculum Learning". A pass goes through the frames of the drawn episodes once, in
random order; a stage begins a new one. The order is a function of seed, pass and stage, and with
difficulty=loss of what was measured before the pass; never of workers or processes.
Shapes: E episodes of all datasets together, N frames of one dataset that are trained on, B items of a batch.
"""

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import TrainingError
from lerobot.distributed.world import World
from lerobot.training.logs.metrics import Row
from lerobot.training.sampling.data import Batch, BatchLoader, BatchSource, Position, Sampler
from lerobot.training.sampling.data import Part as BatchPart
from lerobot.training.sections import CurriculumConfig

NAMES = ("easy", "medium", "hard")  # of three stages


@dataclass(frozen=True, kw_only=True)
class Part:
    """The frames of one dataset that are trained on, by the numbers that batches use."""

    frames: Tensor  # (N,) items
    episodes: np.ndarray  # (N,) episode of each


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over what a stage draws from, of micro-batches `first` up to `end` of this process."""

    first: int
    end: int
    position: Position  # where it begins
    stage: int
    num_frames: int  # drawn from
    num_episodes: int
    difficulty: float  # mean of the drawn episodes that have one; else NaN


class Curriculum:
    """Chooses episodes by stage; `passes` is what was drawn so far.

    Args:
        difficulty: (E,) number of each episode; None measures the running loss of each, and those that were
            not seen yet count as easiest.
    """

    def __init__(
        self,
        settings: CurriculumConfig,
        parts: Sequence[Part],
        *,
        num_episodes: int,
        difficulty: np.ndarray | None,
        world: World,
    ) -> None:
        self.settings, self.parts, self.world = settings, list(parts), world
        self.shares = [*settings.shares, 1.0]
        self.losses = RunningLosses(num_episodes, world) if difficulty is None else None
        self.difficulty = difficulty
        self.total = sum(len(part.frames) for part in self.parts)
        self.steps, self.first_step, self.num_micro = 1, 0, 1
        self.saved_rule: Mapping[str, Any] | None = None
        self.passes: list[Pass] = []

    def begin(self, *, first_step: int, steps: int, num_micro: int) -> None:
        """Say where the run is: the step it goes on from, how many it has, and micro-batches per step."""
        self.first_step, self.steps, self.num_micro = first_step, steps, num_micro

    # --- stages
    def stage(self, step: int) -> int:
        """The stage in which a run that has taken `step` steps takes its next one; 0 is the first."""
        return stage_of(step, self.steps, thresholds=self.settings.thresholds)

    def span(self, stage: int) -> tuple[int, int]:
        """The steps after which a stage begins and ends."""
        ends = [math.ceil(self.steps * threshold) for threshold in self.settings.thresholds]
        return [0, *ends][stage], [*ends, self.steps][stage]

    def stages_left(self) -> Iterator[tuple[int, float]]:
        """Each stage that is still to come, and the micro-batch of this process at which it ends."""
        last = len(self.shares) - 1
        for stage in range(self.stage(self.first_step), last):
            yield stage, (self.span(stage)[1] - self.first_step) * self.num_micro
        yield last, math.inf  # readers run ahead of the last step

    # --- what is drawn
    def draw(self, start: Position, *, size: int) -> Iterator[tuple[Pass, list[Tensor]]]:
        """The passes from a position on, in batches of `size` frames of all processes together.

        With each come the frames of every dataset that it goes through.

        With measured losses every process must ask for the next pass after the same batch.
        """
        first, self.passes = 0, []
        position = start if self._goes_on(start) else _next_pass(start)
        for stage, end in self.stages_left():
            while first < end:
                one, frames = self._choose(stage, position)
                left = max(0, math.ceil((one.num_frames - position.offset) / size))
                one = replace(one, first=first, end=int(min(end, first + left)))
                self.passes.append(one)
                yield one, frames
                first, position = one.end, _next_pass(position)

    def _choose(self, stage: int, position: Position) -> tuple[Pass, list[Tensor]]:
        difficulty = self.losses.at(position.epoch) if self.losses else self.difficulty
        assert difficulty is not None
        drawn = [easiest(part.episodes, difficulty, share=self.shares[stage]) for part in self.parts]
        known = difficulty[np.concatenate(drawn)]
        frames = [
            part.frames[torch.from_numpy(np.isin(part.episodes, chosen))]
            for part, chosen in zip(self.parts, drawn, strict=True)
        ]
        one = Pass(
            first=0,
            end=0,
            position=position,
            stage=stage,
            num_frames=sum(map(len, frames)),
            num_episodes=len(known),
            difficulty=math.nan if np.isnan(known).all() else float(np.nanmean(known)),
        )
        return one, frames

    def _goes_on(self, start: Position) -> bool:
        """Whether a run that begins there goes on with the pass it was saved in: its stage draws the same."""
        if start.epoch == start.offset == 0:
            return True
        saved = self.saved_rule
        if saved is None or saved["difficulty"] != self.settings.difficulty:
            return False
        before = stage_of(self.first_step, saved["steps"], thresholds=saved["thresholds"])
        return [*saved["shares"], 1.0][before] == self.shares[self.stage(self.first_step)]

    def position(self, batch: int, start: Position, *, size: int) -> Position:
        """Where the order stands before a batch of this process that was asked for already."""
        last = self._pass_of(batch)
        if last is None:
            return start
        if batch >= last.end:
            return _next_pass(last.position)
        return last.position.at(offset=last.position.offset + (batch - last.first) * size)

    def _pass_of(self, batch: int) -> Pass | None:
        """The last pass that begins at or before a batch of this process, if one was begun."""
        place = bisect.bisect_right(self.passes, batch, key=lambda one: one.first)
        return self.passes[place - 1] if place else None

    def observe(self, batch: Batch, info: Mapping[str, Any] | None) -> None:
        """Learn from a trained batch how hard its episodes are, where that is measured."""
        if self.losses is not None:
            self.losses.observe(batch, info)

    # --- what a person sees
    def row(self, step: int) -> Row:
        """What the step that led to `step` was drawn from."""
        now = self._pass_of((step - self.first_step) * self.num_micro - 1)
        if now is None:
            return {}
        row: Row = {
            "curriculum/stage": now.stage + 1,
            "curriculum/episodes": now.num_episodes,
            "curriculum/frames_share": now.num_frames / self.total,
        }
        return row if math.isnan(now.difficulty) else row | {"curriculum/difficulty": now.difficulty}

    def announce(self, step: int, *, say: Callable[[str], None]) -> None:
        """Say so when a stage begins with the next step, or the run goes on in one."""
        stage = self.stage(step)
        begins, ends = self.span(stage)
        if step in (begins, self.first_step):
            share = self.shares[stage]
            what = "all episodes" if share == 1 else f"the easiest {share:.0%} of the episodes"
            until = f" until step {ends}" if ends < self.steps else ""
            say(f"curriculum  {stage_name(stage, len(self.shares))}: {what}{until}")

    @property
    def summary(self) -> str:
        """One line for the header."""
        early = [f"{share:.0%} until step {self.span(k)[1]}" for k, share in enumerate(self.settings.shares)]
        return f"easiest episodes first, by {self.settings.difficulty}: {', '.join(early)}, then all"

    # --- what survives a resume
    def state_dict(self) -> dict[str, Any]:
        """Plain values; every process must ask."""
        rule = {
            "difficulty": self.settings.difficulty,
            "steps": self.steps,
            "thresholds": list(self.settings.thresholds),
            "shares": list(self.settings.shares),
        }
        return {"rule": rule} | ({"losses": self.losses.state_dict()} if self.losses else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was asked."""
        self.saved_rule = state["rule"]
        if self.losses is not None and "losses" in state:
            self.losses.load_state_dict(state["losses"])


class RunningLosses:
    """The latest mean loss of each episode's items: summed on the device, read when a pass begins."""

    def __init__(self, num_episodes: int, world: World) -> None:
        self.world = world
        self.known = np.full(num_episodes, np.nan)  # (E,)
        self.epoch: int | None = None  # the pass that `known` was read for
        self.sums = torch.zeros(2, num_episodes, device=world.device)  # losses and items since then

    def observe(self, batch: Batch, info: Mapping[str, Any] | None) -> None:
        """Add the losses of a trained batch; nothing waits for the device.

        Raises:
            TrainingError: the policy does not tell the loss of each item.
        """
        losses = (info or {}).get("item_losses")  # (B,)
        if losses is None:
            raise TrainingError(
                "--curriculum.difficulty=loss needs the loss of each item, which this policy does not tell. "
                "Rank by length, column:NAME or a JSON file."
            )
        both = torch.stack(
            [losses.detach().to(self.sums.dtype), torch.ones_like(self.sums[0, : len(losses)])]
        )
        self.sums.index_add_(1, batch[keys.EPISODE_INDEX], both)

    def at(self, epoch: int) -> np.ndarray:
        """The losses (E,) by which a pass is chosen, NaN for episodes not seen; read once per pass."""
        if self.epoch != epoch:
            total, count = self._pending()
            seen = count > 0
            self.known = self.known.copy()
            self.known[seen] = total[seen] / count[seen]
            self.sums.zero_()
            self.epoch = epoch
        return self.known

    def _pending(self) -> np.ndarray:
        """Sums and counts (2, E) of all processes."""
        return np.sum(self.world.gather(self.sums.cpu().numpy()), axis=0)

    def state_dict(self) -> dict[str, Any]:
        """Plain values; every process must ask."""
        total, count = self._pending()
        known = [None if np.isnan(one) else one for one in self.known.tolist()]
        return {"epoch": self.epoch, "known": known, "sums": total.tolist(), "counts": count.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was asked; with another number of episodes measure anew."""
        if len(state["known"]) != len(self.known):
            return
        self.epoch = state["epoch"]
        self.known = np.array([np.nan if one is None else one for one in state["known"]], dtype=np.float64)
        if self.world.is_main:  # one process holds what all had measured
            self.sums.copy_(torch.tensor([state["sums"], state["counts"]]))


class StagedLoader(BatchLoader):
    """Batches in the order of a curriculum; otherwise made like a `BatchLoader`."""

    def __init__(self, curriculum: Curriculum, dataset: BatchSource, sampler: Sampler, **how: Any) -> None:
        super().__init__(dataset, sampler, **how)
        self.curriculum = curriculum

    @property
    def frames_per_epoch(self) -> int:
        """Frames of all episodes; a pass of an early stage has fewer."""
        return self.curriculum.total

    def position(self, num_batches: int) -> Position:
        """Where the order stands after so many batches of this loader, which were asked for already."""
        return self.curriculum.position(num_batches, self.start, size=self.batch_size * self.num_ranks)

    def parts(self) -> Iterator[BatchPart | None]:
        """What this process reads of each batch; None where what follows depends on the steps before."""
        for one, frames in self.curriculum.draw(self.start, size=self.batch_size * self.num_ranks):
            order = BatchLoader(
                self.dataset,
                self.sampler.over(frames),
                batch_size=self.batch_size,
                rank=self.rank,
                num_ranks=self.num_ranks,
            )
            order.start = replace(one.position, frames_per_epoch=len(order.sampler))
            yield from islice(order.parts(), one.end - one.first)
            if self.curriculum.losses is not None:
                yield None


def stage_of(step: int, steps: int, *, thresholds: Sequence[float]) -> int:
    """The stage of a run of `steps` steps that has taken `step`: how many thresholds it has reached."""
    return sum(step >= steps * threshold for threshold in thresholds)


def stage_name(stage: int, num_stages: int) -> str:
    """What people call a stage: easy, medium and hard, where there are three."""
    return NAMES[stage] if num_stages == len(NAMES) else f"stage {stage + 1} of {num_stages}"


def easiest(episodes: np.ndarray, difficulty: np.ndarray, *, share: float) -> np.ndarray:
    """The easiest share of the episodes named in `episodes`, at least one; the lower number wins a tie.

    Args:
        difficulty: (E,) by episode number; NaN counts as easiest.
    """
    found = np.unique(episodes)
    values = np.where(np.isnan(difficulty[found]), -np.inf, difficulty[found])
    count = max(1, math.ceil(len(found) * share - 1e-9))  # 1/3 of 9 episodes are 3, whatever the rounding
    return found[np.lexsort((found, values))[:count]]


def _next_pass(position: Position) -> Position:
    return replace(position, epoch=position.epoch + 1, offset=0)
