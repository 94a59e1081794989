"""How a policy acts: what it sees goes into memories, plans come out of them one action at a time.

    observation -> [its preprocessor] -> memory -> plan -> memory -> [its postprocessor] -> action

Shapes: B episodes, O observations a policy looks at, T actions of a chunk, A action size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lerobot.core.errors import CheckpointError, FeatureMismatchError
from lerobot.nn.draws import Draws
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.memory import Memory, batch_size, draws_of, pick
from lerobot.policies.observation import to_tensors
from lerobot.policies.processors import make_pre_post_processors
from lerobot.processor.defaults import Pair
from lerobot.processor.pipeline import ModelInput


class Acting(nn.Module):
    """The part of every policy that turns `plan` into the action of now."""

    name: ClassVar[str]
    looks_back: ClassVar[bool] = False
    config: PreTrainedConfig
    _source: Path | None = None  # the checkpoint folder whose processors this policy carries
    _processors: Pair | None = None
    _memories: Sequence[Memory] = ()  # of the episodes that select_action is in

    def plan(self, batch: dict[str, Tensor], *, draws: Draws | None = None, **how: Any) -> Tensor:
        """The chunk (B, T, A) of normalised actions for a preprocessed batch of observations.

        Args:
            batch: observations (B, ...), or (B, O, ...) of a policy that `looks_back`.
            draws: where random numbers come from; None is torch's generator.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def reset(self) -> None:
        """Forget the last episode; call it before each new one."""
        self._memories = []
        for pipeline in self._processors or ():
            pipeline.reset()

    def new_memory(self, *, seed: int | None = None) -> Memory:
        """The memory of an episode that begins; `seed` gives it random numbers of its own."""
        return Memory(self.config.n_obs_steps if self.looks_back else 1, seed=seed)

    def act(
        self,
        batch: dict[str, Tensor],
        memories: Sequence[Memory],
        *,
        at_once: int | None = None,
        **how: Any,
    ) -> Tensor:
        """The normalised actions (B, A) of now; episodes whose chunk is used up get a new one, together.

        Args:
            batch: a preprocessed observation of each episode.
            memories: one of each episode.
            at_once: plan exactly so many episodes in one call, filled up with copies: products of one size
                round alike, so an episode's plan does not depend on how many others need one.
            how: passed on to `plan`.
        """
        self.look(batch, memories)
        hungry = [i for i, memory in enumerate(memories) if not memory.actions]
        size = at_once or len(hungry)
        for start in range(0, len(hungry), size or 1):
            chosen = hungry[start : start + size]
            of_chosen = [memories[i] for i in chosen]
            missing = size - len(chosen)
            asked = [*of_chosen, *(of_chosen[-1].stand_in() for _ in range(missing))]
            filled = [*chosen, *[chosen[-1]] * missing]
            part = self._histories(batch, asked) if self.looks_back else pick(batch, filled)
            for memory, plan in zip(of_chosen, self.decide(part, asked, **how), strict=False):
                memory.put(self.carried_out(plan))
        return torch.stack([memory.actions.popleft() for memory in memories])

    def carried_out(self, plan: Tensor) -> Tensor:
        """The actions (T, A) of a chunk (T, A) that are executed before the next look."""
        return plan[: self.config.n_action_steps]  # type: ignore[attr-defined]

    def look(self, batch: dict[str, Tensor], memories: Sequence[Memory]) -> None:
        """Show each episode an observation without acting; policies that `looks_back` keep it."""
        names = [name for name in self.config.input_features if name in batch] if self.looks_back else []
        for i, memory in enumerate(memories if names else ()):
            memory.see({name: batch[name][i] for name in names})

    def _histories(self, batch: dict[str, Tensor], memories: Sequence[Memory]) -> dict[str, Tensor]:
        """What `plan` reads: the observations (B, O, ...) of these episodes."""
        each = [memory.history() for memory in memories]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    def decide(self, batch: dict[str, Tensor], memories: Sequence[Memory], **how: Any) -> Tensor:
        """The chunk (B, T, A) for episodes that need one; for policies whose plans build on the last."""
        return self.plan(batch, draws=draws_of(memories), **how)

    def next_action(self, batch: dict[str, Tensor], **how: Any) -> Tensor:
        """The normalised action (B, A) of now for a preprocessed observation of episodes that began together.

        Raises:
            FeatureMismatchError: there are more or fewer of them than at the last call.
        """
        size = batch_size(batch)
        self._memories = self._memories or [self.new_memory() for _ in range(size)]
        if size != len(self._memories):
            raise FeatureMismatchError(
                f"{self.name} was asked about {len(self._memories)} episodes and now about {size}. Call "
                "policy.reset() where other episodes begin."
            )
        return self.act(batch, self._memories, **how)

    @torch.no_grad()
    def select_action(self, observation: Mapping[str, Any], **how: Any) -> Tensor:
        """The action of now, (B, A), or (A,) for a raw observation without batch axis. Switches to eval mode.

        Args:
            observation: what the preprocessor returned, or, when this policy carries its processors, a raw
                one: flat (`observation.state`) or nested (`{"state": …, "images": {…}}`), arrays or tensors,
                with or without batch axis, images uint8 or float, channels first or last.
            how: passed on to the policy's `plan`.
        """
        return self._with_processors(self.next_action, observation, how)

    @torch.no_grad()
    def predict_action_chunk(self, observation: Mapping[str, Any], **how: Any) -> Tensor:
        """The actions of now and later, (B, T, A), or (T, A); observations as in `select_action`.

        A policy that `looks_back` is shown one observation, which is then all of its past, or (B, O, ...).
        """
        return self._with_processors(self._chunk, observation, how)

    def _chunk(self, batch: dict[str, Tensor], **how: Any) -> Tensor:
        if self.looks_back and not self._has_past(batch):
            memories = [self.new_memory() for _ in range(batch_size(batch))]
            self.look(batch, memories)
            batch = self._histories(batch, memories)
        return self.plan(batch, **how)

    def _has_past(self, batch: dict[str, Tensor]) -> bool:
        """Whether its observations have the axis O."""
        features = self.config.input_features.items()
        return any(name in batch and batch[name].dim() == len(f.shape) + 2 for name, f in features)

    @property
    def processors(self) -> Pair:
        """The saved pre- and postprocessor that this policy carries, loaded at first use.

        Raises:
            CheckpointError: it carries none.
        """
        if self._source is None:
            raise CheckpointError(
                f"This {type(self).__name__} carries no processors: it was built from a config. Use those of "
                "make_pre_post_processors, or load the policy by its path alone."
            )
        if self._processors is None:
            place = {"device_processor": {"device": str(self.device)}}
            self._processors = make_pre_post_processors(
                self.config, self._source, preprocessor_overrides=place
            )
        return self._processors

    def _with_processors(self, decide: Any, observation: Mapping[str, Any], how: Mapping[str, Any]) -> Tensor:
        self.eval()
        if self._source is None or isinstance(observation, ModelInput):
            return decide(dict(observation), **how)
        before, after = self.processors
        raw, is_batched = to_tensors(observation, self.config.input_features)
        batch = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in before(raw).items()}
        action = after(decide(batch, **how))
        return action if is_batched else action[0]
