"""LIBERO up to its scene, against a stand-in for the package: paths, suites, states, cameras, errors."""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lerobot.core.errors import ConfigError, EnvironmentSetupError, MissingExtraError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs import libero
from lerobot.envs.base import Task
from lerobot.envs.libero import SETTLING_STEPS, LiberoEnvConfig, axis_angle, settle_paths
from lerobot.envs.libero_plus import LiberoPlusEnvConfig
from lerobot.sim import gl
from tests.fakes import libero as stand_in

needs_renderer = pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")
SMALL = {"observation_height": 24, "observation_width": 32, "fast_rendering": True}


@pytest.fixture
def package(tmp_path):
    with stand_in.installed(tmp_path / "suites") as config:
        yield config


@pytest.fixture
def env(package):
    made = LiberoEnvConfig(task="libero_goal", task_ids=[3], **SMALL).build()
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------- the config
def test_defaults_are_the_published_ones():
    cfg = LiberoEnvConfig()
    assert (cfg.task, cfg.task_ids, cfg.fps, cfg.episode_length) == ("libero_10", None, 20, None)
    assert (cfg.control_mode, cfg.hard_reset, cfg.init_states) == ("relative", True, True)
    assert cfg.features == {
        "action": PolicyFeature(FeatureType.ACTION, (7,)),
        "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        "observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 360, 360)),
        "observation.images.image2": PolicyFeature(FeatureType.VISUAL, (3, 360, 360)),
    }
    assert LiberoPlusEnvConfig().task == "libero_spatial" and LiberoPlusEnvConfig().is_libero_plus


def test_suites_have_tasks_and_their_own_lengths():
    cfg = LiberoEnvConfig(task="libero_spatial, libero_90", task_ids=[0, 7])
    assert cfg.tasks == [
        Task(suite, number, None) for suite in ("libero_spatial", "libero_90") for number in (0, 7)
    ]
    assert len(LiberoEnvConfig(task="libero_90").tasks) == 90
    assert [cfg.with_task(task).episode_length for task in cfg.tasks] == [280, 280, 400, 400]
    assert LiberoEnvConfig(episode_length=50).with_task(Task("libero_10", 1, None)).episode_length == 50


def test_cameras_can_be_chosen_and_named():
    cfg = LiberoEnvConfig(camera_name="agentview_image,frontview_image")
    assert cfg.cameras == {"agentview_image": "image", "frontview_image": "frontview_image"}
    named = dataclasses.replace(cfg, camera_name_mapping={"frontview_image": "front"})
    assert "observation.images.front" in named.features


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "libero_spacial"}, "Did you mean 'libero_spatial'"),
        ({"task": None}, "the suites of libero are"),
        ({"fps": 30}, "always runs at 20"),
        ({"task_ids": []}, "different numbers"),
        ({"task_ids": [1, 1]}, "different numbers"),
        ({"camera_name": ""}, "different cameras"),
        ({"camera_name_mapping": {"agentview_image": "image2"}}, "different cameras"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        LiberoEnvConfig(**wrong)


def test_a_task_that_a_suite_lacks_is_refused():
    with pytest.raises(ConfigError, match="libero_10 has the tasks 0 to 9"):
        _ = LiberoEnvConfig(task_ids=[10]).tasks


def test_several_tasks_at_once_are_refused(package):
    with pytest.raises(ConfigError, match="has 10 tasks, and one is expected"):
        LiberoEnvConfig().build()


def test_libero_plus_counts_what_is_installed(package):
    assert len(LiberoPlusEnvConfig().tasks) == 10


# -------------------------------------------------------------------------------------------------- its paths
def test_a_config_that_is_there_is_left_alone(package):
    before = (package / "config.yaml").read_text()
    settle_paths()
    assert (package / "config.yaml").read_text() == before
    assert os.environ["LIBERO_CONFIG_PATH"] == str(package)


def test_without_a_config_ours_answers_the_questions(package, monkeypatch, tmp_path):
    monkeypatch.delenv("LIBERO_CONFIG_PATH")
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "user")
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("the package asked a question"))
    libero.load_suite("libero_10")
    folder = tmp_path / "home" / "cache" / "libero"
    assert os.environ["LIBERO_CONFIG_PATH"] == str(folder)
    paths = yaml.safe_load((folder / "config.yaml").read_text())
    assert paths["bddl_files"] == str(stand_in.PACKAGE / "libero" / "libero" / "bddl_files")
    assert not (tmp_path / "user").exists()


def test_a_folder_that_the_user_chose_gets_the_config(package, monkeypatch, tmp_path):
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "mine"))
    settle_paths()
    assert (tmp_path / "mine" / "config.yaml").is_file()


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "libero", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[libero\]'"):
        LiberoEnvConfig(task_ids=[0]).build()


