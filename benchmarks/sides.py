"""Our policies beside LeRobot's: each in a process of its own, asked for one step at a time, in turn.

Whatever else the machine does then meets both. Both load the same files and draw from the same seeds. Used by
the benchmarks of single policies, which say what is asked for.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
NUM_WARM = 2  # answers that are not counted

Answer = dict[str, float]
Answers = dict[str, dict[str, list[Answer]]]  # side -> what was asked -> answers


class Side:
    """Ours or the reference, in a process that is asked for one step at a time."""

    def __init__(self, script: str, python: str, *words: str, ours: bool) -> None:
        others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != str(ROOT)]
        path = str(ROOT) if ours else os.pathsep.join(others)  # neither sees the other's package
        env = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [python, script, "--worker", *words],
            env=env,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> Answer:
        """Wall seconds, CPU seconds and loss of what was asked for."""
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


# ------------------------------------------------------------------------------------------------ one side
def answer(tasks: Mapping[str, Callable[[], float]]) -> None:
    """Do, one after the other, what standard input names; the answers go to standard output."""
    for number, line in enumerate(sys.stdin):
        torch.manual_seed(number)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        loss = tasks[line.strip()]()
        found = {"wall": time.perf_counter() - wall_s, "cpu": time.process_time() - cpu_s, "loss": loss}
        print(json.dumps(found), flush=True)


def train_step(policy: Any, forward: Any, optimizer: torch.optim.Optimizer, batch: dict) -> float:
    """Forward, backward, clip, step; the loss before it."""
    policy.train()
    loss, _ = forward(batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


# ------------------------------------------------------------------------------------------------ both sides
def measure(
    script: str,
    folder: Path,
    args: argparse.Namespace,
    *,
    asked: Sequence[str],
    ours: Sequence[str] = (),
) -> Answers:
    """What both sides answered, in turn, after some that warm up; `ours` are words for our side alone."""
    words = [str(folder), "--threads", str(args.threads)]
    sides = {"ours": Side(script, sys.executable, "ours", *words, *ours, ours=True)}
    if args.reference:
        sides["reference"] = Side(script, str(args.reference), "reference", *words, ours=False)
    answers: Answers = {name: {} for name in sides}
    for what in asked:
        for number in range(NUM_WARM + args.steps):
            for name, side in sides.items():
                found = side.ask(what)
                if number >= NUM_WARM:
                    answers[name].setdefault(what, []).append(found)
    for side in sides.values():
        side.close()
    return answers


def report(case: str, answers: Answers) -> None:
    """Print a row for everything that was asked for: medians in ms, and how many times as fast ours is."""
    for what in next(iter(answers.values())):
        row = f"{case:10} {what:8}"
        medians = {
            side: [statistics.median(one[kind] for one in found[what]) * 1000 for kind in ("wall", "cpu")]
            for side, found in answers.items()
        }
        row += "".join(f" {value:10.1f}" for pair in medians.values() for value in pair)
        if "reference" in medians:
            ratios = [theirs / ours for ours, theirs in zip(*medians.values(), strict=True)]
            row += "".join(f" {ratio:8.2f}" for ratio in ratios)
            losses = [[one["loss"] for one in found[what]] for found in answers.values()]
            if all(losses[1]):
                row += f" {max(abs(a / b - 1) for a, b in zip(*losses, strict=True)):9.1e}"
        print(row, flush=True)


def print_head(args: argparse.Namespace) -> None:
    """Print what the columns are."""
    print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch_size}; ms per step or chunk")
    heads = f"{'network':10} {'':8} {'ours':>10} {'CPU':>10}"
    heads += f" {'reference':>10} {'CPU':>10} {'ratio':>8} {'CPU':>8} {'apart':>9}" if args.reference else ""
    print(heads)


def arguments(description: str | None, cases: Sequence[str], *, batch_size: int) -> argparse.ArgumentParser:
    """The flags that all of these benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=f"of {', '.join(cases)}")
    parser.add_argument("--reference", type=Path, help="a Python that has LeRobot 0.6.1")
    parser.add_argument("--batch_size", type=int, default=batch_size)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=6, help="timed steps, after two that warm up")
    return parser


def worker_arguments() -> argparse.ArgumentParser:
    """What a side's process is started with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=("ours", "reference"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int)
    return parser
