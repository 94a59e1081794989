"""Where a policy's files are: folder, checkpoint, run or Hub id -> the folder with config.json.

run folder -> checkpoints/last -> pretrained_model            user/name -> the Hub's copy in the cache
"""

from pathlib import Path

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.core.files import follow_pointer
from lerobot.core.hub import Repo

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*tokenizer*/*")


def locate(name: str | Path, *, revision: str | None = None) -> Path:
    """The folder that holds `config.json` for a path or Hub id.

    Accepts `.../pretrained_model`, a checkpoint folder (`.../checkpoints/002000`, `.../checkpoints/last`), a
    run's output folder (its last checkpoint), `.../last.pt` beside such a folder, or `user/name` on the Hub.

    Raises:
        CheckpointError: nothing is there; the message lists the places looked at.
    """
    path = Path(name).expanduser()
    if path.suffix == ".pt" and not path.exists():
        path = path.with_suffix("")
    path = follow_pointer(path)
    candidates = [
        path,
        path / keys.PRETRAINED_FOLDER,
        path / keys.LAST_LINK / keys.PRETRAINED_FOLDER,
        path / keys.CHECKPOINTS_FOLDER / keys.LAST_LINK / keys.PRETRAINED_FOLDER,
    ]
    for candidate in candidates:
        if (candidate / keys.CONFIG_FILE).is_file():
            return candidate
    last = _last_by_pointer(path) or _highest(path)
    if last is not None:
        return last
    if path.exists() or not is_hub_id(str(name)):
        places = "\n".join(f"  {candidate / keys.CONFIG_FILE}" for candidate in candidates)
        raise CheckpointError(f"There is no checkpoint at {name}. Looked for:\n{places}")
    return Repo(repo_id=str(name)).snapshot(revision=revision, patterns=PATTERNS)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form user/name (or name) that the Hub uses."""
    parts = name.split("/")
    return len(parts) <= 2 and all(part and not part.startswith((".", "~")) for part in parts)


def _last_by_pointer(path: Path) -> Path | None:
    """Where links are impossible `last` is a file that holds the step folder's name."""
    for folder in (path, path / keys.CHECKPOINTS_FOLDER):
        target = follow_pointer(folder / keys.LAST_LINK) / keys.PRETRAINED_FOLDER
        if (target / keys.CONFIG_FILE).is_file():
            return target
    return None


def _highest(path: Path) -> Path | None:
    """The checkpoint of the highest step: a run that died after its first one was named has no `last` yet."""
    for folder in (path, path / keys.CHECKPOINTS_FOLDER):
        steps = [one for one in folder.glob("*") if one.name.isdecimal()]
        steps = [one for one in steps if (one / keys.PRETRAINED_FOLDER / keys.CONFIG_FILE).is_file()]
        if steps:
            return max(steps, key=lambda one: int(one.name)) / keys.PRETRAINED_FOLDER
    return None
