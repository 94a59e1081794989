"""How long it takes to start: imports beside `import torch`, every command's --help; the best of some runs.

    .venv/bin/python benchmarks/startup.py [--runs 5]

Seconds depend on the machine; the last column compares with `import torch` on it, a minute apart.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "python alone": "pass",
    "import lerobot": "import lerobot",
    "import torch": "import torch",
    "from lerobot.datasets import LeRobotDataset": "from lerobot.datasets import LeRobotDataset",
    "from ...act.config import ACTConfig": "from lerobot.policies.act.config import ACTConfig",
}
HELP = """
import sys
sys.argv[1:] = [*{flags!r}, "--help"]
from lerobot.scripts.{name} import main
main()
"""


def commands() -> dict[str, str]:
    """What is typed -> the code behind it, for every command."""
    found = {}
    for path in sorted((ROOT / "lerobot" / "scripts").glob("[a-z]*.py")):
        found[f"lerobot-{path.stem} --help"] = HELP.format(name=path.stem, flags=[])
    found["lerobot-train --policy.type=act --help"] = HELP.format(name="train", flags=["--policy.type=act"])
    return found


def seconds(code: str, *, runs: int) -> float:
    """The best wall time of a fresh Python that runs the code."""
    best = float("inf")
    for _ in range(runs + 1):  # the first one warms the disk
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    codes = IMPORTS | commands()
    took = {name: seconds(code, runs=runs) for name, code in codes.items()}
    alone = took["python alone"]
    print(f"{'':<46} {'seconds':>8} {'without python':>15} {'of import torch':>16}")
    for name, total in took.items():
        share = (total - alone) / (took["import torch"] - alone)
        print(f"{name:<46} {total:8.3f} {total - alone:15.3f} {share:16.2f}")


if __name__ == "__main__":
    main()
