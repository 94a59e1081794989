"""How fast datasets are read: items per second, CPU per item, memory, opening; beside LeRobot if installed.

    .venv/bin/python benchmarks/reading.py [--reference /path/to/python] [--seconds 10] [--small] [CASE ...]

The data is made once, in the folder given by --data. Every case runs in a process of its own with one thread
per library call, and both sides read the same items in the same order as their training does, pictures as
uint8: `dataset.batch` in --workers threads, a DataLoader with as many processes; "floats" are the items that
`dataset[i]` gives by default. CPU is that of all processes together. The frame cache is compared with what
the reference does for the same items: decoding them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
FPS = 30
ACTIONS = [k / FPS for k in range(100)]
PUSHT = {
    "observation.images.top": [-1 / FPS, 0.0],
    "observation.state": [-1 / FPS, 0.0],
    "action": [k / FPS for k in range(-1, 15)],
}
CASES = {  # name: dataset, options, batch, order, what must be reached
    "state chunk 100": ("states", {"delta_timestamps": {"action": ACTIONS}}, 64, "random", "100x"),
    "video random": ("cameras", {}, 8, "random", "2x"),
    "video sequential": ("cameras", {}, 8, "in order", "3x"),
    "video random, floats": ("cameras", {"return_uint8": False}, 8, "random", "2x"),
    "video in order, floats": ("cameras", {"return_uint8": False}, 8, "in order", "3x"),
    "video cached": ("cameras", {"cache": "ram"}, 8, "random", "30x"),
    "video cached on disk": ("cameras", {"cache": "disk"}, 8, "random", "30x"),
    "pusht windows": ("pusht", {"delta_timestamps": PUSHT}, 64, "random", "5x"),
}
BACKENDS = ("pyav", "torchcodec")


# ------------------------------------------------------------------------------------------------ data
def picture(k: int, *, height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3): a textured table, a moving object, a little noise as cameras have."""
    rng = np.random.default_rng(seed)
    table = rng.integers(60, 130, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    size = height // 4
    top, left = (k * 2) % (height - size), (k * 3) % (width - size)
    table[top : top + size, left : left + size] = rng.integers(150, 255, (size, size, 3), dtype=np.uint8)
    noise = np.random.default_rng(k).integers(0, 9, (height, width, 1), dtype=np.uint8)
    return table + noise


def record(root: Path, *, episodes: int, length: int, cameras: list[str], height: int, width: int) -> None:
    """A dataset as recording makes it, with AV1 at the default settings."""
    from lerobot.datasets import LeRobotDataset

    vector = {"dtype": "float32", "shape": (6,), "names": None}
    shape = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector}
    features |= {f"observation.images.{name}": shape for name in cameras}
    dataset = LeRobotDataset.create("bench/it", FPS, features, root=root)
    for episode in range(episodes):
        for k in range(length):
            frame = {"observation.state": np.full(6, k, np.float32), "action": np.full(6, -k, np.float32)}
            for number, name in enumerate(cameras):
                pixels = picture(k, height=height, width=width, seed=10 * episode + number)
                frame[f"observation.images.{name}"] = pixels
            dataset.add_frame(frame | {"task": "move it"})
        dataset.save_episode()
    dataset.finalize()


