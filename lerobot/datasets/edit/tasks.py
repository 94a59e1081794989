"""A dataset whose episodes have other tasks."""

from collections.abc import Mapping

import pyarrow as pa

from lerobot.core import keys
from lerobot.core.errors import DatasetError, suggest
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.change import Change
from lerobot.datasets.edit.copying import Copy, all_episodes, check_episodes
from lerobot.datasets.edit.target import Target, in_place
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.stats import Stats, get_feature_stats


def modify_tasks(
    dataset: LeRobotDataset,
    new_task: str | None = None,
    episode_tasks: Mapping[int, str] | None = None,
    task_replacements: Mapping[str, str] | None = None,
) -> LeRobotDataset:
    """The dataset in its place with other tasks; what it was is kept beside it as `<folder>_old`.

    Args:
        new_task: the task of every frame that the other two say nothing about.
        episode_tasks: episode -> its task; counts most.
        task_replacements: task that is there -> its new text.

    Raises:
        DatasetError: nothing is given, an episode or task does not exist, or a text is empty.
    """
    target = in_place(dataset.meta)
    options = {"new_task": new_task, "episode_tasks": episode_tasks, "task_replacements": task_replacements}
    return plan_tasks(dataset.meta, target=target, **options).run()  # type: ignore[arg-type]


def plan_tasks(
    meta: LeRobotDatasetMetadata,
    *,
    target: Target,
    new_task: str | None = None,
    episode_tasks: Mapping[int, str] | None = None,
    task_replacements: Mapping[str, str] | None = None,
) -> Copy:
    """The copy with other tasks."""
    change = OtherTasks(
        new_task=new_task,
        episodes={int(k): v for k, v in (episode_tasks or {}).items()},
        texts=dict(task_replacements or {}),
    )
    if change.episodes:
        check_episodes(meta, change.episodes)
    elif new_task is None and not change.texts:
        raise DatasetError("No task was given: --operation.new_task, episode_tasks or task_replacements.")
    for text in change.texts:
        if text not in meta.tasks:
            raise DatasetError(f"{meta.repo_id!r} has no task {text!r}.{suggest(text, meta.tasks)}")
    for text in (
        *([] if new_task is None else [new_task]),
        *change.episodes.values(),
        *change.texts.values(),
    ):
        if not text.strip():
            raise DatasetError("A task's text is empty; describe what the robot does.")
    stays = {name: one for name, one in meta.stats.items() if name != keys.TASK_INDEX}
    return Copy(target=target, picks=all_episodes(meta), features=meta.features, change=change, stats=stays)


class OtherTasks(Change):
    """Tasks by episode, by their old text, or one for all: the first of these that says something."""

    def __init__(self, *, new_task: str | None, episodes: dict[int, str], texts: dict[str, str]) -> None:
        self.new_task, self.episodes, self.texts = new_task, episodes, texts

    def task(self, k: int, name: str) -> str:
        """The new text."""
        if k in self.episodes:
            return self.episodes[k]
        return self.texts.get(name, name if self.new_task is None else self.new_task)

    def stats(self, k: int, table: pa.Table) -> Stats:
        """Statistics of the task numbers, which are others now."""
        return {keys.TASK_INDEX: get_feature_stats(table.column(keys.TASK_INDEX).to_numpy(), 0, True)}

    def lines(self) -> list[str]:
        """What is said anew."""
        said = [f"episode {k}: task {text!r}" for k, text in self.episodes.items()]
        said += [f"task {old!r} becomes {new!r}" for old, new in self.texts.items()]
        return said + ([] if self.new_task is None else [f"task of all other frames: {self.new_task!r}"])
