"""Everything the statistics of one feature are made of, in a form in which parts add up to the whole.

    rows (N, D) | levels of pictures (C, 256)  ->  Summary  --merged-->  Summary  -->  {stat: array}

Moments follow Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances" (1979): deviations are taken from each part's own mean, in float64, so a small spread around a
large mean survives. Quantiles come from one `Sketch` per dimension, whose docstring states their error.
Shapes: N rows, D dimensions, C channels, P pictures.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.histogram import QUANTILES, quantile_name
from lerobot.datasets.sketch import Sketch


@dataclass(kw_only=True, eq=False)
class Summary:
    """Moments and sketches of the numbers of one feature, per dimension (D)."""

    rows: int  # frames: rows of a column, or pictures
    weight: int  # numbers per dimension: more than rows for pictures and for features of several axes
    mean: np.ndarray  # (D,)
    squares: np.ndarray  # (D,) sums of squared deviations from the mean
    min: np.ndarray  # (D,)
    max: np.ndarray  # (D,)
    sketches: list[Sketch]  # D of them

    @classmethod
    def of_rows(cls, array: np.ndarray) -> "Summary":
        """The summary of a column (T,) or (T, ..., D): all axes but the last are taken together.

        Raises:
            DatasetError: there are no rows, or one holds NaN or infinity.
        """
        array = np.asarray(array)
        rows = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1).astype(np.float64)  # (N, D)
        if not len(rows):
            raise DatasetError("There are no rows to make statistics of.")
        if not np.isfinite(rows).all():
            frame = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]) * len(array) // len(rows)
            raise DatasetError(f"row {frame} holds NaN or infinity, of which there are no statistics")
        mean = rows.mean(axis=0)
        return cls(
            rows=len(array),
            weight=len(rows),
            mean=mean,
            squares=((rows - mean) ** 2).sum(axis=0),
            min=rows.min(axis=0),
            max=rows.max(axis=0),
            sketches=[Sketch.of(column) for column in np.ascontiguousarray(rows.T)],
        )

    @classmethod
    def of_levels(cls, counts: np.ndarray, *, num_pictures: int) -> "Summary":
        """The summary of byte pictures of which `counts` (C, 256) says how often each level occurs."""
        counts = counts.astype(np.int64)
        levels, weight = np.arange(counts.shape[1], dtype=np.float64), int(counts[0].sum())
        mean = counts @ levels / weight  # (C,)
        seen = counts > 0
        return cls(
            rows=num_pictures,
            weight=weight,
            mean=mean,
            squares=(counts * (levels - mean[:, None]) ** 2).sum(axis=1),
            min=levels[seen.argmax(axis=1)],
            max=levels[counts.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)],
            sketches=[Sketch.of(levels, one) for one in counts],
        )

    @classmethod
    def merged(cls, parts: Sequence["Summary"]) -> "Summary":
        """The summary of all parts together; at least one."""
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        total = weights.sum()
        means = np.stack([part.mean for part in parts])  # (parts, D)
        origin = means[0]  # near the data, so that the sum below is one of small numbers
        mean = origin + weights @ (means - origin) / total
        return cls(
            rows=sum(part.rows for part in parts),
            weight=sum(part.weight for part in parts),
            mean=mean,
            squares=np.sum([part.squares for part in parts], axis=0) + weights @ (means - mean) ** 2,
            min=np.min([part.min for part in parts], axis=0),
            max=np.max([part.max for part in parts], axis=0),
            sketches=[Sketch.merged([part.sketches[d] for part in parts]) for d in range(len(parts[0].mean))],
        )

    def stats(self) -> dict[str, np.ndarray]:
        """min, max, mean, std and the quantiles, each (D,), and count (1,): the number of rows."""
        found = {
            "min": self.min.copy(),
            "max": self.max.copy(),
            "mean": self.mean.copy(),
            "std": np.sqrt(self.squares / self.weight),
            "count": np.array([self.rows]),
        }
        for share in QUANTILES:
            values = np.array([sketch.quantile(share) for sketch in self.sketches])
            found[quantile_name(share)] = np.clip(values, self.min, self.max)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` turns back into the same summary, bit for bit."""
        return {
            "rows": self.rows,
            "weight": self.weight,
            **{name: getattr(self, name).tolist() for name in MOMENTS},
            "shift": [sketch.shift for sketch in self.sketches],
            "bins": _packed(np.concatenate([np.diff(one.bins, prepend=0) for one in self.sketches])),
            "counts": _packed(np.concatenate([one.counts for one in self.sketches])),
            "sizes": [len(one.bins) for one in self.sketches],
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Summary":
        """The reverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: `plain` is not what `to_json` gives.
        """
        ends = np.cumsum(plain["sizes"])[:-1]
        bins, counts = (np.split(_unpacked(plain[name]), ends) for name in ("bins", "counts"))
        made = cls(
            rows=int(plain["rows"]),
            weight=int(plain["weight"]),
            **{name: np.array(plain[name], dtype=np.float64) for name in MOMENTS},
            sketches=[
                Sketch(np.cumsum(steps), numbers, int(shift))
                for steps, numbers, shift in zip(bins, counts, plain["shift"], strict=True)
            ],
        )
        totals, sizes = [one.total for one in made.sketches], [len(one.bins) for one in made.sketches]
        if totals != [made.weight] * len(made.mean) or sizes != plain["sizes"]:
            raise ValueError("the counts of a sketch do not add up")
        return made


MOMENTS = ("mean", "squares", "min", "max")


def _packed(numbers: np.ndarray) -> str:
    """int64 numbers as text: bytes of equal significance side by side, which compress well."""
    planes = numbers.astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes()
    return base64.b64encode(zlib.compress(planes, 6)).decode("ascii")


def _unpacked(text: str) -> np.ndarray:
    try:
        planes = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
    except zlib.error as error:
        raise ValueError(f"not compressed numbers: {error}") from error
    return np.ascontiguousarray(planes.reshape(8, -1).T).reshape(-1).view("<i8").astype(np.int64)
