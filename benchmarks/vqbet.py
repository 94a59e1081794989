"""How long VQ-BeT's training steps and a planned chunk take on this machine's CPU; beside LeRobot if given.

    .venv/bin/python benchmarks/vqbet.py [--reference /path/to/python] [--batch_size 16] [CASE ...]

The networks are the published one (pictures of 96x96 cropped to 84x84, GPT of 8 layers) with batch norm, the
default, and with group norm, and a small one. `codes` is a step of the first phase, `step` one of the second,
`chunk` a plan for one episode. Data and weights are made up; both sides load the same files, draw from the
same seeds, and take their steps in turn, each in a process of its own, so that whatever else the machine does
meets both. Medians; CPU is the time of all threads. "apart" is the largest relative difference of the steps'
losses: every step begins where the one before ended, so rounding grows. It says something with --dropout 0
alone: ours draws dropout's random numbers in another way.
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
ACTION, STATE, IMAGE = "action", "observation.state", "observation.image"
FLAGS = (".discretized", ".freeze_codebook")
GROUP_NORM = {"use_group_norm": True}
SMALL = {
    "gpt_input_dim": 128,
    "gpt_output_dim": 128,
    "gpt_hidden_dim": 128,
    "gpt_n_layer": 4,
    "gpt_n_head": 4,
    "vqvae_embedding_dim": 64,
    "crop_shape": (48, 48),
}
CASES: dict[str, tuple[tuple[int, int], dict]] = {  # picture size, fields of the config
    "published": ((96, 96), {}),
    "group_norm": ((96, 96), GROUP_NORM),
    "small": ((64, 64), SMALL),
}


# ------------------------------------------------------------------------------------------------ one side
class Side:
    """Ours or the reference, in a process that is asked for one thing at a time."""

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
        """Wall seconds, CPU seconds and loss of one `codes`, `step` or `chunk`."""
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
    one = {key: value[:1] for key, value in batch.items() if not key.startswith(ACTION)}
    moment = {key: value[:, 0] for key, value in one.items()}
    before = ""
    for number, line in enumerate(sys.stdin):
        what = line.strip()
        if what == "step" and before == "codes":  # the first phase is over
            for name, flag in policy.state_dict().items():
                if name.endswith(FLAGS):
                    flag.fill_(True)
        before = what
        torch.manual_seed(number)
        if what == "chunk":
            policy.eval().reset()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        loss = 0.0
        if what == "chunk":
            policy.select_action(moment)
        else:
            loss = train_step(policy, optimizer, batch)
        answer = {"wall": time.perf_counter() - wall_s, "cpu": time.process_time() - cpu_s, "loss": loss}
        print(json.dumps(answer), flush=True)


def load(args: argparse.Namespace) -> tuple[Any, dict]:
    """The stored policy, by whichever lerobot this Python has, and the stored batch."""
    from safetensors.torch import load_file

    batch = load_file(args.folder / "batch.safetensors")
    if args.worker == "reference":
        from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy

        return VQBeTPolicy.from_pretrained(args.folder / "policy"), batch
    from lerobot.policies.config import PreTrainedConfig
    from lerobot.policies.vqbet.policy import VQBeTPolicy
    from lerobot.training.allocator import keep_freed_memory

    keep_freed_memory(torch.device("cpu"))  # as a training run does
    config = PreTrainedConfig.from_pretrained(args.folder / "policy")
    return VQBeTPolicy.from_pretrained(args.folder / "policy", config=config), batch


def train_step(policy: Any, optimizer: torch.optim.Optimizer, batch: dict) -> float:
    """Forward, backward, clip, step; the loss before it."""
    policy.train()
    loss, _ = policy.forward(batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if hasattr(policy, "update"):
        policy.update()
    return float(loss.detach())


# ------------------------------------------------------------------------------------------------ both sides
def make(folder: Path, case: str, args: argparse.Namespace) -> None:
    """Write a policy with random weights, and one batch."""
    from safetensors.torch import save_file

    from lerobot.core.types import FeatureType, PolicyFeature
    from lerobot.policies.vqbet.config import VQBeTConfig
    from lerobot.policies.vqbet.policy import VQBeTPolicy

    size, fields = CASES[case]
    config = VQBeTConfig(
        input_features={
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, *size)),
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        pretrained_backbone_weights=None,
        device="cpu",
        dropout=args.dropout,
        **fields,
    )
    torch.manual_seed(0)
    VQBeTPolicy(config).save_pretrained(folder / "policy")
    looks, actions = config.n_obs_steps, len(config.action_delta_indices)
    batch = {IMAGE: torch.rand(args.batch_size, looks, 3, *size)}
    batch[STATE] = torch.rand(args.batch_size, looks, 2) * 2 - 1
    batch[ACTION] = torch.rand(args.batch_size, actions, 2) * 2 - 1
    batch[f"{ACTION}_is_pad"] = torch.zeros(args.batch_size, actions, dtype=torch.bool)
    save_file(batch, folder / "batch.safetensors")


def measure(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Side -> what was asked -> answers, taken in turn after two that warm up."""
    words = [str(folder), "--threads", str(args.threads)]
    sides = {"ours": Side(sys.executable, "ours", *words, ours=True)}
    if args.reference:
        sides["reference"] = Side(str(args.reference), "reference", *words, ours=False)
    answers: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in sides}
    for what in ("codes", "step", "chunk"):
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
    for what in ("codes", "step", "chunk"):
        row = f"{case:10} {what:6}"
        medians = {
            side: [statistics.median(one[kind] for one in found[what]) * 1000 for kind in ("wall", "cpu")]
            for side, found in answers.items()
        }
        row += "".join(f" {value:10.1f}" for pair in medians.values() for value in pair)
        if "reference" in medians:
            ratios = [theirs / ours for ours, theirs in zip(*medians.values(), strict=True)]
            row += "".join(f" {ratio:8.2f}" for ratio in ratios)
            if what != "chunk":
                losses = [[one["loss"] for one in found[what]] for found in answers.values()]
                row += f" {max(abs(a / b - 1) for a, b in zip(*losses, strict=True)):9.1e}"
        print(row, flush=True)


def main() -> None:
    """Print three rows per network: a step of each phase, a planned chunk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--reference", type=Path, help="a Python that has LeRobot 0.6.1")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=6, help="timed steps, after two that warm up")
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
    work(parser.parse_args())


if __name__ == "__main__":
    work_apart() if "--worker" in sys.argv else main()
