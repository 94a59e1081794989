"""How long one training step and one planned chunk of ACT take on this machine's CPU.

    .venv/bin/python benchmarks/act.py [--batch_size 8] [--threads 2] [--steps 10]

The network is the published one (chunk 100, width 512, two cameras 480x640) and a small one (96x96, as in the
demo). Made-up data; weights are random. The number of multiplications puts the seconds in proportion.
"""

import argparse
import statistics
import time

import torch

from lerobot.core import keys
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy

SMALL = {
    "vision_backbone": "resnet10",
    "chunk_size": 20,
    "n_action_steps": 10,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 256,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "latent_dim": 16,
}
CASES = {"published, 2 x 480x640": ((480, 640), {}), "of the demo, 2 x 96x96": ((96, 96), SMALL)}


def main() -> None:
    """Print one row per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--small_backbone", default=SMALL["vision_backbone"], help="of the second network")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch_size}")
    print(f"{'network':24} {'ms per step':>12} {'samples/s':>10} {'ms per chunk':>13}")
    for name, (size, fields) in CASES.items():
        if fields:
            fields = {**fields, "vision_backbone": args.small_backbone}
        policy, batch = made_up(size, fields, batch_size=args.batch_size)
        step_s = median_s(lambda p=policy, b=batch: train_step(p, b), args.steps)
        one = {key: value[:1] for key, value in batch.items()}
        chunk_s = median_s(lambda p=policy, b=one: p.predict_action_chunk(b), args.steps)
        print(f"{name:24} {step_s * 1000:12.0f} {args.batch_size / step_s:10.1f} {chunk_s * 1000:13.1f}")


def made_up(size: tuple[int, int], fields: dict, *, batch_size: int) -> tuple[ACTPolicy, dict]:
    """A policy with an optimizer, and one batch for it."""
    cameras = [f"{keys.IMAGES_PREFIX}{name}" for name in ("front", "wrist")]
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, *size)) for name in cameras}
    config = ACTConfig(
        input_features={**inputs, keys.STATE: PolicyFeature(FeatureType.STATE, (6,))},
        output_features={keys.ACTION: PolicyFeature(FeatureType.ACTION, (6,))},
        pretrained_backbone_weights=None,
        device="cpu",
        **fields,
    )
    batch = {name: torch.randn(batch_size, 3, *size) for name in cameras}
    batch |= {
        keys.STATE: torch.randn(batch_size, 6),
        keys.ACTION: torch.randn(batch_size, config.chunk_size, 6),
    }
    batch |= {keys.ACTION + keys.PAD_SUFFIX: torch.zeros(batch_size, config.chunk_size, dtype=torch.bool)}
    policy = ACTPolicy(config)
    policy.optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    return policy, batch


def train_step(policy: ACTPolicy, batch: dict) -> None:
    """Forward, backward, clip, step."""
    policy.train()
    loss, _ = policy(batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
    policy.optimizer.step()
    policy.optimizer.zero_grad(set_to_none=True)


def median_s(work, count: int) -> float:
    """Median seconds of some runs after one that warms up."""
    work()
    seconds = []
    for _ in range(count):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
