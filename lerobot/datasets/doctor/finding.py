"""One thing that the doctor found, and the table of everything that it can find.

The codes are stable: programs that read `lerobot-doctor --json` may rely on them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_NAMED = 20  # episodes listed by number in a sentence


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # something cannot be read, or would be read wrongly: the dataset is damaged
    WARNING = "warning"  # everything can be read; somebody should know
    NOTE = "note"  # a state that is in order, such as a recording that is not finalized


@dataclass(frozen=True, kw_only=True)
class Code:
    """A kind of finding."""

    severity: Severity
    about: str  # what it means, for the documentation
    repair: str = ""  # what --repair does about it; empty: it cannot do anything


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found in one file."""

    code: str
    file: str  # relative to the dataset's folder
    found: str
    expected: str
    remedy: str
    episodes: tuple[int, ...] = ()  # which ones are touched; empty: all, or none in particular

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return CODES[self.code].severity


def finding(
    code: str, file: object, *, found: str, expected: str, remedy: str = "", episodes: Iterable[int] = ()
) -> Finding:
    """A finding; where the remedy is not given, it is --repair or a fresh copy, by the code."""
    if not remedy:
        can = CODES[code].repair
        remedy = f"--repair {can}" if can else "fetch this file again from where the dataset came from"
    return Finding(
        code=code,
        file=str(file),
        found=found,
        expected=expected,
        remedy=remedy,
        episodes=tuple(int(episode) for episode in episodes),
    )


def numbered(episodes: Iterable[int]) -> str:
    """'episode 3', 'episodes 3, 4, 9', or the first few and how many more."""
    numbers = [int(episode) for episode in episodes]
    if not numbers:
        return "no episode"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"episodes {numbers[0]} to {numbers[-1]}"
    named = ", ".join(map(str, numbers[:MAX_NAMED]))
    more = f" and {len(numbers) - MAX_NAMED} more" if len(numbers) > MAX_NAMED else ""
    return f"episode{'s' if len(numbers) > 1 else ''} {named}{more}"


_DROP = "leaves these episodes out"
_COUNT = "counts again"
_NUMBER = "numbers the rows again, where the other columns leave no doubt"


def _error(about: str, repair: str = "") -> Code:
    return Code(severity=Severity.ERROR, about=about, repair=repair)


def _warning(about: str, repair: str = "") -> Code:
    return Code(severity=Severity.WARNING, about=about, repair=repair)


def _note(about: str, repair: str = "") -> Code:
    return Code(severity=Severity.NOTE, about=about, repair=repair)


