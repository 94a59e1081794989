"""Numbers of a run: summed on the device, read only when they are logged, kept in one file.

Meter (tensors) --every log_freq steps--> row of floats --> metrics.jsonl and the trackers
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

METRICS_FILE = "metrics.jsonl"
Row = dict[str, float | int | str]


class Meter:
    """Running means of named numbers; tensors stay tensors until `read`: nothing waits for the device.

    Args:
        only_finite: leave out values that are NaN or infinite, so that one skipped step does not hide all
            others of a row.
    """

    FOLD_AFTER = 64  # values of a name that are kept as they came; one sum then takes their place

    def __init__(self, *, only_finite: bool = False) -> None:
        self.only_finite = only_finite
        self.kept: dict[str, list[Tensor | float]] = {}
        self.folded: dict[str, Tensor] = {}  # name -> (2,) sum and count

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Count one value of each name; tensors must hold one number."""
        for name, value in values.items():
            kept = self.kept.setdefault(name, [])
            kept.append(value.detach().reshape(()) if isinstance(value, Tensor) else value)
            if len(kept) >= self.FOLD_AFTER:
                self.folded[name], self.kept[name] = self._total(name), []

    def read(self) -> dict[str, float]:
        """The means since the last call, NaN for a name without a value; the device is waited for."""
        totals = self.state_dict()
        self.kept, self.folded = {}, {}
        return {name: total / count if count else math.nan for name, (total, count) in totals.items()}

    def state_dict(self) -> dict[str, list[float]]:
        """Sum and count of each name since the last `read`, as plain numbers; the device is waited for."""
        return {name: self._total(name).tolist() for name in self.kept}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Go on with the sums and counts of a `state_dict`."""
        self.kept = {name: [] for name in state}
        self.folded = {name: torch.tensor(total, dtype=torch.float64) for name, total in state.items()}

    def _total(self, name: str) -> Tensor:
        """Sum and count (2,) of a name's values."""
        before, kept = self.folded.get(name), self.kept[name]
        if not kept:
            assert before is not None
            return before
        device = next((value.device for value in kept if isinstance(value, Tensor)), torch.device("cpu"))
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        if device.type == "cpu":
            column = torch.tensor([float(value) for value in kept], dtype=exact)  # (N,)
        else:
            column = torch.stack([torch.as_tensor(value, device=device) for value in kept]).to(exact)  # (N,)
        counts = column.isfinite() if self.only_finite else torch.ones_like(column, dtype=torch.bool)
        total = torch.stack([torch.where(counts, column, 0).sum(), counts.sum().to(exact)])  # (2,)
        return total if before is None else before.to(total) + total


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


def grouped(row: Row) -> dict[str, float | int]:
    """The numbers of a row by the names that dashboards group: `eval/...`, and `train/...` for all others."""
    return {
        name if name.startswith("eval/") else f"train/{name}": value
        for name, value in row.items()
        if isinstance(value, (int, float)) and name != "step"
    }
