"""Numbers of a run: summed on the device, read only when they are logged, kept in one file.

Meter (tensors) --every log_freq steps--> row of floats --> metrics.jsonl and the trackers
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

METRICS_FILE = "metrics.jsonl"
Row = dict[str, float | int | str]


class Meter:
    """Running means of named numbers; tensors stay tensors until `read`: nothing waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Count one value of each name; tensors must hold one number."""
        for name, value in values.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts since the last `read`, as plain numbers; the device is waited for."""
        return {
            "sums": {name: float(total) for name, total in self.sums.items()},
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums and counts of a `state_dict`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])

    def read(self) -> dict[str, float]:
        """The means since the last call; this is where the device is waited for."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class MetricsFile:
    """`metrics.jsonl`: one JSON object per row. A resumed run drops the rows after its first step."""

    def __init__(self, folder: Path, *, resume_step: int = 0) -> None:
        self.path = folder / METRICS_FILE
        kept = (
            [row for row in read_metrics(self.path) if int(row["step"]) <= resume_step] if resume_step else []
        )
        if resume_step and self.path.exists():
            aside = self.path.with_suffix(".tmp")
            aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            aside.replace(self.path)
        self.file = self.path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Append one row, on disk at once."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def numbers(info: Mapping[str, Any]) -> dict[str, Tensor | float]:
    """The entries of a policy's output that are one number each."""
    found: dict[str, Tensor | float] = {}
    for name, value in info.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            found[name] = value.detach().reshape(())
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)
    return found
