"""How long VQ-BeT's training steps and a planned chunk take on this machine's CPU; beside LeRobot if given.

    .venv/bin/python benchmarks/vqbet.py [--reference /path/to/python] [--batch_size 8] [CASE ...]

Cases: `default`, the published network with batch norm (pictures of 96x96 cropped to 84x84, a GPT of 8
layers); `group`, the same with group norm, as it was before 0.6; `small`, a GPT a quarter as wide. Rows: a
training step of the first phase (`codes`), one of the second (`step`), a plan for one observation. "apart" is
the largest relative difference of losses, and of the mean size of actions: steps begin where the one before
ended, so rounding grows. It says something with --dropout 0 alone: ours draws dropout's in another way.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from sides import answer, arguments, measure, print_head, report, train_step, worker_arguments

ACTION, STATE, IMAGE = "action", "observation.state", "observation.image"
FLAGS = (".discretized", ".freeze_codebook")
WIDTHS = ("gpt_input_dim", "gpt_hidden_dim", "gpt_output_dim")
CASES: dict[str, tuple[int, dict]] = {  # side of the picture, fields of the config
    "small": (64, {**dict.fromkeys(WIDTHS, 128), "gpt_n_layer": 4, "gpt_n_head": 4, "crop_shape": (48, 48)}),
    "default": (96, {}),
    "group": (96, {"use_group_norm": True}),
}


def work(args: argparse.Namespace) -> None:
    """Be one side."""
    torch.set_num_threads(args.threads)
    policy, batch = load(args)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    moment = {key: value[:1, 0] for key, value in batch.items() if not key.startswith(ACTION)}
    flags = [value for name, value in policy.state_dict().items() if name.endswith(FLAGS)]

    def step() -> float:
        return train_step(policy, policy, optimizer, batch)

    def step_of_second_phase() -> float:
        if not all(flags):
            for flag in flags:
                flag.fill_(True)
        return step()

    def plan() -> float:
        policy.eval()
        policy.reset()
        return float(policy.select_action(moment).abs().mean())

    answer({"codes": step, "step": step_of_second_phase, "chunk": plan})


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


def make(folder: Path, case: str, args: argparse.Namespace) -> None:
    """Write a policy with random weights, and one batch."""
    from safetensors.torch import save_file

    from lerobot.core.types import FeatureType, PolicyFeature
    from lerobot.policies.vqbet.config import VQBeTConfig
    from lerobot.policies.vqbet.policy import VQBeTPolicy

    side, changes = CASES[case]
    config = VQBeTConfig(
        input_features={
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, side, side)),
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        pretrained_backbone_weights=None,
        device="cpu",
        dropout=args.dropout,
        **changes,
    )
    torch.manual_seed(0)
    VQBeTPolicy(config).save_pretrained(folder / "policy")
    looks, actions = config.n_obs_steps, len(config.action_delta_indices)
    batch = {IMAGE: torch.rand(args.batch_size, looks, 3, side, side)}
    batch[STATE] = torch.rand(args.batch_size, looks, 2) * 2 - 1
    batch[ACTION] = torch.rand(args.batch_size, actions, 2) * 2 - 1
    batch[f"{ACTION}_is_pad"] = torch.zeros(args.batch_size, actions, dtype=torch.bool)
    save_file(batch, folder / "batch.safetensors")


def main() -> None:
    """Print three rows per network."""
    parser = arguments(__doc__, list(CASES), batch_size=8)
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    print_head(args)
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), case, args)
            report(case, measure(__file__, Path(name), args, asked=("codes", "step", "chunk")))


if __name__ == "__main__":
    work(worker_arguments().parse_args()) if "--worker" in sys.argv else main()
