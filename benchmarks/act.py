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
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from sides import answer, arguments, measure, print_head, report, train_step, worker_arguments

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


def work(args: argparse.Namespace) -> None:
    """Be one side."""
    torch.set_num_threads(args.threads)
    policy, batch = load(args)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    compilation = None
    if args.compile:
        from lerobot.training.compile import Compilation

        compilation = Compilation(policy, args.compile, size=len(batch[ACTION]), device=torch.device("cpu"))
    one = {key: value[:1] for key, value in batch.items() if not key.startswith(ACTION)}

    def step() -> float:
        return train_step(policy, compilation.of(policy) if compilation else policy, optimizer, batch)

    def plan() -> float:
        policy.eval()
        policy.reset()
        return float(policy.predict_action_chunk(one).abs().mean())

    answer({"step": step, "chunk": plan})


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


def main() -> None:
    """Print two rows per network: a training step, a planned chunk."""
    parser = arguments(__doc__, list(CASES), batch_size=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--backbone", default="resnet18", help="of both networks")
    parser.add_argument("--compile", nargs="?", const="default", help="compile ours: a mode of torch.compile")
    args = parser.parse_args()
    print_head(args)
    compiling = ["--compile", args.compile] if args.compile else []
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), case, args)
            report(case, measure(__file__, Path(name), args, asked=("step", "chunk"), ours=compiling))


def work_apart() -> None:
    """The process of one side."""
    parser = worker_arguments()
    parser.add_argument("--compile")
    work(parser.parse_args())


if __name__ == "__main__":
    work_apart() if "--worker" in sys.argv else main()