def write_states(root: Path, *, episodes: int, length: int) -> None:
    """Many episodes without cameras, written at once: recording 20,000 one by one would take an hour."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lerobot.datasets import tables
    from lerobot.datasets.metadata import LeRobotDatasetMetadata
    from lerobot.datasets.schema import column_array, frame_schema
    from lerobot.datasets.stats import get_feature_stats

    vector = {"dtype": "float32", "shape": (14,), "names": None}
    meta = LeRobotDatasetMetadata.create(
        "bench/it", FPS, {"observation.state": vector, "action": vector}, root=root
    )
    count, schema = episodes * length, frame_schema(meta.features)
    index, frame = np.arange(count), np.tile(np.arange(length), episodes)
    values = np.random.default_rng(0).standard_normal((count, 14), dtype=np.float32)
    columns = {"observation.state": values, "action": values[::-1], "index": index, "frame_index": frame}
    columns |= {"timestamp": (frame / FPS).astype(np.float32), "task_index": np.zeros(count, np.int64)}
    columns["episode_index"] = np.repeat(np.arange(episodes), length)
    arrays = [column_array(columns[field.name], field, meta.features[field.name]) for field in schema]
    path = root / meta.data_file(0, 0)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, row_group_size=100 * length)
    meta.stats = {
        name: get_feature_stats(values[:1000], 0, False) for name in ("action", "observation.state")
    }
    rows = [
        {"episode_index": e, "tasks": ["move it"], "length": length, "data/chunk_index": 0}
        | {"data/file_index": 0, "dataset_from_index": e * length, "dataset_to_index": (e + 1) * length}
        | tables.flatten_stats(meta.stats)
        | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        for e in range(episodes)
    ]
    path = root / tables.EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, tables.episode_rows(rows[:1]).schema) as writer:
        for start in range(0, episodes, 10):  # a row group every ten episodes, as other writers have it
            writer.write_table(tables.episode_rows(rows[start : start + 10]))
    meta.tasks = tables.TaskTable(["move it"])
    meta.tasks.save(root)
    meta.info |= {"total_episodes": episodes, "total_frames": count, "total_tasks": 1}
    meta.info["splits"] = {"train": f"0:{episodes}"}
    meta.save_info()
    meta.save_stats()


def make_data(data: Path, *, small: bool) -> None:
    """The four datasets, if they are not there."""
    share = 10 if small else 1
    makers = {
        "cameras": lambda root: record(
            root, episodes=3 if small else 8, length=150, cameras=["top", "wrist"], height=480, width=640
        ),
        "pusht": lambda root: record(
            root, episodes=40 // share, length=150, cameras=["top"], height=96, width=96
        ),
        "states": lambda root: write_states(root, episodes=400 // share, length=300),
        "many": lambda root: write_states(root, episodes=20_000 // share, length=30),
    }
    for name, make in makers.items():
        if not (data / name / "meta" / "stats.json").is_file():
            print(f"making {name} ...", file=sys.stderr)
            make(data / name)


# ------------------------------------------------------------------------------------------------ one process
def open_dataset(root: Path, options: dict, backend: str | None):
    """The dataset as either package opens it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    if backend is not None:
        options = {key: value for key, value in options.items() if not key.startswith("cache")}
        options["video_backend"] = backend
    return LeRobotDataset("bench/it", root=root, **{"return_uint8": True, **options})


def measure_case(name: str, *, data: Path, seconds: float, workers: int, backend: str | None) -> dict:
    """Items per second and CPU of one case, after a batch that warms up (an epoch, for the frame cache)."""
    where, options, size, order, _ = CASES[name]
    dataset = open_dataset(data / where, options, backend)
    count = len(dataset)
    items = np.random.default_rng(0).permutation(count) if order == "random" else np.arange(count)
    batches = items[: count - count % size].reshape(-1, size).tolist()
    if backend is None:
        for batch in batches if "cache" in options else batches[:1]:
            dataset.batch(batch)
    elif not workers:  # its decoders do not survive a fork
        dataset[0]
    wall, cpu, asked = time.perf_counter(), used_cpu(), 0

    def until_late():
        nonlocal asked
        while time.perf_counter() - wall < seconds:
            yield batches[(asked + 1) % len(batches)]
            asked += 1

    deque(load(dataset, until_late(), workers=workers, backend=backend), maxlen=0)
    wall, cpu = time.perf_counter() - wall, used_cpu() - cpu
    return {"items_per_s": asked * size / wall, "cpu_ms": 1e3 * cpu / (asked * size)}


def load(dataset, batches, *, workers: int, backend: str | None):
    """Collated batches as training gets them: from threads, or from the processes of torch's loader."""
    if backend is not None:
        from torch.utils.data import DataLoader

        yield from DataLoader(dataset, batch_sampler=batches, num_workers=workers)
    elif not workers:
        yield from map(dataset.batch, batches)
    else:
        waiting: deque = deque()
        with ThreadPoolExecutor(workers) as pool:
            for batch in batches:
                waiting.append(pool.submit(dataset.batch, batch))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            yield from (one.result() for one in waiting)


