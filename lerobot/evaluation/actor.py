"""A policy with all that lies between it and the slots of an evaluation.

    observation -> canonical names -> rename -> preprocessor -> memory -> plan -> postprocessor -> actions

An episode's actions do not depend on which others are asked about at the same time: each has a memory with
random numbers of its own, and plans are computed in batches of one size. What a policy has planned ahead is
handed over in one piece.

Shapes: B slots that are asked about, n actions planned ahead, A action size.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.evaluation.stage import Seen
from lerobot.policies.acting import Acting
from lerobot.policies.memory import Memory, pick
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.processor.observation import VanillaObservationProcessorStep
from lerobot.processor.rename import rename
from lerobot.processor.step import ProcessorStep

PLANS_AT_ONCE = {"cpu": 1}  # on a CPU a larger batch is hardly faster per plan
PLANS_AT_ONCE_ELSEWHERE = 8


def make_actor(
    policy: PreTrainedPolicy, processors: Pair, *, names: Mapping[str, str], plans_at_once: int
) -> "Actor":
    """The actor that suits a policy: with a memory per slot, or where it remembers by itself, copies of it.

    Args:
        names: environment's feature -> what the preprocessor calls it.
        plans_at_once: the size of the batches that plans are computed in; 0 chooses by the device.
    """
    policy.eval()
    if has_own_way(policy) or any(remembers(step) for pipeline in processors for step in pipeline.steps):
        return TwinActor(policy, processors, names)
    size = plans_at_once or PLANS_AT_ONCE.get(policy.device.type, PLANS_AT_ONCE_ELSEWHERE)
    return MemoryActor(policy, processors, names, plans_at_once=size)


def has_own_way(policy: PreTrainedPolicy) -> bool:
    """Whether it remembers the episode in a way of its own, as policies of other packages do."""
    names = ("select_action", "next_action")
    return any(getattr(type(policy), name) is not getattr(Acting, name) for name in names)


def remembers(step: Any) -> bool:
    """Whether a step of a pipeline keeps something of the episode."""
    return getattr(type(step), "reset", ProcessorStep.reset) is not ProcessorStep.reset


class Actor(ABC):
    """Answers what slots have seen with what they are to do."""

    num_looks = 1  # observations that are wanted of each slot
    max_slots = 1  # that are answered together

    def __init__(self, policy: PreTrainedPolicy, processors: Pair, names: Mapping[str, str]) -> None:
        self.policy, self.processors, self.names = policy, processors, names
        for pipeline in processors:
            pipeline.reset()

    @abstractmethod
    def begin(self, slot: int, *, seed: int) -> None:
        """A new episode begins in a slot; `seed` fixes what the policy draws in it."""

    @abstractmethod
    def act(self, seen: Sequence[Seen]) -> list[np.ndarray]:
        """The next actions (n, A) of at most `max_slots` slots, in the environment's units."""

    def batch(self, observations: Sequence[Any], tasks: Sequence[str]) -> dict[str, Any]:
        """Observations as environments return them, as the batch that a preprocessor reads."""
        canonical = VanillaObservationProcessorStep().observation(stack(observations))
        found = rename({name: torch.as_tensor(value) for name, value in canonical.items()}, self.names)
        return {**found, keys.TASK: list(tasks)}


