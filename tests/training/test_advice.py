"""What holds a run up, told from the shares of a step, and what is advised with the run's own settings."""

from dataclasses import replace

import pytest

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.flags import read_flags, tree_of
from lerobot.training.config import TrainConfig, complete
from lerobot.training.gauges.advice import GIB, Advisor, Situation, Verdict, judge
from tests.training.conftest import TINY_ACT


def situation(*flags: str, device: str = "cuda", **more) -> Situation:
    words = ["--dataset.repo_id=local/small", *TINY_ACT, *flags]
    cfg = decode(TrainConfig, tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete))
    shares = {"data": 0.0, "transfer": 0.0, "prepare": 0.0, "compute": 0.9, "optimizer": 0.1, "other": 0.0}
    shares |= more.pop("shares", {})
    return Situation(cfg=cfg, device=device, shares=shares, **({"cores": 16, "cores_used": 2.0} | more))


WAITS = {"data": 0.6, "compute": 0.3}
CASES = {
    "nothing is read ahead": (situation("--num_workers=0", shares=WAITS), "data", "--num_workers=4"),
    "cores are idle": (situation("--num_workers=4", shares=WAITS), "data", "--num_workers=16"),
    "threads wait for the lock": (
        situation("--num_workers=8", shares=WAITS, cores_used=1.1),
        "data",
        "--loader_workers=processes",
    ),
    "all cores are busy and pictures fit": (
        situation(shares=WAITS, cores_used=15.6, picture_bytes=GIB, free_bytes=8 * GIB),
        "data",
        "--dataset.cache=ram",
    ),
    "pictures do not fit": (
        situation(shares=WAITS, cores_used=15.6, picture_bytes=7 * GIB, free_bytes=8 * GIB),
        "data",
        "--dataset.cache=disk",
    ),
    "pictures are kept already": (
        situation("--dataset.cache=ram", shares=WAITS, cores_used=15.6, picture_bytes=GIB, free_bytes=GIB),
        "data",
        "--policy.input_shapes",
    ),
    "memory is not page-locked": (
        situation("--pin_memory=false", shares={"transfer": 0.4}),
        "transfer",
        "--pin_memory=true",
    ),
    "the device waits for Python": (situation(starved_share=0.9), "launch", "--compile=true"),
    "it is compiled and there is room": (
        situation("--compile=true", starved_share=0.9, memory_share=0.2),
        "launch",
        "--batch_size=16",
    ),
    "full precision": (situation(starved_share=0.0), "compute", "--mixed_precision=true"),
    "half precision": (situation("--mixed_precision=true", starved_share=0.0), "compute", "--compile=true"),
    "lines of log": (
        situation("--log_freq=1", shares={"other": 0.5, "compute": 0.4}),
        "compute",
        "--log_freq=100",
    ),
    "many changes of pictures": (
        situation("--dataset.image_transforms.enable=true", shares={"prepare": 0.5, "compute": 0.4}),
        "compute",
        "--dataset.image_transforms.max_num_transforms=1",
    ),
    "a processor": (situation(device="cpu"), "compute", "a GPU does"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_and_what_to_type(case):
    now, bound, words = CASES[case]
    verdict = judge(now)
    assert verdict.bound == bound and verdict.advice.startswith(f"{bound}-bound: ")
    assert words in verdict.advice


def test_every_flag_that_is_advised_exists():
    """What a person is told to type is read without complaint."""
    for now, _, _ in CASES.values():
        said = judge(now).advice
        for word in said.replace("(", " ").replace(")", " ").split():
            if word.startswith("--") and "CAMERA" not in word:
                situation(word.rstrip(".,"))


def test_it_is_said_when_it_changes_and_stays_changed():
    advisor = Advisor()
    data, compute = (Verdict(bound=bound, advice=bound) for bound in ("data", "compute"))
    said = [advisor.hear(one) for one in (data, data, compute, data, compute, compute, compute)]
    assert said == ["data", None, None, None, None, "compute", None]
    assert advisor.said == compute
    assert advisor.hear(replace(compute, advice="compute, but otherwise")) is None
