"""`lerobot-push`, its old spelling, and the conversion command, as somebody types them."""

import re
import shutil

import pytest

from lerobot.core.flags import flags_of
from lerobot.scripts import convert_dataset_v21_to_v30 as convert
from lerobot.scripts.push import PushConfig, main, push
from lerobot.scripts.push_dataset_to_hub import main as push_raw
from tests.fakes import dataset as made
from tests.fakes import layouts

LENGTHS = [3, 2]


@pytest.fixture
def folder(tmp_path):
    return made.make(tmp_path / "raw", LENGTHS).root


def fails(monkeypatch, capsys, command, *words: str) -> str:
    """What a command says to the user; it must exit with status 2 and no traceback."""
    monkeypatch.setattr("sys.argv", ["it", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        command()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and "Traceback" not in said
    return said


def test_every_flag_reaches_the_hub(hub, folder, capsys):
    words = [f"--root={folder}", "--branch=wip", "--tags=[so101,tutorial]", "--license=mit", "--private=true"]
    address = push(["--repo_id=me/made", *words, "--push_videos=false", "--tag_version=false"])
    assert capsys.readouterr().out == f"published  {address}\n"
    repo = hub.repos["dataset", "me/made"]
    assert not repo.files("main") and not repo.tags
    card = repo.files("wip")["README.md"].decode()
    assert "license: mit" in card and "- so101" in card and "- tutorial" in card
    assert not any(name.startswith("videos/") for name in repo.files("wip"))


def test_a_dry_run_lists_files_and_asks_nobody(hub, folder, capsys):
    assert push([f"--root={folder}", "--repo_id=me/made", "--dry_run"]) is None
    *lines, last = capsys.readouterr().out.splitlines()
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines}
    assert (
        sizes["data/chunk-000/file-000.parquet"]
        == (folder / "data/chunk-000/file-000.parquet").stat().st_size
    )
    assert last.split()[0] == f"{sum(sizes.values()):,}" and f"in {len(sizes)} files" in last
    assert not hub.requests


def test_a_config_can_be_spelled_as_flags():
    cfg = PushConfig(repo_id="me/made", tags=["a", "b"], private=False)
    assert "--repo_id=me/made" in flags_of(cfg)


def test_old_flags_mean_the_same(hub, folder, monkeypatch, capsys):
    words = ["--raw-dir", str(folder), "--repo-id", "me/made", "--raw-format", "lerobot"]
    monkeypatch.setattr("sys.argv", ["push_dataset_to_hub.py", *words])
    push_raw()
    assert "published" in capsys.readouterr().out
    assert "meta/info.json" in hub.repos["dataset", "me/made"].files("v3.0")


def test_mistakes_are_said(hub, folder, tmp_path, monkeypatch, capsys):
    said = fails(
        monkeypatch, capsys, push_raw, f"--raw-dir={folder}", "--repo-id=me/x", "--raw-format=aloha_hdf5"
    )
    assert "--raw-format=aloha_hdf5: expected 'lerobot'" in said and "add_frame()" in said
    said = fails(monkeypatch, capsys, main, "--repo_id=me/none")
    assert f"{tmp_path / 'hf/lerobot/me/none'} holds no dataset" in said and "--root=FOLDER" in said
    old = layouts.v21(made.make(tmp_path / "b", LENGTHS), tmp_path / "old")
    said = fails(monkeypatch, capsys, main, "--repo_id=me/old", f"--root={old}")
    assert re.search(r"layout v2.1.*\n  lerobot-edit-dataset --operation.type=convert", said)
    (folder / "data/chunk-000/file-000.parquet").unlink()
    said = fails(monkeypatch, capsys, main, "--repo_id=me/x", f"--root={folder}")
    assert "lacks 1 files of the dataset, such as data/chunk-000/file-000.parquet" in said
    assert not hub.requests


def test_the_conversion_command(hub, tmp_path, monkeypatch, capsys):
    old = layouts.v21(made.make(tmp_path / "made", LENGTHS), tmp_path / "old")
    convert.main(["--repo-id=me/old", f"--root={old}"])
    said = capsys.readouterr().out
    assert f"format v3.0: 2 episodes, 5 frames in {old}" in said
    assert f"lerobot-push --repo_id=me/old --root={old}" in said and not hub.requests
    convert.main(["--repo-id=me/old", f"--root={old}", "--push-to-hub"])  # converted already: only pushed
    assert "meta/info.json" in hub.repos["dataset", "me/old"].files("v3.0")
    assert not (tmp_path / "old_old_1").exists()
    shutil.rmtree(old)
    words = ["--repo-id=me/none", f"--root={old}"]
    assert "was not found" in fails(monkeypatch, capsys, convert.main, *words)
