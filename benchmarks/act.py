"""How long a training step and a planned chunk of ACT take on this machine's CPU; beside LeRobot if given.

    .venv/bin/python benchmarks/act.py [--reference /path/to/python] [--batch_size 4] [--compile] [CASE ...]

The networks are the published one (chunk 100, width 512, two cameras 480x640) and a small one (96x96, as in
the demo). Data and weights are made up; both sides load the same files, draw from the same seeds, and take
their steps in turn, each in a process of its own, so that whatever else the machine does meets both. Medians;
CPU is the time of all threads. "apart" is the largest relative difference of a step's losses: every step
begins where the one before ended, so rounding grows. It says something with --dropout 0 alone: ours draws
dropout's random numbers in another way.
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

import torch

ROOT = Path(__file__).parents[1]
ACTION, STATE, IMAGES = "action", "observation.state", "observation.images."
SMALL = {
    "chunk_size": 20,
    "n_action_steps": 10,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 256,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "latent_dim": 16,
}
CASES: dict[str, tuple[tuple[int, int], dict]] = {  # picture size, fields of the config
    "published": ((480, 640), {}),
    "small": ((96, 96), SMALL),
}


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

    def ask(self, what: str) -> dict[str, float]:
        """Wall seconds, CPU seconds and loss of one `step` or `chunk`."""
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
    compilation = None
    if args.compile:
        from lerobot.training.compile import Compilation

        compilation = Compilation(policy, args.compile, size=len(batch[ACTION]), device=torch.device("cpu"))
    one = {key: value[:1] for key, value in batch.items() if not key.startswith(ACTION)}
    for number, line in enumerate(sys.stdin):
        torch.manual_seed(number)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        loss = 0.0
        if line.strip() == "step":
            forward = compilation.of(policy) if compilation else policy
            loss = train_step(policy, forward, optimizer, batch)
        else:
            policy.predict_action_chunk(one)
        answer = {"wall": time.perf_counter() - wall_s, "cpu": time.process_time() - cpu_s, "loss": loss}
        print(json.dumps(answer), flush=True)


def load(args: argparse.Namespace) -> tuple[Any, dict]:
    """The stored policy, by whichever lerobot this Python has, and the stored batch."""
    from safetensors.torch import load_file

    batch = load_file(args.folder / "batch.safetensors")
    if args.worker == "reference":
        from lerobot.policies.act.modeling_act import ACTPolicy

        return ACTPolicy.from_pretrained(args.folder / "policy"), batch
    from lerobot.policies.act.policy import ACTPolicy
    from lerobot.policies.config import PreTrainedConfig
    from lerobot.training.allocator import keep_freed_memory

    keep_freed_memory(torch.device("cpu"))  # as a training run does
    config = PreTrainedConfig.from_pretrained(args.folder / "policy")
    return ACTPolicy.from_pretrained(args.folder / "policy", config=config), batch


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
def make(folder: Path, case: str, args: argparse.Namespace) -> None:
    """Write a policy with random weights, and one batch."""
    from safetensors.torch import save_file

    from lerobot.core.types import FeatureType, PolicyFeature
    from lerobot.policies.act.config import ACTConfig
    from lerobot.policies.act.policy import ACTPolicy

    size, fields = CASES[case]
    cameras = [f"{IMAGES}{name}" for name in ("front", "wrist")]
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, *size)) for name in cameras}
    config = ACTConfig(
        input_features={**inputs, STATE: PolicyFeature(FeatureType.STATE, (6,))},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (6,))},
        pretrained_backbone_weights=None,
        vision_backbone=args.backbone,
        device="cpu",
        dropout=args.dropout,
        **fields,
    )
    torch.manual_seed(0)
    ACTPolicy(config).save_pretrained(folder / "policy")
    batch = {name: torch.randn(args.batch_size, 3, *size) for name in cameras}
    batch[STATE] = torch.randn(args.batch_size, 6)
    batch[ACTION] = torch.randn(args.batch_size, config.chunk_size, 6)
    batch[f"{ACTION}_is_pad"] = torch.zeros(args.batch_size, config.chunk_size, dtype=torch.bool)
    save_file(batch, folder / "batch.safetensors")


def measure(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Side -> what was asked -> answers, taken in turn after two that warm up."""
    words = [str(folder), "--threads", str(args.threads)]
    compiling = ["--compile", args.compile] if args.compile else []
    sides = {"ours": Side(sys.executable, "ours", *words, *compiling, ours=True)}
    if args.reference:
        sides["reference"] = Side(str(args.reference), "reference", *words, ours=False)
    answers: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in sides}
    for what in ("step", "chunk"):
        for number in range(2 + args.steps):
            for name, side in sides.items():
                answer = side.ask(what)
                if number >= 2:
                    answers[name].setdefault(what, []).append(answer)
    for side in sides.values():
        side.close()
    return answers


def report(case: str, answers: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Print the rows of one network."""
    for what in ("step", "chunk"):
        row = f"{case:10} {what:6}"
        medians = {
            side: [statistics.median(one[kind] for one in found[what]) * 1000 for kind in ("wall", "cpu")]
            for side, found in answers.items()
        }
        row += "".join(f" {value:10.1f}" for pair in medians.values() for value in pair)
        if "reference" in medians:
            ratios = [theirs / ours for ours, theirs in zip(*medians.values(), strict=True)]
            row += "".join(f" {ratio:8.2f}" for ratio in ratios)
            if what == "step":
                losses = [[one["loss"] for one in found["step"]] for found in answers.values()]
                row += f" {max(abs(a / b - 1) for a, b in zip(*losses, strict=True)):9.1e}"
        print(row, flush=True)


def main() -> None:
    """Print two rows per network: a training step, a planned chunk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--reference", type=Path, help="a Python that has LeRobot 0.6.1")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=6, help="timed steps, after two that warm up")
    parser.add_argument("--backbone", default="resnet18", help="of both networks")
    parser.add_argument("--compile", nargs="?", const="default", help="compile ours: a mode of torch.compile")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch_size}; ms per step or chunk")
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
    parser.add_argument("--compile")
    work(parser.parse_args())


if __name__ == "__main__":
    work_apart() if "--worker" in sys.argv else main()
