"""A running average of the weights, which often acts better than the last ones do.

Papers: Polyak and Juditsky, 1992; the growing decay is that of Diffusion Policy, Chi et al. 2023,
arXiv:2303.04137.

    average <- decay * average + (1 - decay) * weights       after every optimizer step
    decay    = 1 - (1 + t / inv_gamma) ** -power             t steps after the average began

The average is a policy of its own, so nothing is swapped in and out of the one that learns. Its frozen
parameters are the very same tensors; buffers are copied whenever the average is asked for.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here but tensors

import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.weights import load_weights, read_weights
from lerobot.training.checkpoints.checkpoint import EMA_FOLDER
from lerobot.training.sections import EMAConfig

HEAD_FILE = "ema_state.pt"  # other releases: a pickle with the averages of all parameters


class EMA:
    """The averaged policy. `step` counts the optimizer steps it has seen."""

    def __init__(self, policy: PreTrainedPolicy, cfg: EMAConfig) -> None:
        self.cfg, self.step, self.live = cfg, 0, policy
        frozen = {id(p): p for p in policy.parameters() if not p.requires_grad}
        self._policy = copy.deepcopy(policy, frozen).requires_grad_(False).eval()
        self.live_weights = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self.held = [self._policy.get_parameter(name) for name in self.live_weights]
        self.averages = [p.data.float() for p in self.held]  # what is float32 is averaged in place

    @property
    def policy(self) -> PreTrainedPolicy:
        """The policy with averaged weights, in eval mode."""
        with torch.no_grad():
            for ours, theirs in zip(self._policy.buffers(), self.live.buffers(), strict=True):
                ours.copy_(theirs)
            for held, average in zip(self.held, self.averages, strict=True):
                if held.dtype != torch.float32:
                    held.copy_(average)
        return self._policy

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self.step += 1
        weights = [p.detach().float() for p in self.live_weights.values()]
        torch._foreach_lerp_(self.averages, weights, 1 - self.decay(self.step))

    def decay(self, step: int) -> float:
        """Share of the old average that the given step (from 1) keeps; 0 until the average begins."""
        cfg, age = self.cfg, step - self.cfg.update_after_step - 1
        if age <= 0:
            return 0.0
        if cfg.decay is not None:
            return cfg.decay
        grown = 1 - (1 + age / cfg.inv_gamma) ** -cfg.power
        return max(cfg.min_decay, min(cfg.max_decay, grown))

    # --- checkpoints
    @property
    def weights(self) -> dict[str, Tensor]:
        """What `pretrained_model_ema` holds, by name; averages are in float32 whatever the policy is in."""
        return self.policy.saved_weights() | dict(zip(self.live_weights, self.averages, strict=True))

    def state_dict(self) -> dict[str, int]:
        """Plain values for `extra_state.json`."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The reverse."""
        self.step = int(state["step"])

    def load(self, checkpoint: Path) -> dict[str, dict[str, int]]:
        """Take over the averages of a checkpoint, if it has some.

        Gives the plain values that newer releases of others keep beside theirs, as in `extra_state.json`.

        Raises:
            CheckpointError: the averages are damaged or of another model.
        """
        averaged, theirs = checkpoint / EMA_FOLDER, checkpoint / keys.TRAINING_STATE_FOLDER / HEAD_FILE
        if theirs.is_file():
            return {"ema": {"step": self._load_of_head(theirs)}}
        if averaged.is_dir():
            weights = read_weights(averaged)
            load_weights(self._policy, weights, source=str(averaged))
            self._set(weights)
        return {}

    def _set(self, averages: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, average in zip(self.live_weights, self.averages, strict=True):
                average.copy_(averages[name])

    def _load_of_head(self, path: Path) -> int:
        """Read what newer releases of others write, averages of all parameters in order; gives the step."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            step, shadows = int(state["optimization_step"]), list(state["shadow_params"])
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, UnpicklingError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). Copy it again.") from error
        named = dict(self.live.named_parameters())
        if [tuple(p.shape) for p in named.values()] != [tuple(shadow.shape) for shadow in shadows]:
            raise CheckpointError(
                f"{path} averages {len(shadows)} parameters that are not the {len(named)} of this policy. "
                "Was it made from another config?"
            )
        self._set(dict(zip(named, shadows, strict=True)))
        return step