def used_cpu() -> float:
    """Seconds of this process and of those it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def measure_opening(*, data: Path, backend: str | None) -> dict:
    """Seconds until a dataset of 20,000 episodes is open."""
    import torch  # noqa: F401 - not part of what is measured
    from torch.utils.data import Dataset  # noqa: F401

    from lerobot.datasets import lerobot_dataset

    lerobot_dataset.LeRobotDataset  # noqa: B018 - the import may be lazy
    began = time.perf_counter()
    open_dataset(data / "many", {}, backend)
    return {"seconds": time.perf_counter() - began}


def measure_memory(threads: int, *, data: Path) -> dict:
    """Largest resident memory, MiB, with so many loader threads."""
    dataset = open_dataset(data / "many", {"delta_timestamps": {"action": ACTIONS}}, None)
    batches = np.random.default_rng(0).integers(0, len(dataset), (400, 64))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda items: len(dataset.batch(items)), batches))
    return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


# ------------------------------------------------------------------------------------------------ all of it
def run(python: str, home: Path, *words: str) -> dict | None:
    """What one process measured; None when it could not."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(home),
    }
    if python == sys.executable:
        env["PYTHONPATH"] = str(ROOT)
    words = (python, str(Path(__file__).resolve()), *words)
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  failed: {' '.join(words[2:])}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare_cases(chosen: list[str], args: argparse.Namespace, home: Path) -> None:
    heads = f"{'':<22} {'items/s':>10} {'CPU ms/item':>12}"
    print(heads + f" {'reference':>15} {'items/s':>8} {'CPU ms':>7} {'speed':>7} {'CPU':>7} {'wanted':>7}")
    for name in chosen:
        words = ["--measure", name, "--data", str(args.data), "--seconds", str(args.seconds)]
        words += ["--workers", str(args.workers)]
        ours = run(sys.executable, home / "ours", *words)
        assert ours is not None
        line = f"{name:<22} {ours['items_per_s']:>10.1f} {ours['cpu_ms']:>12.3f}"
        for backend in BACKENDS if args.reference else ():
            theirs = run(str(args.reference), home / "theirs", *words, "--backend", backend)
            if theirs:
                print(
                    f"{line} {backend:>15} {theirs['items_per_s']:>8.1f} {theirs['cpu_ms']:>7.2f}"
                    f" {ours['items_per_s'] / theirs['items_per_s']:>6.1f}x"
                    f" {theirs['cpu_ms'] / ours['cpu_ms']:>6.1f}x {CASES[name][4]:>7}"
                )
        if not args.reference:
            print(line)


def show_opening(args: argparse.Namespace, home: Path) -> None:
    sides = [("ours", sys.executable, [])]
    if args.reference:
        sides.append(("reference", str(args.reference), ["--backend", "pyav"]))
    for name, python, more in sides:
        words = ["--measure", "opening", "--data", str(args.data), *more]
        took = [run(python, home / f"opening {name}", *words) for _ in range(2)]
        text = [f"{one['seconds']:.2f} s" if one else "failed" for one in took]
        print(f"opening 20,000 episodes, {name}: first {text[0]}, again {text[1]}")
    _, one, eight = (  # the first one fills the cache
        run(sys.executable, home / "ours", "--measure", f"memory {n}", "--data", str(args.data))
        for n in (1, 1, 8)
    )
    assert one is not None and eight is not None
    print(
        f"resident memory: 1 thread {one['mib']:.0f} MiB, 8 threads {eight['mib']:.0f} MiB, "
        f"{eight['mib'] / one['mib']:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join([*CASES, 'opening'])}")
    parser.add_argument("--reference", type=Path, help="a Python that has LeRobot 0.6.1")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lerobot-reading")
    parser.add_argument("--seconds", type=float, default=10.0, help="per case and side")
    parser.add_argument("--workers", type=int, default=2, help="threads of ours, processes of the reference")
    parser.add_argument("--small", action="store_true", help="a tenth of the data")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        kind, _, number = args.measure.partition(" ")
        if args.measure == "opening":
            print(json.dumps(measure_opening(data=args.data, backend=args.backend)))
        elif kind == "memory":
            print(json.dumps(measure_memory(int(number), data=args.data)))
        else:
            how = {"data": args.data, "seconds": args.seconds, "workers": args.workers}
            print(json.dumps(measure_case(args.measure, **how, backend=args.backend)))
        return
    sys.path.insert(0, str(ROOT))
    make_data(args.data, small=args.small)
    chosen = args.cases or [*CASES, "opening"]
    with tempfile.TemporaryDirectory() as home:
        compare_cases([name for name in chosen if name in CASES], args, Path(home))
        if "opening" in chosen:
            show_opening(args, Path(home))


if __name__ == "__main__":
    main()
