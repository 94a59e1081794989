"""A running average of the weights, which often acts better than the last ones do.

Papers: Polyak and Juditsky, 1992; the growing decay is that of Diffusion Policy, Chi et al. 2023,
arXiv:2303.04137.

    average <- decay * average + (1 - decay) * weights       after every optimizer step
    decay    = 1 - (1 + t / inv_gamma) ** -power             t steps after the average began

The average is a policy of its own, so nothing is swapped in and out of the one that learns. Its frozen
parameters are the very same tensors; buffers are copied whenever the average is asked for.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here but tensors
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.weights import load_weights, read_weights
from lerobot.training.checkpoint import EMA_FOLDER
from lerobot.training.sections import EMAConfig

logger = logging.getLogger(__name__)

STATE_FILE = "ema_state.safetensors"  # averages of parameters that the policy keeps in half precision
HEAD_FILE = "ema_state.pt"  # other releases: a pickle with the averages of all parameters


class EMA:
    """The averaged policy. `step` counts the optimizer steps it has seen."""

    def __init__(self, policy: PreTrainedPolicy, cfg: EMAConfig) -> None:
        self.cfg, self.step, self.live = cfg, 0, policy
        frozen = {id(p): p for p in policy.parameters() if not p.requires_grad}
        self._policy = copy.deepcopy(policy, frozen).requires_grad_(False).eval()
        self.weights = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self.held = [self._policy.get_parameter(name) for name in self.weights]
        self.averages = [
            p.data.float() for p in self.held
        ]  # where the policy is in float32, these very tensors

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
        weights = [p.detach().float() for p in self.weights.values()]
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

    # --- checkpoints: the policy itself is saved as `pretrained_model_ema`
    def state_dict(self) -> dict[str, int]:
        """Plain values for `extra_state.json`."""
        return {"step": self.step}

    def save_tensors(self, checkpoint: Path) -> None:
        """Write the averages that `pretrained_model_ema` rounds."""
        exact = {
            name: average.cpu()
            for name, held, average in zip(self.weights, self.held, self.averages, strict=True)
            if held.dtype != torch.float32
        }
        if exact:
            save_file(exact, checkpoint / keys.TRAINING_STATE_FOLDER / STATE_FILE)

    def load(self, checkpoint: Path, state: Mapping[str, Any] | None) -> None:
        """Go on with the average of a checkpoint, given its plain values; without any, begin at its weights.

        Raises:
            CheckpointError: the average is damaged or of another model.
        """
        folder = checkpoint / keys.TRAINING_STATE_FOLDER
        if state is None and (folder / HEAD_FILE).is_file():
            self._load_of_head(folder / HEAD_FILE)
        elif state is None:
            logger.warning(
                "%s holds no average of the weights: it begins with the weights there.", checkpoint
            )
        else:
            self.step, averaged = int(state["step"]), checkpoint / EMA_FOLDER
            load_weights(self._policy, read_weights(averaged), source=str(averaged))
            exact = load_file(folder / STATE_FILE) if (folder / STATE_FILE).is_file() else {}
            self._set(
                {name: exact.get(name, held) for name, held in zip(self.weights, self.held, strict=True)}
            )

    def _set(self, averages: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, average in zip(self.weights, self.averages, strict=True):
                average.copy_(averages[name])

    def _load_of_head(self, path: Path) -> None:
        """Read what newer releases of others write: averages of all parameters, in their order."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            step, shadows = int(state["optimization_step"]), list(state["shadow_params"])
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, UnpicklingError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): it is damaged. Copy it again."
            ) from error
        named = dict(self.live.named_parameters())
        if [tuple(p.shape) for p in named.values()] != [tuple(shadow.shape) for shadow in shadows]:
            raise CheckpointError(
                f"{path} averages {len(shadows)} parameters that are not the {len(named)} of this policy. "
                "Was it made from another config?"
            )
        self.step = step
        self._set(dict(zip(named, shadows, strict=True)))