class MemoryActor(Actor):
    """One policy with a memory per slot, which plans for several at once."""

    def __init__(
        self, policy: PreTrainedPolicy, processors: Pair, names: Mapping[str, str], *, plans_at_once: int
    ) -> None:
        super().__init__(policy, processors, names)
        self.max_slots = plans_at_once
        self.num_looks = policy.new_memory().seen.maxlen or 1
        self.memories: dict[int, Memory] = {}

    def begin(self, slot: int, *, seed: int) -> None:
        """A new memory."""
        self.memories[slot] = self.policy.new_memory(seed=seed)

    @torch.no_grad()
    def act(self, seen: Sequence[Seen]) -> list[np.ndarray]:
        """What each memory has planned after it was shown the observations that it missed."""
        before, after = self.processors
        memories = [self.memories[one.slot] for one in seen]
        every = [(observation, one.task) for one in seen for observation in one.observations]
        counts = [len(one.observations) for one in seen]
        last = np.cumsum(counts) - 1  # (B,) place of the newest one of each
        with half_precision(self.policy):
            batch = before(self.batch([look for look, _ in every], [task for _, task in every]))
            for back in range(max(counts) - 1, 0, -1):
                who = [i for i, count in enumerate(counts) if count > back]
                self.policy.look(pick(batch, [int(last[i]) - back for i in who]), [memories[i] for i in who])
            # Filled up here as well: a policy with an `act` of its own may take a batch as it comes.
            missing = self.max_slots - len(seen)
            filled = [*last.tolist(), *[int(last[-1])] * missing]
            strangers = [self.policy.new_memory(seed=0) for _ in range(missing)]
            first = self.policy.act(pick(batch, filled), [*memories, *strangers], at_once=self.max_slots)
            each = zip(first[: len(seen)], memories, strict=True)
            plans = [torch.stack([action, *memory.drain()]) for action, memory in each]  # (n, A) each
            return [to_numpy(after(plan)) for plan in plans]


class TwinActor(Actor):
    """A copy of the policy per slot, with the same parameters, for one that remembers in its own way.

    Each has its own random numbers, its own pipelines, and sees a batch of one.
    """

    def __init__(self, policy: PreTrainedPolicy, processors: Pair, names: Mapping[str, str]) -> None:
        super().__init__(policy, processors, names)
        self.twins: dict[int, tuple[PreTrainedPolicy, Pair]] = {}
        self.draws: dict[int, OwnDraws] = {}

    def begin(self, slot: int, *, seed: int) -> None:
        """A twin that has forgotten the last episode."""
        if slot not in self.twins:
            self.twins[slot] = twin(self.policy), copy.deepcopy(self.processors)
        policy, processors = self.twins[slot]
        policy.reset()
        for pipeline in processors:
            pipeline.reset()
        self.draws[slot] = OwnDraws(seed)

    @torch.no_grad()
    def act(self, seen: Sequence[Seen]) -> list[np.ndarray]:
        """One action (1, A) of the slot's twin."""
        (one,) = seen
        policy, (before, after) = self.twins[one.slot]
        with self.draws[one.slot].used(), half_precision(policy):
            return [to_numpy(after(policy.select_action(before(self.batch(one.observations, [one.task])))))]


def twin(policy: PreTrainedPolicy) -> PreTrainedPolicy:
    """A copy with the same parameters (the very same tensors), and everything else its own."""
    return copy.deepcopy(policy, {id(parameter): parameter for parameter in policy.parameters()})


class OwnDraws:
    """The state of torch's random numbers in one episode."""

    def __init__(self, seed: int) -> None:
        self.devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=self.devices):
            torch.manual_seed(seed)
            self._keep()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, torch draws the episode's next numbers; outside, nothing has been drawn."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self._keep()

    def _keep(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]


def stack(observations: Sequence[Any]) -> dict[str, Any]:
    """Observations as one with a batch axis: arrays (B, ...), pictures by camera or one array."""
    merged: dict[str, Any] = {}
    for name, value in observations[0].items():
        parts = [observation[name] for observation in observations]
        merged[name] = stack(parts) if isinstance(value, dict) else np.stack(parts)
    return merged


def to_numpy(actions: Tensor) -> np.ndarray:
    """Actions for an environment."""
    return actions.float().cpu().numpy()


def half_precision(policy: PreTrainedPolicy) -> Any:
    """Half precision where the policy's config asks for it."""
    return torch.autocast(policy.device.type) if policy.config.use_amp else nullcontext()
