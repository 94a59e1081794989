"""The guides' commands, typed into a shell as they stand there, with flags appended that shorten them."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lerobot.envs.pusht import PushTEnvConfig
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from tests.guides.blocks import lines
from tests.guides.conftest import SHORT, SMALL, SMALL_DIFFUSION, Place, write_dataset

pytestmark = pytest.mark.slow


def only(name: str) -> str:
    """The one command of a block."""
    (line,) = lines(name)
    return line


def checkpoint(run, step="last"):
    return run / "checkpoints" / step / "pretrained_model"


def saved(run, step="last") -> dict:
    return json.loads((checkpoint(run, step) / "train_config.json").read_text())


@pytest.fixture(scope="module")
def act_so101(place):
    """The run of the basic guide's first command."""
    said = place.type(only("basics_train"), *SMALL)
    return place.folder / "outputs/train/act_so101", said


@pytest.fixture(scope="module")
def act_your_dataset(place):
    """The run of the training guide's first command."""
    said = place.type(only("act_train"), *SMALL)
    return place.folder / "outputs/train/act_your_dataset", said


def test_versions(place):
    first, second = (place.type(line) for line in lines("versions"))
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", first)
    assert second.splitlines() == [torch.__version__, str(torch.cuda.is_available())]


def test_check_setup(place):
    said = [place.type(line) for line in lines("check_setup")]
    assert said == [f"{torch.cuda.is_available()}\n", "Episodes: 2\n"]


def test_basic_training_logs_offline_to_wandb(act_so101):
    run, _ = act_so101
    assert checkpoint(run, "000002").is_dir()
    assert [row["step"] for row in read_metrics(run / METRICS_FILE)] == [1, 2]
    assert saved(run)["job_name"] == "act_so101_test" and saved(run)["wandb"]["enable"] is True
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


def test_resuming_by_the_saved_config(place, act_so101):
    run, _ = act_so101
    place.type(only("basics_resume"), "--steps=3")
    assert checkpoint(run).parent.resolve().name == "000003"
    assert [row["step"] for row in read_metrics(run / METRICS_FILE)] == [1, 2, 3]


def test_fine_tuning_with_type_and_pretrained_path(place, act_so101):
    said = place.type(only("basics_fine_tune"), *SHORT)
    tuned = saved(place.folder / "outputs/finetune/act_newtask")
    assert "--policy.lr is read as --policy.optimizer_lr" in said
    assert tuned["policy"]["optimizer_lr"] == tuned["optimizer"]["lr"] == 1e-5
    assert tuned["policy"]["dim_model"] == 16  # of the checkpoint, not ACT's default
    old, new = (
        load_file(checkpoint(run) / "model.safetensors")
        for run in (act_so101[0], place.folder / "outputs/finetune/act_newtask")
    )
    # Two steps of 1e-5 away from the weights it began with.
    assert all((old[name] - new[name]).abs().max() < 1e-2 for name in old)


def test_training_publishes_the_policy(act_your_dataset, guides_hub):
    run, said = act_your_dataset
    files = guides_hub.repos["model", "me/act_policy"].files()
    assert files["model.safetensors"] == (checkpoint(run) / "model.safetensors").read_bytes()
    assert {"config.json", "policy_preprocessor.json", "policy_postprocessor.json", "README.md"} <= set(files)
    assert f"published   {guides_hub.url}/me/act_policy/commit/" in said
    assert "HTTP Request" not in said  # what libraries tell each other


def test_publishing_a_dataset(place, guides_hub):
    shutil.copytree(place.home / "me/so101_test", place.folder / "data/raw/so101_test")
    said = place.type(only("basics_push"))
    files = guides_hub.repos["dataset", "me/so101_test"].files("v3.0")
    raw = place.folder / "data/raw/so101_test"
    names = {path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file()}
    assert set(files) == names | {"README.md"}
    assert all(files[name] == (raw / name).read_bytes() for name in names)
    assert f"published  {guides_hub.url}/datasets/me/so101_test/commit/" in said


def test_evaluating_the_published_policy(place, act_your_dataset):
    said = place.type(only("eval_hub"), "--num_episodes=1")
    info = json.loads((place.folder / "outputs/eval/act_evaluation/eval_info.json").read_text())
    assert "action error" in said and info["overall"]["action_mse"] > 0


def test_start_training_with_flags_and_evaluating_its_checkpoint(place):
    there = place.at("flags")
    there.type(lines("start_training")[1], *SMALL)
    run = there.folder / "outputs/train/act_experiment"
    assert saved(run)["job_name"] == "act_experiment"
    there.type(only("eval_checkpoint").replace("002000", "000002"))
    info = json.loads((there.folder / "outputs/eval/act_experiment/eval_info.json").read_text())
    assert info["overall"]["action_mse"] > 0


def test_several_gpus_are_asked_for_by_a_variable(place):
    place.type(only("several_gpus"), *SMALL)
    assert checkpoint(place.folder / "outputs/train/act_multi_gpu").is_dir()


def test_torchrun(place):
    line = only("basics_torchrun").replace("--nproc_per_node=4", "--nproc_per_node=2")
    place.type(line, *SMALL)
    run = place.folder / "outputs/train/act_multigpu"
    progress = json.loads((run / "checkpoints/last/training_state/training_step.json").read_text())
    assert progress["step"] == 2 and progress["num_processes"] == 2
    assert [row["step"] for row in read_metrics(run / METRICS_FILE)] == [1, 2]


def test_diffusion(place, guides_hub):
    place.type(only("diffusion_train"), *SMALL_DIFFUSION)
    run = place.folder / "outputs/train/diffusion_your_dataset"
    assert (run / "checkpoints/last/pretrained_model_ema/model.safetensors").is_file()
    assert "model.safetensors" in guides_hub.repos["model", "me/diffusion_policy"].files()


def test_tdmpc(place):
    write_dataset(
        place.home, "rewarded/your_dataset", camera="observation.images.top", size=64, has_rewards=True
    )
    reader = Place(place.folder, place.env | {"HF_USER": "rewarded"})
    reader.type(only("tdmpc_train"), *SHORT)
    assert checkpoint(place.folder / "outputs/train/tdmpc_your_dataset").is_dir()


def test_diffusion_on_pusht(place):
    features = PushTEnvConfig().dataset_features()
    write_dataset(place.home, "lerobot/pusht", camera="observation.image", size=96, joints=features["action"])
    place.type(only("diffusion_pusht"), *SMALL_DIFFUSION, "--policy.device=cpu")
    policy = json.loads(
        (checkpoint(place.folder / "outputs/train/diffusion_pusht") / "config.json").read_text()
    )
    assert policy["input_features"]["observation.image"]["shape"] == [3, 96, 96]


def test_the_evaluation_script_of_the_repository(place):
    features = PushTEnvConfig().dataset_features()
    write_dataset(place.home, "me/pusht", camera="observation.image", size=96, joints=features["action"])
    policy = ["--policy.type=act", "--policy.device=cpu", "--output_dir=outputs/train"]
    there = place.at("pusht")
    (there.folder / "lerobot").symlink_to(place.folder / "lerobot")
    there.type("lerobot-train --dataset.repo_id=me/pusht", *policy, *SMALL)
    there.type(
        only("basics_eval_script"),
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        "--env.episode_length=5",
        "--output_dir=outputs/eval",
    )
    info = json.loads((there.folder / "outputs/eval/eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2 and 0 <= info["overall"]["avg_max_reward"] <= 1
