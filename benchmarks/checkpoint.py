"""How long saving a checkpoint of the published ACT (52 M parameters) holds up the training loop.

    .venv/bin/python benchmarks/checkpoint.py [--saves 5] [--steps 8] [--threads 1] [--folder DIR]

A real run on a small made-up dataset: the loop's time in `save_checkpoint` and in the optimizer's wait for
the copy, the step time while files are written beside it and without, and the same save while training is
stopped. The first save is listed alone, since its buffers are new. A plain copy of as many bytes is the floor
of a save that copies first and goes on then.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.flags import parse
from lerobot.datasets import LeRobotDataset
from lerobot.distributed.world import World
from lerobot.training.checkpoints.snapshot import copy_on_host
from lerobot.training.checkpoints.state import save_checkpoint
from lerobot.training.config import TrainConfig, complete
from lerobot.training.run import Run, start
from lerobot.training.step import update

SIZE = 64  # pixels; steps are short, which is the hard case: the copy has little to hide behind


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="between two saves")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where checkpoints are written; a temporary one")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = made_up(Path(folder))
        measure(run, saves=args.saves, steps=args.steps)


def measure(run: Run, *, saves: int, steps: int) -> None:
    """Train, save in the background a few times, then save and wait."""
    batches = run.batches()

    def step() -> float:
        group = next(batches)
        taken = seconds(lambda: update(run, group))
        run.step += 1
        return taken

    plain = [step() for _ in range(2 + steps)][2:]
    size = sum(tensor.nbytes for tensor in held(run).values())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {size / 1e6:.0f} MB to save")
    print(f"{'step without a save':44} {statistics.median(plain) * 1000:8.0f} ms")
    stalls, beside, durations = [], [], []
    for _ in range(saves):
        waits: list[float] = []
        run.saver.before_change = timed(type(run.saver).before_change.__get__(run.saver), waits)
        begun_s = time.perf_counter()
        held_s = seconds(lambda: save_checkpoint(run))
        during = [step()]
        while run.saver.is_writing:
            during.append(step())
        durations.append(time.perf_counter() - begun_s)
        stalls.append(held_s + waits[0])
        beside += [taken - wait for taken, wait in zip(during, waits, strict=True)]
        run.saver.wait()
        [step() for _ in range(steps)]
    print(f"{'loop held by a save, the first one':44} {stalls[0] * 1000:8.1f} ms")
    print(f"{'loop held by a save, median of the others':44} {statistics.median(stalls[1:]) * 1000:8.1f} ms")
    print(f"{'loop held by a save, the longest of the others':44} {max(stalls[1:]) * 1000:8.1f} ms")
    print(f"{'step while files are written':44} {statistics.median(beside) * 1000:8.0f} ms")
    print(f"{'until it is on the disk, beside training':44} {statistics.median(durations) * 1000:8.0f} ms")
    alone = []
    for _ in range(saves):
        alone.append(seconds(lambda: (save_checkpoint(run), run.saver.wait())))
        step()
    print(f"{'the same, training stopped meanwhile':44} {statistics.median(alone) * 1000:8.0f} ms")
    copies = {name: torch.empty_like(tensor) for name, tensor in held(run).items()}
    floor = [
        seconds(lambda: [copy_on_host(copies[name], tensor) for name, tensor in held(run).items()])
        for _ in range(2)
    ]
    print(
        f"{'a plain copy, into new memory and again':44} {floor[0] * 1000:8.0f} ms {floor[1] * 1000:5.0f} ms"
    )


def held(run: Run) -> dict[str, torch.Tensor]:
    """What is saved of weights and optimizer."""
    state = run.optimizer.state_dict()["state"]
    moments = {f"{i}/{name}": value for i, own in state.items() for name, value in own.items()}
    return {**{name: value.detach() for name, value in run.policy.saved_weights().items()}, **moments}


def made_up(folder: Path) -> Run:
    """A run of the published network on a dataset of 60 frames."""
    joints = {"dtype": "float32", "shape": [6], "names": [f"j{i}" for i in range(6)]}
    camera = {"dtype": "image", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]}
    table = {"observation.state": joints, "action": dict(joints), "observation.images.top": camera}
    dataset = LeRobotDataset.create("made/up", 10, table, root=folder / "data")
    noise = np.random.default_rng(0)
    for _ in range(60):
        numbers = {name: noise.normal(size=6).astype(np.float32) for name in ("observation.state", "action")}
        picture = noise.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        dataset.add_frame({**numbers, "observation.images.top": picture, "task": "none"})
    dataset.save_episode()
    dataset.finalize()
    words = ["--dataset.repo_id=made/up", f"--dataset.root={folder / 'data'}", "--policy.type=act"]
    words += ["--policy.device=cpu", "--policy.pretrained_backbone_weights=null", "--batch_size=2"]
    words += ["--num_workers=0", f"--output_dir={folder / 'run'}", "--steps=100000", "--keep_last=1"]
    cfg = parse(TrainConfig, words, program="checkpoint", aliases=TRAIN_ALIASES, complete=complete)
    run = start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))
    run.open()
    return run


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def timed(work: Callable[[], None], into: list[float]) -> Callable[[], None]:
    """The same work; notes how long each call took."""
    return lambda: into.append(seconds(work))


if __name__ == "__main__":
    main()
