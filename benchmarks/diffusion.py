"""How long a training step and a sampled chunk of Diffusion take on this machine's CPU; beside LeRobot if given.

    .venv/bin/python benchmarks/diffusion.py [--reference /path/to/python] [--batch_size 8] [CASE ...]

Cases: `pusht`, the published network (263 million parameters, horizon 16, one camera 96x96); `default`, the
defaults of 0.6 (horizon 64, batch norm, an encoder per camera) with two cameras; `small`, widths 64, 128, 256.
Rows: a training step, a chunk by 100 steps of DDPM, one by 10 of DDIM, each for one observation. "apart" is the
largest relative difference of losses, and of the mean size of sampled actions: steps begin where the one before
ended, so rounding grows. The reference needs the package diffusers, for example on its PYTHONPATH.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from sides import answer, arguments, measure, print_head, report, train_step, worker_arguments

ACTION, STATE, IMAGES = "action", "observation.state", "observation.images."
PUSHT = {
    "horizon": 16,
    "n_action_steps": 8,
    "crop_shape": (84, 84),
    "use_group_norm": True,
    "use_separate_rgb_encoder_per_camera": False,
}
CASES: dict[str, tuple[int, dict]] = {  # cameras, fields of the config
    "small": (1, {**PUSHT, "down_dims": (64, 128, 256)}),
    "pusht": (1, PUSHT),
    "default": (2, {}),
}


def work(args: argparse.Namespace) -> None:
    """Be one side."""
    torch.set_num_threads(args.threads)
    policy, batch = load(args)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    one = {key: value[:1] for key, value in batch.items() if not key.startswith(ACTION)}

    def sample() -> float:
        policy.eval()
        policy.reset()
        return float(policy.predict_action_chunk(one).abs().mean())

    answer({"step": lambda: train_step(policy, policy, optimizer, batch), "DDPM": sample, "DDIM": sample})


def load(args: argparse.Namespace) -> tuple[Any, dict]:
    """The stored policy, by whichever lerobot this Python has, and the stored batch."""
    from safetensors.torch import load_file

    batch = load_file(args.folder / "batch.safetensors")
    if args.worker == "reference":
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

        return DiffusionPolicy.from_pretrained(args.folder / "policy"), batch
    from lerobot.policies.config import PreTrainedConfig
    from lerobot.policies.diffusion.policy import DiffusionPolicy
    from lerobot.training.allocator import keep_freed_memory

    keep_freed_memory(torch.device("cpu"))  # as a training run does
    config = PreTrainedConfig.from_pretrained(args.folder / "policy")
    return DiffusionPolicy.from_pretrained(args.folder / "policy", config=config), batch


def make(folder: Path, case: str, args: argparse.Namespace) -> None:
    """Write a policy with random weights, and one batch."""
    from safetensors.torch import save_file

    from lerobot.core.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.config import DiffusionConfig
    from lerobot.policies.diffusion.policy import DiffusionPolicy

    num_cameras, changes = CASES[case]
    cameras = [f"{IMAGES}{number}" for number in range(num_cameras)]
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, 96, 96)) for name in cameras}
    config = DiffusionConfig(
        input_features={**inputs, STATE: PolicyFeature(FeatureType.STATE, (2,))},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        pretrained_backbone_weights=None,
        device="cpu",
        **changes,
    )
    torch.manual_seed(0)
    DiffusionPolicy(config).save_pretrained(folder / "policy")
    batch = {name: torch.randn(args.batch_size, 2, 3, 96, 96) for name in cameras}
    batch[STATE] = torch.randn(args.batch_size, 2, 2)
    batch[ACTION] = torch.randn(args.batch_size, config.horizon, 2)
    batch[f"{ACTION}_is_pad"] = torch.zeros(args.batch_size, config.horizon, dtype=torch.bool)
    save_file(batch, folder / "batch.safetensors")


def switch_to_ddim(folder: Path) -> None:
    """Let the stored policy sample in ten steps."""
    path = folder / "policy" / "config.json"
    tree = json.loads(path.read_text()) | {"noise_scheduler_type": "DDIM", "num_inference_steps": 10}
    path.write_text(json.dumps(tree))


def main() -> None:
    """Print three rows per network."""
    args = arguments(__doc__, list(CASES), batch_size=8).parse_args()
    print_head(args)
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), case, args)
            report(case, measure(__file__, Path(name), args, asked=("step", "DDPM")))
            switch_to_ddim(Path(name))
            report(case, measure(__file__, Path(name), args, asked=("DDIM",)))


if __name__ == "__main__":
    work(worker_arguments().parse_args()) if "--worker" in sys.argv else main()
