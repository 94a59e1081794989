"""The life of a dataset: record, lose power, go on, merge with another, train while reading.

    python examples/dataset_life.py

It only runs the public commands and prints each of them, so that they can be copied. The recording is stopped
by SIGKILL, as by a power cut: every episode that was reported saved must be there afterwards, and no other.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from lerobot.sim.gl import has_renderer

KILL_AFTER = 3  # saved episodes
SMALL_ACT = ["--policy.type=act", "--policy.vision_backbone=resnet10", "--policy.dim_model=32"]
SMALL_ACT += ["--policy.pretrained_backbone_weights=null", "--policy.n_heads=2", "--policy.chunk_size=10"]
SMALL_ACT += ["--policy.n_action_steps=10", "--policy.dim_feedforward=32", "--policy.push_to_hub=false"]


def main() -> None:
    """Run the commands one after the other; the first failure ends it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", default="outputs/dataset_life")
    parser.add_argument("--size", type=int, default=96, help="pixels of each camera's sides")
    args = parser.parse_args()
    folder = Path(args.output_dir)
    shutil.rmtree(folder, ignore_errors=True)
    env = ["--env.type=so101", "--env.difficulty=easy"]
    env += [f"--env.observation_{side}={args.size}" for side in ("height", "width")]
    if not has_renderer():
        env.append("--env.obs_type=state")
    first, second, both = folder / "monday", folder / "tuesday", folder / "both"

    collect = ["collect", *env, "--dataset.repo_id=local/monday", f"--dataset.root={first}"]
    saved = run_and_kill([*collect, "--num_episodes=50"], root=first)
    print(f"\nKilled after {saved} saved episodes.")
    run(["doctor", str(first)])
    run([*collect, "--resume=true", "--num_episodes=2"])
    run(["doctor", str(first)])
    run(["collect", *env, "--dataset.repo_id=local/tuesday", f"--dataset.root={second}", "--num_episodes=3"])
    merge = ["edit_dataset", "--operation.type=merge", "--operation.repo_ids=[local/monday,local/tuesday]"]
    run([*merge, f"--operation.roots=[{first},{second}]", "--new_repo_id=local/both", f"--new_root={both}"])
    run(["doctor", str(both)])
    data = ["--dataset.repo_id=local/both", f"--dataset.root={both}", "--dataset.streaming=true"]
    train = [*SMALL_ACT, "--policy.num_epochs=1", "--batch_size=16", f"--output_dir={folder / 'train'}"]
    run(["train", *data, *train, "--log_freq=10"])


def run(words: list[str]) -> None:
    """Run one of our commands, printed as a person would type it."""
    code = subprocess.run(command(words), env=os.environ, check=False).returncode
    if code:
        sys.exit(code)


def run_and_kill(words: list[str], *, root: Path) -> int:
    """Start a recording and kill it in the middle of an episode; returns how many episodes it had saved."""
    process = subprocess.Popen(command(words), start_new_session=True)
    while process.poll() is None and saved_episodes(root) < KILL_AFTER:
        time.sleep(0.02)
    if process.poll() is not None:
        sys.exit(process.returncode or 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return saved_episodes(root)


def saved_episodes(root: Path) -> int:
    """What the dataset's info.json counts, while it is being recorded."""
    info = root / "meta/info.json"
    found = re.search(r'"total_episodes": (\d+)', info.read_text()) if info.is_file() else None
    return int(found[1]) if found else 0


def command(words: list[str]) -> list[str]:
    """The words that run one of our commands in this Python; says what a person would type."""
    name, *flags = words
    print(f"\n$ lerobot-{name.replace('_', '-')} {shlex.join(flags)}", flush=True)
    return [sys.executable, "-m", f"lerobot.scripts.{name}", *flags]


if __name__ == "__main__":
    main()
