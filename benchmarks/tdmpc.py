"""How long a training step and a plan of TD-MPC take on this machine's CPU; beside LeRobot if it is given.

    .venv/bin/python benchmarks/tdmpc.py [--reference /path/to/python] [--batch_size 32] [CASE ...]

The networks are the published ones, from a camera (84x84) and from states. Data and weights are made up; both
sides load the same files, draw the same random numbers, and take their steps in turn, each in a process of
its own, so that whatever else the machine does meets both. Medians; CPU is the time of all threads. "apart"
is the largest relative difference of the steps' losses, and the largest difference of planned actions, which
lie between -1 and 1: every step begins where the one before ended, and every plan from the one before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
ACTION, REWARD, STATE = "action", "next.reward", "observation.state"
IMAGE, ENV_STATE = "observation.image", "observation.environment_state"  # the names that LeRobot insists on
NUM_ACTIONS, HORIZON, NUM_CRITICS = 4, 5, 5
CASES = {"pixels": {IMAGE: (3, 84, 84), STATE: (4,)}, "states": {ENV_STATE: (16,), STATE: (4,)}}
Answers = dict[str, dict[str, list[dict[str, Any]]]]  # side -> what was asked -> answers


# ------------------------------------------------------------------------------------------------ one side
class Side:
    """Ours or the reference, in a process that is asked for one step at a time."""

    def __init__(self, python: str, *words: str, ours: bool) -> None:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(ROOT)} if ours else {})
        self.process = subprocess.Popen(
            [python, __file__, "--worker", *words],
            env=env,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> dict[str, Any]:
        """Wall seconds, CPU seconds and the numbers that came out of one `step` or `plan`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.process.args[0]} ended without an answer.")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(args: argparse.Namespace) -> None:
    """Answer on standard output what is asked for on standard input."""
    torch.set_num_threads(args.threads)
    policy, batch = load(args)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    one = {key: value[:1, 0] for key, value in batch.items() if key in policy.config.input_features}
    policy.reset()
    for number, line in enumerate(sys.stdin):
        torch.manual_seed(number)
        pick_critics(number, ours=args.worker == "ours")
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        numbers = train_step(policy, optimizer, batch) if line.strip() == "step" else act(policy, one)
        answer = {"wall": time.perf_counter() - wall_s, "cpu": time.process_time() - cpu_s}
        print(json.dumps(answer | {"numbers": numbers}), flush=True)


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


def train_step(policy: Any, optimizer: torch.optim.Optimizer, batch: dict) -> list[float]:
    """Forward, backward, clip, step, slow copy; the loss before it."""
    policy.train()
    loss, _ = policy.forward(batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
    optimizer.step()
    policy.update()
    optimizer.zero_grad(set_to_none=True)
    return [float(loss.detach())]


def act(policy: Any, observation: dict) -> list[float]:
    """The action for an observation, which takes a plan: without repeats every one does."""
    policy.eval()
    with torch.no_grad():
        return policy.select_action(dict(observation)).flatten().tolist()


# ------------------------------------------------------------------------------------------------ both sides
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


def measure(folder: Path, args: argparse.Namespace) -> Answers:
    """What both sides answer, in turn, after two that warm up."""
    words = [str(folder), "--threads", str(args.threads)]
    sides = {"ours": Side(sys.executable, "ours", *words, ours=True)}
    if args.reference:
        sides["reference"] = Side(str(args.reference), "reference", *words, ours=False)
    answers: Answers = {name: {} for name in sides}
    for what in ("plan", "step"):
        for number in range(2 + args.steps):
            for name, side in sides.items():
                answer = side.ask(what)
                if number >= 2:
                    answers[name].setdefault(what, []).append(answer)
    for side in sides.values():
        side.close()
    return answers


def report(case: str, answers: Answers) -> None:
    """Print the rows of one network."""
    for what in ("step", "plan"):
        medians = {
            side: [statistics.median(one[kind] for one in found[what]) * 1000 for kind in ("wall", "cpu")]
            for side, found in answers.items()
        }
        row = f"{case:10} {what:6}" + "".join(
            f" {value:10.1f}" for pair in medians.values() for value in pair
        )
        if "reference" in medians:
            ratios = [theirs / ours for ours, theirs in zip(*medians.values(), strict=True)]
            row += "".join(f" {ratio:8.2f}" for ratio in ratios)
            ours, theirs = ([one["numbers"] for one in found[what]] for found in answers.values())
            difference = np.abs(np.array(ours) - np.array(theirs))
            row += f" {(difference / np.abs(theirs) if what == 'step' else difference).max():9.1e}"
        print(row, flush=True)


def main() -> None:
    """Print two rows per network: a training step, a plan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--reference", type=Path, help="a Python that has LeRobot 0.6.1")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--steps", type=int, default=12, help="timed ones of each kind, after two that warm up"
    )
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch_size}; ms per step or plan")
    heads = f"{'network':10} {'':6} {'ours':>10} {'CPU':>10}"
    heads += f" {'reference':>10} {'CPU':>10} {'ratio':>8} {'CPU':>8} {'apart':>9}" if args.reference else ""
    print(heads)
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), case, args)
            report(case, measure(Path(folder), args))


def work_apart() -> None:
    """The process of one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=("ours", "reference"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int)
    work(parser.parse_args())


if __name__ == "__main__":
    work_apart() if "--worker" in sys.argv else main()
