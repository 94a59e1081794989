"""A dataset in an older format made into v3.0, as a job of `lerobot-edit-dataset`."""

from pathlib import Path

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.change import Tell
from lerobot.datasets.edit.describe import readable
from lerobot.datasets.edit.request import Request
from lerobot.datasets.edit.target import Target

MEDIA = (".parquet", ".mp4")


class Conversion:
    """The job of `convert`: in place, where the original is kept, or into a new folder."""

    total = 1  # how many frames there are is known when they have been read

    def __init__(self, request: Request, *, data_mb: float, video_mb: float) -> None:
        self.name, self.data_mb, self.video_mb = request.name, data_mb, video_mb
        home = hub.lerobot_home() / self.name
        self.root = request.root if request.root is None else request.root.expanduser()
        self.folder = self.root or home
        self.out: Path | None = None
        if request.new_root is not None or request.new_repo_id is not None:
            self.out = request.new_target(request.new_repo_id or self.name).root
        self.new_name = request.new_repo_id or self.name
        if self.out is not None:
            Target(repo_id=self.new_name, root=self.out).check()

    def lines(self) -> list[str]:
        """What will be done."""
        if not self.folder.is_dir():
            raise DatasetError(f"{self.folder} does not exist; a dry run downloads nothing.")
        found = [path for path in self.folder.rglob("*") if path.suffix in MEDIA]
        size = sum(path.stat().st_size for path in found)
        where = Target(repo_id=self.name, root=self.folder.resolve(), replaces=True).backup()
        kept = [] if self.out else [f"keeps what is there now as {where}"]
        return [
            f"makes {self.new_name!r} in {self.out or self.folder}, in format v3.0",
            *kept,
            f"reads {len(found)} files of {self.folder}, {readable(size)}",
            f"writes about as much, in files up to {self.data_mb} MiB (data) and {self.video_mb} MiB (video)",
            "encodes no stored video again",
        ]

    def run(self, tell: Tell) -> LeRobotDataset:
        """Convert."""
        from lerobot.datasets.edit.convert import convert_format

        made = convert_format(
            self.name,
            self.root,
            output_dir=self.out,
            data_file_size_in_mb=self.data_mb,
            video_file_size_in_mb=self.video_mb,
        )
        tell(1, 1)
        return LeRobotDataset(self.new_name, root=made.root)
