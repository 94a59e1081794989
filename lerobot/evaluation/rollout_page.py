"""The parts of a page about episodes in simulation: one number, groups and tasks, spread, videos, episodes.

EvalResult -> rollout_parts -> ["<div ...", ...] -> page.document
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot.evaluation import page
from lerobot.evaluation.bars import Measured, forest, histogram
from lerobot.evaluation.charts import interval_bar
from lerobot.evaluation.result import EpisodeResult, EvalResult, aggregate, task_name

EMBEDDED_BYTES = 12_000_000  # of videos inside the page; more are played from the files beside it
SHOWN_VIDEOS = 12  # more wait behind a click
OPEN_ROWS = 100  # a longer table of episodes waits behind a click
EPISODE_HEADER = ("episode", "seed", "success", "steps", "sum of rewards", "highest reward")


def rollout_parts(result: EvalResult, folder: Path) -> list[str]:
    """Headline, facts, groups and tasks where there are several, returns and lengths, videos, episodes.

    Args:
        folder: where the page will lie.
    """
    found = result.overall
    low, high = found["success_rate_interval"]
    text = f"{found['n_successes']} of {len(result.episodes)} episodes succeeded. The true rate lies between "
    text += f"{low:.0%} and {high:.0%} (95 % Wilson interval for so many episodes)."
    texts = list(dict.fromkeys(part[0].task for part in result.tasks.values()))
    said = (
        texts[0] if len(texts) == 1 else f"{len(result.tasks)} in {len(result.groups)} groups, listed below"
    )
    rows = {"task": said, **{name: row for name, row in result.rows.items() if name != "success rate"}}
    bar = interval_bar(found["success_rate"], low, high)
    return [
        page.headline(f"{found['success_rate']:.0%}", text, body=bar),
        page.facts({**rows, **fact_rows(result.facts)}),
        *(task_parts(result) if len(result.tasks) > 1 else ()),
        page.section("How the episodes went", page.grid(spread_charts(result.episodes), is_wide=True)),
        video_part(result, folder),
        page.section("Episodes", *episode_tables(result)),
    ]


def task_parts(result: EvalResult) -> list[str]:
    """Success with its interval by group and by task, and a table of all their numbers."""
    groups = {name: aggregate(part) for name, part in result.groups.items()}
    tasks = {task_name(key): aggregate(part) for key, part in result.tasks.items()}
    named = {**groups, **tasks} if len(groups) > 1 else tasks
    texts = {task_name(key): part[0].task for key, part in result.tasks.items()}
    cells = [
        [
            name,
            f"{means['success_rate']:.0%}",
            between(means["success_rate_interval"], ".0%"),
            str(means["n_episodes"]),
            f"{means['avg_sum_reward']:.4g}",
            between(means["avg_sum_reward_interval"], ".4g"),
            f"{means['avg_steps']:.0f}",
            texts.get(name, ""),
        ]
        for name, means in [("all", result.overall), *named.items()]
    ]
    header = ["", "success", "95 % interval", "episodes", "return", "95 % interval", "steps", "task text"]
    charts = [success_forest("success by group", groups)] if len(groups) > 1 else []
    return [
        page.section("Groups and tasks", *charts, success_forest("success by task", tasks)),
        page.fold("All numbers of groups and tasks", page.table(header, cells)),
    ]


def success_forest(title: str, named: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each, with the interval of its success rate."""
    rows = []
    for name, means in named.items():
        rate, (low, high) = means["success_rate"], means["success_rate_interval"]
        text = f"{rate:.0%}  ({means['n_successes']} of {means['n_episodes']})"
        rows.append(Measured(name, rate, low, high, text))
    return forest(title, rows, low=0.0, high=1.0)


def spread_charts(episodes: Sequence[EpisodeResult]) -> list[str]:
    """How returns and lengths are distributed, episodes with and without success apart."""
    kinds = {
        "success": [episode for episode in episodes if episode.success],
        "no success": [episode for episode in episodes if not episode.success],
    }
    returns = {name: [episode.sum_reward for episode in kind] for name, kind in kinds.items()}
    steps = {name: [float(episode.steps) for episode in kind] for name, kind in kinds.items()}
    return [
        histogram("returns", returns, x_label="sum of rewards of an episode"),
        histogram("lengths", steps, x_label="steps of an episode"),
    ]


def video_part(result: EvalResult, folder: Path) -> str:
    """The videos: the first of each task before the second ones; many of them behind a click."""
    filmed = [one for one in result.episodes if one.video is not None and one.video.is_file()]
    filmed.sort(key=lambda one: one.index)
    figures, left = [], EMBEDDED_BYTES
    for number, episode in enumerate(filmed):
        assert episode.video is not None
        left -= episode.video.stat().st_size
        figures.append(
            page.video(
                episode.video,
                video_caption(episode, has_tasks=len(result.tasks) > 1),
                relative_to=folder,
                is_embedded=left >= 0,
                is_waiting=number >= SHOWN_VIDEOS,
            )
        )
    more = page.fold(f"{len(figures) - SHOWN_VIDEOS} more videos", page.grid(figures[SHOWN_VIDEOS:]))
    return page.section("Videos", page.grid(figures[:SHOWN_VIDEOS]), more)


def video_caption(episode: EpisodeResult, *, has_tasks: bool) -> str:
    """What a video shows."""
    what = episode.name if has_tasks else f"Episode {episode.index}"
    return f"{what}: {'' if episode.success else 'no '}success, {episode.steps} steps"


def episode_tables(result: EvalResult) -> list[str]:
    """A row per episode; a table of its own for each of several tasks."""
    tables = {}
    for key, episodes in result.tasks.items():
        rows = [episode_row(episode) for episode in episodes]
        title = f"{task_name(key)}: {len(episodes)} episodes"
        tables[title] = page.table(EPISODE_HEADER, rows, marks={"yes": "good", "no": "bad"})
    if len(tables) == 1 and len(result.episodes) <= OPEN_ROWS:
        return list(tables.values())
    return [page.fold(title, table) for title, table in tables.items()]


def episode_row(episode: EpisodeResult) -> list[str]:
    """The cells of an episode under EPISODE_HEADER."""
    answer = "yes" if episode.success else "no"
    counts = [str(episode.index), str(episode.seed), answer, str(episode.steps)]
    return [*counts, f"{episode.sum_reward:.3f}", f"{episode.max_reward:.3f}"]


def between(interval: Sequence[float] | None, form: str) -> str:
    """'12% to 34%'; a dash where there is no interval."""
    return "–" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def fact_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts that are one word each."""
    return {
        name: str(value) for name, value in facts.items() if isinstance(value, (str, int, float)) and value
    }
