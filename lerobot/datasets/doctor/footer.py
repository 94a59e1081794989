"""A parquet file without its footer."""

from pathlib import Path


def mend_footer(path: Path, out: Path, *, features: dict[str, dict]) -> bool:
    return False
