"""Look for everything that can be wrong with a dataset, and rebuild what can be rebuilt.

lerobot-doctor FOLDER
lerobot-doctor me/so101_easy --decode=sample
lerobot-doctor FOLDER --repair
lerobot-doctor FOLDER --json=true

Exit status: 0 sound, 1 damaged, 2 no such dataset or a wrong flag.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lerobot.core.command import command
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse

if TYPE_CHECKING:
    from lerobot.datasets.doctor import Report

WORDS = {"true": "all", "yes": "all", "false": "none", "no": "none"}  # --decode alone decodes everything


@dataclass(kw_only=True)
class DoctorConfig:
    """Look for everything that can be wrong with a dataset: lerobot-doctor FOLDER|REPO_ID [--name=value]"""

    root: Path | None = None  # the dataset's folder; also the first word without dashes
    repo_id: str | None = None  # user/name: a folder of the local home, else the Hub
    revision: str | None = None  # branch, tag or commit on the Hub
    episodes: list[int] | None = None  # only look into the files of these
    quick: bool = False  # tables, footers and containers only: no rows
    decode: str = "none"  # decode pictures: none, sample (some of every file) or all
    json: bool = False  # print one JSON object instead of lines
    repair: bool = False  # write a sound copy with every unharmed episode; the original stays as it is
    output_dir: Path | None = (
        None  # the copy's folder; null is the dataset's folder with _repaired at its end
    )
    log_level: str = "WARNING"  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        self.decode = WORDS.get(self.decode.lower(), self.decode)
        if (self.root is None) == (self.repo_id is None):
            raise ConfigError("Give one dataset: lerobot-doctor FOLDER, or --repo_id=user/name.")
        if self.output_dir is not None and not self.repair:
            raise ConfigError("--output_dir is where --repair writes; give --repair too.")


def doctor(args: DoctorConfig | Sequence[str] | None = None) -> "Report":
    """What is wrong with a dataset, as a config, a list of words, or (None) the command line says.

    Prints it. With `repair` the report is that of the repaired copy.
    """
    cfg = args if isinstance(args, DoctorConfig) else parse_words(sys.argv[1:] if args is None else args)
    from lerobot.datasets.doctor import examine, find_folder, repair  # numpy, pyarrow and av load here

    folder = find_folder(cfg.root, cfg.repo_id, revision=cfg.revision)
    tell = show if sys.stderr.isatty() else None
    report = examine(folder, episodes=cfg.episodes, quick=cfg.quick, decode=cfg.decode, on_progress=tell)
    if not cfg.json:
        print("\n".join(report.lines()))
    if not cfg.repair:
        if cfg.json:
            print(json.dumps(report.plain(), indent=2, ensure_ascii=False))
        return report
    done = repair(folder, cfg.output_dir, decode=cfg.decode, on_progress=tell)
    if cfg.json:
        plain = {**report.plain(), "repair": done.plain()}
        print(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        print("\n".join(done.lines()))
    return done.report


def show(what: str, done: int, total: int) -> None:
    """Progress of a long run, on one line of the terminal."""
    print(f"\r{what}: {done} of {total}" + "\n" * (done >= total), end="", file=sys.stderr, flush=True)


def parse_words(words: Sequence[str]) -> DoctorConfig:
    """The config of a command line whose first word may be a folder or a dataset's name."""
    words = list(words)
    if words and not words[0].startswith("-"):
        is_folder = Path(words[0]).expanduser().exists() or words[0].count("/") != 1 or words[0][0] in "./~"
        words[0] = f"--{'root' if is_folder else 'repo_id'}={words[0]}"
    return parse(DoctorConfig, words, program="lerobot-doctor")


@command
def main() -> None:
    """Entry point of `lerobot-doctor`."""
    if not doctor().is_sound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
