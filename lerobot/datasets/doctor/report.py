"""What the doctor says about a whole dataset, as lines for people and as JSON for programs."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.datasets.doctor.finding import CODES, Finding, Severity

MAX_LINES = 12  # findings of one code that are printed one by one
ORDER = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(kw_only=True)
class Report:
    """All findings about one folder."""

    root: Path
    version: str = ""
    num_episodes: int = 0
    num_frames: int = 0
    checked: list[str] = field(default_factory=list)  # which checks ran
    skipped: list[str] = field(default_factory=list)  # which did not, and why
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged; warnings and notes do not count."""
        return not self.of(Severity.ERROR)

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [one for one in self.findings if one.severity is severity]

    @property
    def codes(self) -> set[str]:
        """The codes of everything that was found."""
        return {one.code for one in self.findings}

    def plain(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "root": str(self.root),
            "version": self.version,
            "is_sound": self.is_sound,
            "episodes": self.num_episodes,
            "frames": self.num_frames,
            "errors": len(self.of(Severity.ERROR)),
            "warnings": len(self.of(Severity.WARNING)),
            "checked": self.checked,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "findings": [
                {**dataclasses.asdict(one), "severity": str(one.severity), "episodes": list(one.episodes)}
                for one in self._sorted()
            ],
        }

    def lines(self) -> list[str]:
        """The report for people: a line per finding, then the verdict."""
        said, shown = [], Counter[str]()
        total = Counter(one.code for one in self.findings)
        for one in self._sorted():
            shown[one.code] += 1
            if shown[one.code] <= MAX_LINES:
                said.append(
                    f"{one.severity:<7} {one.code:<18} {one.file}: {one.found}; expected {one.expected}. "
                    f"Remedy: {one.remedy}."
                )
            elif shown[one.code] == total[one.code]:
                said.append(
                    f"{one.severity:<7} {one.code:<18} and {total[one.code] - MAX_LINES} more like it; "
                    "--json=true lists them all"
                )
        said += [f"not checked: {text}" for text in self.skipped]
        return [*said, self.verdict()]

    def verdict(self) -> str:
        """One sentence: sound or damaged, and what to type."""
        errors, warnings = len(self.of(Severity.ERROR)), len(self.of(Severity.WARNING))
        size = f"{self.num_episodes} episodes, {self.num_frames} frames, {self.seconds:.1f} s"
        counts = f"{_many(errors, 'error')}, {_many(warnings, 'warning')}"
        if self.is_sound:
            return f"{self.root} is sound ({counts}; {size})."
        can = any(CODES[one.code].repair for one in self.of(Severity.ERROR))
        todo = f"Type: lerobot-doctor {self.root} --repair" if can else "--repair cannot help here"
        return f"{self.root} is damaged ({counts}; {size}). {todo}"

    def _sorted(self) -> list[Finding]:
        return sorted(self.findings, key=lambda one: (ORDER[one.severity], list(CODES).index(one.code)))


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
