"""Trains on a Ray cluster: an actor per process, which together do what torchrun's processes do.

python examples/ray_train.py 4 --dataset.repo_id=me/so101_pick --policy.type=act --output_dir=/shared/act_pick

The first word is the number of processes, the others are flags of lerobot-train. Each process gets a GPU,
where the cluster has any, and a CPU where it has none. `--output_dir` must be a folder that all machines see.
A run that was stopped goes on with `--resume=true --output_dir=...`. Without `ray start` the cluster is this
machine alone.
"""

import os
import socket
import sys

import ray


@ray.remote
class Process:
    """One of the processes that train together."""

    def door(self) -> tuple[str, int]:
        """This machine's address, and a port that is free on it, for the processes to meet."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def train(self, rank: int, size: int, door: tuple[str, int], flags: list[str]) -> str:
        """Train as process `rank` of `size`; gives the folder of the last checkpoint."""
        # Ray shows an actor its own GPU only, so that each is the first one of its machine.
        place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        place |= {"MASTER_ADDR": door[0], "MASTER_PORT": door[1]}
        os.environ |= {name: str(value) for name, value in place.items()}
        from lerobot.scripts.train import train

        return str(train(flags))


def main() -> None:
    """Start the processes and print where the last checkpoint is."""
    if len(sys.argv) < 2 or not sys.argv[1].isdigit():
        raise SystemExit(
            "Type: python examples/ray_train.py NUMBER_OF_PROCESSES --dataset.repo_id=... --flags ..."
        )
    size, flags = int(sys.argv[1]), sys.argv[2:]
    ray.init(runtime_env={"env_vars": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}})
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    kind = Process.options(num_cpus=1, num_gpus=1 if has_gpus else 0)
    processes = [kind.remote() for _ in range(size)]
    door = ray.get(processes[0].door.remote())
    # An error of any of them ends all: Ray stops the actors of a program that ends.
    folders = ray.get([one.train.remote(rank, size, door, flags) for rank, one in enumerate(processes)])
    print(folders[0])


if __name__ == "__main__":
    main()
