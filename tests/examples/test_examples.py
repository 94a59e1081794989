"""The example scripts, and every command and snippet of the README, run as a newcomer would, only shorter."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lerobot.sim.gl import has_renderer

ROOT = Path(__file__).parents[2]
needs_renderer = pytest.mark.skipif(not has_renderer(), reason="no OpenGL library to render with")
TINY = [
    "--policy.vision_backbone=resnet10",
    "--policy.dim_model=32",
    "--policy.n_heads=2",
    "--policy.chunk_size=10",
]
TINY += ["--policy.n_action_steps=10", "--policy.dim_feedforward=32", "--policy.n_encoder_layers=1"]
# Appended to the README's commands (the last of a repeated flag wins), so that each takes seconds.
SHORTER = {
    "lerobot-collect": ["--num_episodes=2", "--env.observation_height=48", "--env.observation_width=48"],
    "lerobot-doctor": [],
    "lerobot-edit-dataset": [],
    "lerobot-train": [
        *TINY,
        "--policy.device=cpu",
        "--steps=2",
        "--batch_size=2",
        "--num_workers=0",
        "--eval_freq=2",
        "--eval.n_episodes=1",
        "--env.episode_length=12",
        "--env.observation_height=48",
        "--env.observation_width=48",
    ],
    "lerobot-eval": [
        "--eval.n_episodes=1",
        "--env.episode_length=12",
        "--env.observation_height=48",
        "--env.observation_width=48",
    ],
}


def run(words, *, cwd=ROOT, **env):
    found = subprocess.run(words, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)


@needs_renderer
@pytest.mark.slow
def test_the_life_of_a_dataset(tmp_path):
    said = run([sys.executable, "examples/dataset_life.py", f"--output_dir={tmp_path / 'life'}", "--size=32"])
    saved = int(re.search(r"Killed after (\d+) saved episodes", said)[1])
    assert said.count("is sound (0 errors") == 3
    both = int(re.search(r"made local/both: (\d+) episodes", said)[1])
    assert saved + 5 <= both <= saved + 6  # the episode in flight may have been saved before it was counted
    assert (tmp_path / "life/train/checkpoints/last/pretrained_model/model.safetensors").is_file()


@needs_renderer
@pytest.mark.slow
def test_the_demo_and_the_film_of_its_policy(tmp_path):
    words = [sys.executable, "examples/demo.py", f"--output_dir={tmp_path}", "--seed=3"]
    said = run([*words, "--episodes=2", "--steps=2", "--evaluations=1"])
    assert "$ lerobot-collect" in said and "$ lerobot-train" in said and "$ lerobot-eval" in said
    folder = tmp_path / "seed_3"
    assert json.loads((folder / "eval/eval_info.json").read_text())["overall"]["n_episodes"] == 1
    film = tmp_path / "film.webp"
    run(
        [sys.executable, "examples/film_policy.py", str(folder / "train"), f"--output={film}", "--episodes=1"]
    )
    assert Image.open(film).n_frames > 10


@pytest.mark.slow
def test_the_demo_goes_on_without_a_renderer(tmp_path):
    words = [sys.executable, "examples/demo.py", f"--output_dir={tmp_path}"]
    said = run([*words, "--episodes=2", "--steps=2", "--evaluations=1"], MUJOCO_GL="disable")
    assert "without cameras" in said and "libegl1" in said
    assert "observation.environment_state" in (tmp_path / "seed_0/dataset/meta/info.json").read_text()


@needs_renderer
@pytest.mark.slow
def test_the_commands_and_the_snippet_of_the_readme(tmp_path):
    text = "".join(blocks("bash")).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("lerobot-")]
    assert [words[0] for words in commands] == list(SHORTER)
    for name, *flags in commands:
        module = name.replace("lerobot-", "lerobot.scripts.").replace("-", "_")
        run(
            [sys.executable, "-m", module, *flags, *SHORTER[name]],
            cwd=tmp_path,
            PYTHONPATH=str(ROOT),
            HF_LEROBOT_HOME=str(tmp_path / "home"),
        )
    (snippet,) = blocks("python")
    end = "\nassert action.shape == (6,), action.shape\n"
    run(
        [sys.executable, "-c", snippet + end],
        cwd=tmp_path,
        PYTHONPATH=str(ROOT),
        HF_LEROBOT_HOME=str(tmp_path / "home"),
    )


@pytest.mark.slow
def test_the_search_for_a_learning_rate_beats_the_published_one(tmp_path):
    words = [sys.executable, "examples/tune_act.py", f"--output_dir={tmp_path}", "--episodes=4", "--steps=60"]
    said = run([*words, "--trials=4"])
    assert "$ lerobot-collect" in said and "$ lerobot-train" in said and "$ lerobot-tune" in said
    before, after = re.search(r"after 60 steps: ([\d.]+) with .*,\n([\d.]+) with", said).groups()
    assert float(after) < 0.7 * float(before)
    assert (tmp_path / "search/report.html").is_file()


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"make (\w+)", (ROOT / "README.md").read_text()))
    there = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test", "lint", "bench"} <= targets <= set(there)
