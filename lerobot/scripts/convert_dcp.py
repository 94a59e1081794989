"""Put the shards of a policy together: writes model.safetensors beside pytorch_model_fsdp_0.

lerobot-convert-dcp --checkpoint_dir=outputs/train/pi0/checkpoints/002000
lerobot-convert-dcp --checkpoint_dir=outputs/train/pi0/checkpoints/last --delete_dcp=true --push_to_hub=me/pi0

Checkpoints of lerobot-train have model.safetensors already; others may hold shards only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.core.command import command
from lerobot.core.flags import parse


@dataclass(kw_only=True)
class ConvertDCPConfig:
    """Put the shards of a policy together."""

    checkpoint_dir: Path  # a checkpoint, or its pretrained_model
    delete_dcp: bool = False  # remove the policy's shards afterwards; those of the optimizer stay
    push_to_hub: str | None = None  # user/name on the Hub to upload the result to
    private: bool | None = None  # make that repository private; null leaves it as it is
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR


def convert_dcp(args: ConvertDCPConfig | Sequence[str] | None = None) -> Path:
    """Convert as a config, a list of flags, or (None) the command line says; gives the file."""
    if isinstance(args, ConvertDCPConfig):
        cfg = args
    else:
        cfg = parse(ConvertDCPConfig, args, program="lerobot-convert-dcp")
    from lerobot.training.checkpoints.shards import put_together

    path = put_together(cfg.checkpoint_dir, delete=cfg.delete_dcp)
    print(path)
    if cfg.push_to_hub:
        from lerobot.policies.policy import PreTrainedPolicy

        policy = PreTrainedPolicy.from_pretrained(path.parent)
        print(policy.push_to_hub(cfg.push_to_hub, private=cfg.private))
    return path


@command
def main() -> None:
    """Entry point of `lerobot-convert-dcp`."""
    convert_dcp()


if __name__ == "__main__":
    main()
