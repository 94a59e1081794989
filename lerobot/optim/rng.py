"""Random states of Python, numpy and torch: taken, put back to the bit, and stored in a checkpoint.

    rng_state.safetensors           rank 0, as every LeRobot release reads it
    rng_state_exact.safetensors     rank 0, what that file loses: spare Gaussian numbers, unrounded
    rng_state_rank_<n>.safetensors  the other ranks, complete

A state is a dict of tensors, so that it can be gathered from other processes.
"""

import logging
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lerobot.core.errors import CheckpointError

logger = logging.getLogger(__name__)

RNG_FILE = "rng_state.safetensors"
EXACT_FILE = "rng_state_exact.safetensors"

RngState = dict[str, Tensor]

# Exact values, as float64; an empty tensor where there is no spare number.
PYTHON_SPARE, NUMPY_SPARE = "py_rng_gauss_next", "np_rng_cached_gaussian_f64"
EXACT_KEYS = (PYTHON_SPARE, NUMPY_SPARE)


def take_rng() -> RngState:
    """The random state of this process: Python, numpy's global generator, torch, and its current GPU."""
    version, words, spare = random.getstate()
    _, values, position, has_gauss, cached = np.random.get_state()
    state = {
        "py_rng_version": torch.tensor([version]),
        "py_rng_state": torch.tensor(words),                                            # (625,)
        "np_rng_state_values": torch.from_numpy(np.asarray(values, dtype=np.int64)),    # (624,)
        "np_rng_state_index": torch.tensor([position]),
        "np_rng_has_gauss": torch.tensor([has_gauss]),
        "np_rng_cached_gaussian": torch.tensor([cached], dtype=torch.float32),
        "torch_rng_state": torch.get_rng_state(),                                       # (5056,) bytes
        PYTHON_SPARE: torch.tensor([] if spare is None else [spare], dtype=torch.float64),
        NUMPY_SPARE: torch.tensor([cached], dtype=torch.float64),
    }  # fmt: skip
    if torch.cuda.is_available():
        state["torch_cuda_rng_state"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["torch_mps_rng_state"] = torch.mps.get_rng_state()
    return state


def put_rng(state: RngState) -> None:
    """Make this process continue with the random numbers that follow `state`.

    Raises:
        CheckpointError: a part is missing or not of the expected form.
    """
    try:
        spare = state[PYTHON_SPARE].tolist() if PYTHON_SPARE in state else []
        words = tuple(state["py_rng_state"].tolist())
        python = (int(state["py_rng_version"]), words, spare[0] if spare else None)
        cached = float(state.get(NUMPY_SPARE, state["np_rng_cached_gaussian"]))
        values = state["np_rng_state_values"].numpy().astype(np.uint32)
        position, has_gauss = int(state["np_rng_state_index"]), int(state["np_rng_has_gauss"])
        random.setstate(python)
        np.random.set_state(("MT19937", values, position, has_gauss, cached))
        torch.set_rng_state(state["torch_rng_state"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The stored random state is not complete: {error!r}. Is the checkpoint damaged?"
        ) from error
    _put_accelerator(state)


def _put_accelerator(state: RngState) -> None:
    """Set the GPU's generator, where the state has one and this machine a GPU of that kind."""
    if "torch_cuda_rng_state" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["torch_cuda_rng_state"])
    elif "torch_mps_rng_state" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["torch_mps_rng_state"])
    elif "torch_cuda_rng_state" in state or "torch_mps_rng_state" in state:
        logger.warning(
            "The random state was stored with a GPU that is absent here: random numbers will differ."
        )


def save_rng_state(folder: Path, states: list[RngState] | None = None) -> None:
    """Write the random states of all ranks, in order; of this process alone when none are given."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, state in enumerate(states or [take_rng()]):
        tensors = {key: value.detach().cpu().clone() for key, value in state.items()}
        if rank > 0:
            save_file(tensors, folder / _rank_file(rank))
            continue
        save_file({key: value for key, value in tensors.items() if key not in EXACT_KEYS}, folder / RNG_FILE)
        save_file({key: tensors[key] for key in EXACT_KEYS}, folder / EXACT_FILE)


def load_rng_state(folder: Path, *, rank: int = 0) -> None:
    """Continue with the random numbers of a stored rank.

    A rank that was not stored (the run has more processes now) keeps its own state, with a warning.

    Raises:
        CheckpointError: the state of rank 0 is missing, or a file is damaged.
    """
    if rank > 0:
        if not (folder / _rank_file(rank)).is_file():
            logger.warning("%s has no random state of rank %d, which keeps its own.", folder, rank)
            return
        put_rng(load_file(folder / _rank_file(rank)))
        return
    if not (folder / RNG_FILE).is_file():
        raise CheckpointError(
            f"{folder / RNG_FILE} is missing; training cannot be resumed exactly without it."
        )
    state = load_file(folder / RNG_FILE)
    if (folder / EXACT_FILE).is_file():  # other releases do not write it
        state |= load_file(folder / EXACT_FILE)
    put_rng(state)


def _rank_file(rank: int) -> str:
    return f"rng_state_rank_{rank}.safetensors"