CODES: dict[str, Code] = {
    "info.missing": _error("there is no meta/info.json", "infers it from the files; names are lost"),
    "info.unreadable": _error("meta/info.json is not JSON", "infers it from the files; names are lost"),
    "info.version": _error("the format version is not one that exists"),
    "info.future": _error("the dataset is in a newer format"),
    "info.old": _note("format v2.x: read as it is, never changed"),
    "layout.shards": _note(
        "a list of episodes in JSON lines beside numbered shards: only read, never changed"
    ),
    "layout.damaged": _error("the shards do not hold the episodes that are listed"),
    "info.key": _error(
        "a key is missing or has a value of the wrong kind", "fills in what files or defaults say"
    ),
    "info.fps": _error("fps is no number greater than 0", "takes it from the timestamps of the rows"),
    "info.feature": _error("a feature's declaration cannot be used"),
    "info.path": _error("a path template leads nowhere", "writes the usual one"),
    "info.count": _error("the counters disagree with the episode table", _COUNT),
    "info.behind": _warning(
        "the counters are one episode behind: recording stopped between two writes", _COUNT
    ),
    "info.split": _warning("splits do not cover the episodes that exist", "writes one split of all episodes"),
    "tasks.missing": _error("there is no task table", "takes the texts from the episode table"),
    "tasks.unreadable": _error("the task table is no parquet file", "takes the texts from the episode table"),
    "tasks.column": _error("the task table lacks a column", "takes the texts from the episode table"),
    "tasks.order": _error("row i of the task table is not task i", "sorts the rows, when none is missing"),
    "tasks.text": _error("a task's text is empty or stands there twice", "numbers the tasks again"),
    "episodes.missing": _error("there is no episode table", "takes episodes from data files and videos"),
    "episodes.unreadable": _error(
        "a file of the episode table is damaged", "takes its episodes from data files and videos"
    ),
    "episodes.column": _error(
        "the episode table lacks a column or a value", "takes it from data files and videos"
    ),
    "episodes.order": _error("episode numbers are not 0, 1, 2, ...", "sorts and numbers the episodes"),
    "episodes.length": _error("length is not the number of rows", _COUNT),
    "episodes.range": _error("an episode does not begin where the one before ends", _COUNT),
    "episodes.repeated": _warning(
        "an episode's row stands there twice: joining files was interrupted", "drops one"
    ),
    "episodes.self": _warning("a row names another file than the one it stands in", "writes the right one"),
    "episodes.task": _warning("an episode's tasks are not in the task table", "takes them from the rows"),
    "files.part": _warning("an unfinished file of an interrupted recording", "leaves it out"),
    "files.unused": _warning("a file that no episode points to", "leaves it out, or takes its episodes in"),
    "files.images": _warning("pictures of an interrupted recording", "leaves them out"),
    "files.unjoined": _note("a recording that is not finalized: every episode has files of its own"),
    "data.missing": _error("a data file is missing", _DROP),
    "data.unreadable": _error(
        "a data file is damaged", "rebuilds a lost footer, else leaves its episodes out"
    ),
    "data.column": _error("a data file lacks a declared column", _DROP),
    "data.extra": _warning("a data file has a column that is not declared", "leaves the column out"),
    "data.type": _error("a column has another type or shape than declared", _DROP),
    "data.width": _warning("a column holds another number type than declared", "casts it"),
    "data.null": _error("values are missing in a column", _DROP),
    "data.rows": _error("a data file has too few rows for its episodes", _DROP),
    "data.unclaimed": _warning("rows that no episode claims", "leaves them out, or makes episodes of them"),
    "data.order": _error("rows are not in the order of their index", "sorts them"),
    "data.index": _error("the column index lies", _NUMBER),
    "data.episode_index": _error("the column episode_index lies", _NUMBER),
    "data.frame_index": _error("the column frame_index lies", _NUMBER),
    "data.timestamp": _error("timestamps are not frame_index / fps", "computes them again"),
    "data.task_index": _error("a task number is not in the task table", "takes the episode's only task"),
    "data.nan": _error("numbers are NaN or infinite", _DROP),
    "data.groups": _note("row groups do not end where episodes end: single episodes load slower"),
    "data.metadata": _warning("the schema's metadata contradict meta/info.json", "writes them again"),
    "data.constant": _warning("a number never changes: policies divide by its spread"),
    "image.missing": _error("a row has no picture", _DROP),
    "image.unreadable": _error("a picture cannot be decoded", _DROP),
    "image.size": _error("a picture has another size than declared", _DROP),
    "video.missing": _error("a video file is missing", _DROP),
    "video.unreadable": _error("a video file cannot be opened", _DROP),
    "video.frames": _error("a video ends before its episodes do", _DROP),
    "video.unclaimed": _note("frames that no episode claims"),
    "video.times": _error("frames are not shown at number / fps", _DROP),
    "video.key": _warning("an episode does not begin with a key frame: it cannot be cut out losslessly"),
    "video.range": _error(
        "from_timestamp and to_timestamp do not fit the episode", "counts the frames again"
    ),
    "video.overlap": _error("two episodes claim the same frames of a video", "counts the frames again"),
    "video.format": _error("a video has another size than declared", _DROP),
    "video.info": _warning("codec or pixel format are not those of meta/info.json", "writes the right ones"),
    "video.decode": _error("frames cannot be decoded", _DROP),
    "sync.drift": _warning("cameras drift apart within an episode"),
    "sync.cadence": _warning("frames were not captured at the declared fps"),
    "sync.repeated": _warning("pictures repeat the one before: a camera or encoder did not keep up"),
    "stats.missing": _error("there is no meta/stats.json", "computes it"),
    "stats.unreadable": _error("meta/stats.json is not JSON", "computes it"),
    "stats.feature": _error("a feature has no statistics", "computes them"),
    "stats.shape": _error("statistics have another shape than the feature", "computes them"),
    "stats.nan": _error("statistics are NaN or infinite", "computes them"),
    "stats.order": _error("not min <= quantiles <= max", "computes them"),
    "stats.behind": _warning(
        "statistics lack the last episode: recording stopped between two writes", "adds it"
    ),
    "stats.count": _warning("count is not the number of frames", "computes it"),
    "stats.values": _error("statistics disagree with the data", "computes them"),
    "stats.std": _warning(
        "std disagrees with the data; some releases computed it too coarsely", "computes it"
    ),
    "stats.numbering": _warning("statistics of index columns are older than the numbering", "computes them"),
    "stats.image_std": _warning(
        "std of pictures is almost 0, as releases 0.4.0 to 0.5.1 stored it", "computes it"
    ),
    "stats.episode": _warning("an episode's own statistics disagree with its rows", "computes them"),
}