# -------------------------------------------------------------------------------------------------- episodes
@needs_renderer
def test_observations_are_what_is_declared(env):
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space and info == {"is_success": False, "is_clipped": False}
    np.testing.assert_allclose(observation["agent_pos"][3:], [np.pi, 0, 0, 0.04, -0.04], rtol=1e-6)
    assert (env.task, env.task_description) == ("libero_goal_lift_3", "lift the box 3")
    assert env.render().shape == (24, 32, 3) and env.metadata["render_fps"] == 20


@needs_renderer
def test_an_episode_begins_in_a_recorded_state_and_settles(env):
    for index in (0, 2, 2 + stand_in.NUM_STATES):
        observation, _ = env.reset(seed=9, options={"episode_index": index})
        expected = np.linspace([3, 0, 0], [3, 0.1, 0.1], stand_in.NUM_STATES)[index % stand_in.NUM_STATES]
        np.testing.assert_allclose(observation["agent_pos"][:3], expected, rtol=1e-6)
    assert env.inner.env.waited == SETTLING_STEPS
    by_seed, _ = env.reset(seed=2)
    assert by_seed["agent_pos"][1] == pytest.approx(0.05)


@needs_renderer
def test_without_recorded_states_the_seed_places_things(package):
    env = LiberoEnvConfig(task_ids=[0], init_states=False, hard_reset=False, **SMALL).build()
    np.random.seed(7)
    untouched = np.random.get_state()[1].copy()
    places = [env.reset(seed=seed)[0]["agent_pos"][:3] for seed in (1, 2, 1, None, 1)]
    np.testing.assert_array_equal(places[0], places[2])
    np.testing.assert_array_equal(places[0], places[4])
    assert (places[0] != places[1]).any() and (places[2] != places[3]).any()
    np.testing.assert_array_equal(np.random.get_state()[1], untouched)
    env.close()


@needs_renderer
def test_pictures_are_mirrored_and_show_no_collision_shapes(env):
    env.reset(seed=0)
    picture = env.render()
    drawn = env._drawing.picture(env.inner.sim.data._data, "agentview", width=32, height=24, is_fast=True)
    np.testing.assert_array_equal(picture, drawn[:, ::-1])
    assert not (picture[..., 1] > picture[..., 0] + 60).any()  # the green ball is a collision shape


@needs_renderer
@pytest.mark.parametrize(("mode", "place"), [("relative", 0.05 * 0.5), ("absolute", 0.5)])
def test_actions_are_steps_or_places(package, mode, place):
    env = LiberoEnvConfig(task="libero_10", task_ids=[0], control_mode=mode, **SMALL).build()
    env.reset(seed=0, options={"episode_index": 0})
    observation, *_ = env.step(np.array([0.5, 0, 0, 0, 0, 0, -1]))
    assert observation["agent_pos"][0] == pytest.approx(place)
    env.reset(seed=0)  # settling is relative again
    assert env.inner.env.waited == SETTLING_STEPS
    env.close()


@needs_renderer
def test_success_ends_the_episode_and_large_steps_are_told(env):
    env.reset(seed=0, options={"episode_index": 0})
    up, ends = np.array([0, 0, 2.0, 0, 0, 0, -1]), []
    while not (ends and ends[-1][0]):
        _, reward, is_done, is_over_time, info = env.step(up)
        ends.append((is_done, is_over_time))
    assert info == {"is_success": True, "is_clipped": True} and reward == 1.0 and not is_over_time
    assert len(ends) == 11


# ----------------------------------------------------------------------------------------------------- errors
@needs_renderer
def test_scenes_that_are_not_here_are_one_line(tmp_path):
    message = "table.xml is missing.*hf download lerobot/libero-assets"
    with stand_in.installed(tmp_path / "suites", words="no-scene"):
        with pytest.raises(EnvironmentSetupError, match=message):
            LiberoEnvConfig(task_ids=[0], **SMALL).build()


@needs_renderer
def test_a_scene_without_room_does_not_try_for_ever(tmp_path):
    with stand_in.installed(tmp_path / "suites", words="no-room"):
        env = LiberoEnvConfig(task_ids=[0], **SMALL).build()
        with pytest.raises(EnvironmentSetupError, match="no room for all things"):
            env.reset(seed=0)


@pytest.mark.parametrize(
    ("quaternion", "turn"),
    [
        ([0, 0, 0, 1], [0, 0, 0]),
        ([0, 0, np.sqrt(0.5), np.sqrt(0.5)], [0, 0, np.pi / 2]),
        ([1, 0, 0, 0], [np.pi, 0, 0]),
        ([0, 0, 0, 1 + 1e-9], [0, 0, 0]),
    ],
)
def test_turns(quaternion, turn):
    np.testing.assert_allclose(axis_angle(np.array(quaternion)), turn, atol=1e-9)
