"""meta/tasks.parquet: row i is task i, every task has a text, no text stands there twice."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import keys
from lerobot.datasets.doctor.finding import Finding, finding
from lerobot.datasets.doctor.folder import Folder

FILE = keys.TASKS_FILE


def read_tasks(folder: Folder) -> list[Finding]:
    """Fill `tasks` of the folder; what is wrong with them."""
    path = folder.root / FILE
    if not path.is_file():
        frames = (folder.info or {}).get("total_frames", 1)
        if not frames:  # nothing was recorded yet
            folder.tasks = []
            return []
        return [finding("tasks.missing", FILE, found="no such file", expected="a text for every task_index")]
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        size = path.stat().st_size
        return [finding("tasks.unreadable", FILE, found=f"{size} bytes, {error}", expected="a parquet file")]
    others = [name for name in table.column_names if name != keys.TASK_INDEX]
    text = keys.TASK if keys.TASK in others else next(iter(others), None)
    is_text = text is not None and pa.types.is_string(table.schema.field(text).type)
    is_text = is_text or (text is not None and pa.types.is_large_string(table.schema.field(text).type))
    if not is_text or keys.TASK_INDEX not in table.column_names:
        return [
            finding(
                "tasks.column",
                FILE,
                found=f"columns {', '.join(table.column_names) or 'none'}",
                expected="task_index and a column of texts",
            )
        ]
    return _check(folder, table[keys.TASK_INDEX].to_pylist(), table[text].to_pylist())


def _check(folder: Folder, numbers: list, texts: list) -> list[Finding]:
    found = []
    if numbers != list(range(len(numbers))):
        found.append(
            finding(
                "tasks.order",
                FILE,
                found=f"task_index {_brief(numbers)}",
                expected=f"0 to {len(numbers) - 1} in this order",
            )
        )
    if sorted(n for n in numbers if n is not None) == list(range(len(numbers))):
        folder.tasks = [str(text) for _, text in sorted(zip(numbers, texts, strict=True), key=lambda p: p[0])]
    empty = [
        n for n, text in zip(numbers, texts, strict=True) if not isinstance(text, str) or not text.strip()
    ]
    if empty:
        found.append(
            finding(
                "tasks.text", FILE, found=f"no text for task_index {_brief(empty)}", expected="a sentence"
            )
        )
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        found.append(
            finding("tasks.text", FILE, found=f"{twice[0]!r} stands there twice", expected="different texts")
        )
    return found


def _brief(numbers: list) -> str:
    return f"{', '.join(map(str, numbers[:8]))}{', ...' if len(numbers) > 8 else ''}"
