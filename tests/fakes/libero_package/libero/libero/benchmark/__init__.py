"""Suites of ten tasks, with their files where the package has them: <bddl_files>/<suite>/<task>.bddl."""

import os
from typing import NamedTuple

import torch

from libero.libero import get_libero_path


class Task(NamedTuple):
    name: str
    language: str


class Suite:
    def __init__(self, name):
        self.name = name
        self.tasks = [Task(f"{name}_lift_{i}", f"lift the box {i}") for i in range(10)]

    def get_task(self, number):
        return self.tasks[number]

    def get_task_bddl_file_path(self, number):
        return os.path.join(get_libero_path("bddl_files"), self.name, f"{self.tasks[number].name}.bddl")

    def get_task_init_states(self, number):
        folder = os.path.join(get_libero_path("init_states"), self.name)
        return torch.load(os.path.join(folder, f"{self.tasks[number].name}.pruned_init"), weights_only=False)


def get_benchmark(name):
    return lambda: Suite(name.lower())
