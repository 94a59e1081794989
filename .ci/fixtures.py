"""Compare this package with the recorded numbers of a fixtures folder: parts that are built must be equal.

    .venv/bin/python .ci/fixtures.py FIXTURES

How it grows: a part that a change builds gets its folder (or the beginning of its name) in PARTS, and what it
was waiting for leaves NOT_BUILT. A failure is never allowed; an absence only while it stands in NOT_BUILT.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = ["datasets/v30", "datasets/v21", "stats", "sampler", "transforms", "normalize", "optim"]
PARTS += [
    "policies/act",
    "policies/legacy_act",
    "policies/diffusion",
    "policies/legacy_diffusion",
    "policies/vqbet",
    "policies/tdmpc",
    "train_runs",
]

# Beginnings of names of checks -> what the complaint says while their part is not built.
NOT_BUILT = {
    "optim/preset/": "policy type",  # presets of policies that have no folder yet
    "transforms": "torchvision.transforms.v2",  # a case with its flips; tests/golden has it with ours
}

# Beginning of names, where -> the recording's own error. Image spreads were recorded by float32 sums over all
# pixels, up to 5e-5 from the exact value; ours are computed in float64, within 1e-8 of it.
MORE_EXACT = {("stats/episode_", "at observation.images.cam/std"): 5e-5}


def main(fixtures: Path) -> int:
    """Exit status: 1 if a check failed or is absent without being in NOT_BUILT, or if nothing was checked."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.json"
        how = ["--quiet", "--json", str(answers), "--only", *PARTS]
        done = subprocess.run([sys.executable, str(fixtures / "check.py"), str(fixtures), *how])
        if not answers.is_file():
            print(f"the comparison itself broke (exit status {done.returncode})")
            return 1
        checks = json.loads(answers.read_text(encoding="utf-8"))["checks"]
    wrong = [check for check in checks if is_wrong(check) or is_missing(check)]
    passed = sum(check["status"] == "PASS" for check in checks)
    print(f"fixtures: {passed} equal, {len(wrong)} wrong")
    for check in wrong:
        print(f"  {check['status']} {check['name']}  {check['text']}")
    return 1 if wrong or not passed else 0


def is_wrong(check: dict) -> bool:
    """Whether something differs by more than the recording's own error."""
    is_number = check["text"].startswith("max_err=")  # no complaint about shapes or missing keys before it
    own_error = max(
        (e for (name, at), e in MORE_EXACT.items() if check["name"].startswith(name) and at in check["text"]),
        default=0.0,
    )
    return check["status"] == "FAIL" and not (is_number and check["max_err"] <= own_error)


def is_missing(check: dict) -> bool:
    """Whether something is absent that should be there."""
    expected = any(check["name"].startswith(n) and text in check["text"] for n, text in NOT_BUILT.items())
    return check["status"] == "ABSENT" and not expected


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
