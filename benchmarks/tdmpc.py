"""How long a training step and a plan of TD-MPC take on this machine's CPU; beside LeRobot if it is given.

    .venv/bin/python benchmarks/tdmpc.py [--reference /path/to/python] [--batch_size 32] [CASE ...]

The networks are the published ones, from a camera (84x84) and from states. Data and weights are made up; both
sides load the same files, draw the same random numbers, and take their steps in turn, each in a process of
its own, so that whatever else the machine does meets both. Medians; CPU is the time of all threads. "apart"
is the largest relative difference of the steps' losses, and of the mean size of planned actions: every step
begins where the one before ended, and every plan from the one before.
"""

import argparse
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sides import answer, arguments, measure, print_head, report, train_step, worker_arguments

ACTION, REWARD, STATE = "action", "next.reward", "observation.state"
IMAGE, ENV_STATE = "observation.image", "observation.environment_state"  # the names that LeRobot insists on
NUM_ACTIONS, HORIZON, NUM_CRITICS = 4, 5, 5
CASES = {"pixels": {IMAGE: (3, 84, 84), STATE: (4,)}, "states": {ENV_STATE: (16,), STATE: (4,)}}


def work(args: argparse.Namespace) -> None:
    """Be one side."""
    torch.set_num_threads(args.threads)
    policy, batch = load(args)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    moment = {key: value[:1, 0] for key, value in batch.items() if key in policy.config.input_features}
    numbers = count()
    policy.reset()

    def step() -> float:
        pick_critics(next(numbers), ours=args.worker == "ours")
        loss = train_step(policy, policy, optimizer, batch)
        policy.update()
        return loss

    def plan() -> float:
        pick_critics(next(numbers), ours=args.worker == "ours")
        policy.eval()
        with torch.no_grad():
            return float(policy.select_action(dict(moment)).abs().mean())

    answer({"plan": plan, "step": step})


def pick_critics(number: int, *, ours: bool) -> None:
    """Let the training step compare with two given members of the ensemble: the sides draw them differently.

    In plans both draw them in the same way.
    """
    chosen = [number % NUM_CRITICS, (3 * number + 1) % NUM_CRITICS]
    if not ours:
        np.random.choice = lambda *args, **kwargs: np.array(chosen)  # type: ignore[assignment]
        return
    from lerobot.policies.tdmpc import policy
    from lerobot.policies.tdmpc.planner import lowest

    policy.lowest = lambda values, draws: lowest(values[chosen], draws)  # type: ignore[attr-defined]


def load(args: argparse.Namespace) -> tuple[Any, dict]:
    """The stored policy, by whichever lerobot this Python has, and the stored batch."""
    from safetensors.torch import load_file

    batch = load_file(args.folder / "batch.safetensors")
    if args.worker == "reference":
        from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCPolicy

        return TDMPCPolicy.from_pretrained(args.folder / "policy"), batch
    from lerobot.policies.config import PreTrainedConfig
    from lerobot.policies.tdmpc.policy import TDMPCPolicy
    from lerobot.training.allocator import keep_freed_memory

    keep_freed_memory(torch.device("cpu"))  # as a training run does
    config = PreTrainedConfig.from_pretrained(args.folder / "policy")
    return TDMPCPolicy.from_pretrained(args.folder / "policy", config=config), batch


def make(folder: Path, case: str, args: argparse.Namespace) -> None:
    """Write a policy with random weights, and one batch."""
    from safetensors.torch import save_file

    from lerobot.core.types import FeatureType, PolicyFeature
    from lerobot.policies.tdmpc.config import TDMPCConfig
    from lerobot.policies.tdmpc.policy import TDMPCPolicy

    kinds = {IMAGE: FeatureType.VISUAL, ENV_STATE: FeatureType.ENV, STATE: FeatureType.STATE}
    shapes, size = CASES[case], args.batch_size
    config = TDMPCConfig(
        input_features={name: PolicyFeature(kinds[name], shape) for name, shape in shapes.items()},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (NUM_ACTIONS,))},
        device="cpu",
        horizon=HORIZON,
        q_ensemble_size=NUM_CRITICS,
        n_action_repeats=1,
    )
    torch.manual_seed(0)
    policy = TDMPCPolicy(config)
    for name, weight in policy.named_parameters():  # last layers begin at zero: nothing would be planned for
        if name.endswith((".5.weight", "_reward.6.weight")):
            torch.nn.init.normal_(weight, std=0.1)
    policy.save_pretrained(folder / "policy")
    batch = {name: torch.rand(size, HORIZON + 1, *shape) for name, shape in shapes.items()}
    batch |= {f"{name}_is_pad": torch.zeros(size, HORIZON + 1, dtype=torch.bool) for name in shapes}
    batch |= {ACTION: torch.rand(size, HORIZON, NUM_ACTIONS) * 2 - 1, REWARD: torch.rand(size, HORIZON)}
    batch |= {f"{name}_is_pad": torch.zeros(size, HORIZON, dtype=torch.bool) for name in (ACTION, REWARD)}
    save_file(batch | {"index": torch.arange(size)}, folder / "batch.safetensors")


def main() -> None:
    """Print two rows per network: a plan, a training step."""
    args = arguments(__doc__, list(CASES), batch_size=32).parse_args()
    print_head(args)
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), case, args)
            report(case, measure(__file__, Path(name), args, asked=["plan", "step"]))


if __name__ == "__main__":
    work(worker_arguments().parse_args()) if "--worker" in sys.argv else main()
