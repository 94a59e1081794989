"""The code blocks of the two guides: which of them the tests run, and why the others are left out.

The guides lie beside the repository; where they do not, our copies in `tests/golden/guides` are read.
"""

import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = ROOT.parent / "shared" / "guides"
GOLDEN = ROOT / "tests" / "golden" / "guides"
FENCE = re.compile(r"^( *)```\w*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)

BASICS, TRAINING = "lerobot-basics", "model-training-guide"

# Name of our copy -> the guide, and the number of the block in it.
RUN: dict[str, tuple[str, int]] = {
    "versions": (BASICS, 2),
    "info_json": (BASICS, 4),
    "dataset_windows": (BASICS, 5),
    "basics_push": (BASICS, 7),
    "basics_train": (BASICS, 8),
    "diffusion_pusht": (BASICS, 9),
    "basics_torchrun": (BASICS, 10),
    "basics_config": (BASICS, 11),
    "basics_config_path": (BASICS, 12),
    "basics_fine_tune": (BASICS, 15),
    "basics_resume": (BASICS, 16),
    "basics_freeze": (BASICS, 17),
    "basics_eval_script": (BASICS, 18),
    "basics_memory_flags": (BASICS, 21),
    "basics_loading_flags": (BASICS, 22),
    "act_train": (TRAINING, 0),
    "act_flags": (TRAINING, 1),
    "act_config": (TRAINING, 2),
    "act_script": (TRAINING, 3),
    "act_loss": (TRAINING, 4),
    "diffusion_train": (TRAINING, 5),
    "diffusion_flags": (TRAINING, 6),
    "tdmpc_train": (TRAINING, 7),
    "dataset_section": (TRAINING, 9),
    "training_section": (TRAINING, 10),
    "output_section": (TRAINING, 11),
    "wandb_section": (TRAINING, 12),
    "check_setup": (TRAINING, 13),
    "check_dataset": (TRAINING, 14),
    "start_training": (TRAINING, 15),
    "resume_training": (TRAINING, 16),
    "eval_checkpoint": (TRAINING, 17),
    "eval_hub": (TRAINING, 19),
    "eval_script": (TRAINING, 20),
    "several_gpus": (TRAINING, 22),
    "curriculum": (TRAINING, 24),
    "search": (TRAINING, 25),
    "memory_flags": (TRAINING, 26),
    "speed_flags": (TRAINING, 27),
    "convergence_flags": (TRAINING, 28),
    "debug": (TRAINING, 29),
}

LEFT_OUT: dict[tuple[str, int], str] = {
    (BASICS, 0): "installs from a package registry",
    (BASICS, 1): "installs from a package registry",
    (BASICS, 3): "a picture of a folder, not code",
    (BASICS, 6): "records on a robot",
    (BASICS, 13): "smolvla",
    (BASICS, 14): "pi0_fast",
    (BASICS, 19): "records on a robot",
    (BASICS, 20): "records on a robot, HIL-SERL",
    (TRAINING, 8): "smolvla",
    (TRAINING, 18): "huggingface_hub's own command",
    (TRAINING, 21): "records on a robot",
    (TRAINING, 23): "torchvision's own classes, none of ours",
    (TRAINING, 30): "reads a file of the reader's own; ours are resumed with --resume=true",
}

# Lines left out of blocks that are run.
LEFT_OUT_LINES: dict[str, tuple[str, ...]] = {
    "basics_push": ("huggingface-cli login",),  # huggingface_hub's own
    "check_setup": ("conda activate",),  # conda's own
    "basics_loading_flags": ("export HF_DATASETS_CACHE",),  # a line for the shell
}


def guide_blocks(guide: str) -> list[str]:
    """Every code block of a guide that lies beside the repository, in order."""
    text = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
    return [textwrap.dedent(match[2]) for match in FENCE.finditer(text)]


def block(name: str) -> str:
    """One block, from the guide where it is there, else our copy."""
    guide, number = RUN[name]
    return guide_blocks(guide)[number] if GUIDES.is_dir() else copy_of(name).read_text(encoding="utf-8")


def copy_of(name: str) -> Path:
    """Where our copy of a block is."""
    return GOLDEN / f"{name}.txt"


def lines(name: str) -> list[str]:
    """The commands or flags of a block, one per line: continued lines joined, comments gone."""
    text = block(name).replace("\\\n", " ")
    found = [line.strip() for line in text.splitlines()]
    unwanted = ("#", *LEFT_OUT_LINES.get(name, ()))
    return [line for line in found if line and not line.startswith(unwanted)]


def flags(name: str) -> list[str]:
    """The words of a block that lists flags with comments behind them."""
    return [word for line in lines(name) for word in shlex.split(line, comments=True)]
