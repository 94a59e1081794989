"""The simulated SO-101 as a Gymnasium environment: features as declared, episodes as seeded."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lerobot.core.config import decode, encode
from lerobot.core.errors import ConfigError, UserError
from lerobot.core.types import FeatureType, PolicyFeature, policy_features
from lerobot.envs.base import EnvConfig
from lerobot.envs.so101 import HOLD_STEPS, SO101EnvConfig
from lerobot.sim import gl
from lerobot.sim.geometry import POSITION_UPPER, from_radians
from lerobot.sim.tabletop import HOME

needs_renderer = pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")
HOME_POSITIONS = from_radians(HOME)


@pytest.fixture
def env():
    made = SO101EnvConfig(obs_type="state").build()
    yield made
    made.close()


@pytest.fixture
def seeing_env():
    made = SO101EnvConfig(observation_height=24, observation_width=32).build()
    yield made
    made.close()


def test_the_config_is_found_by_name_and_survives_a_file():
    cfg = SO101EnvConfig(difficulty="hard", cameras=["wrist"])
    assert EnvConfig.get_choice_class("so101") is SO101EnvConfig and cfg.type == "so101"
    assert decode(EnvConfig, encode(cfg)) == cfg


def test_features_are_those_of_the_real_arm():
    cfg = SO101EnvConfig(observation_height=48, observation_width=64)
    assert cfg.features == {
        "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
        "action": PolicyFeature(FeatureType.ACTION, (6,)),
        "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
        "observation.images.wrist": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
    }
    assert cfg.dataset_features()["observation.images.front"] == {
        "dtype": "video",
        "shape": [48, 64, 3],
        "names": ["height", "width", "channels"],
    }
    state = SO101EnvConfig(obs_type="state")
    assert state.features["observation.environment_state"] == PolicyFeature(FeatureType.ENV, (10,))
    for each in (cfg, state):
        assert policy_features(each.dataset_features()) == each.features


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cameras": ["wirst"]}, "Did you mean 'wrist'"),
        ({"cameras": ["front", "front"]}, "different ones"),
        ({"cameras": []}, "obs_type=state"),
        ({"fps": 0}, "env.fps=0"),
        ({"task": "fold_shirt"}, "pick_place"),
        ({"observation_width": 0}, "observation_width=0"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SO101EnvConfig(**wrong)


@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # advice on normalised actions; ours are degrees on purpose
def test_gymnasium_finds_no_fault(env):
    check_env(env, skip_render_check=not gl.has_renderer())


@needs_renderer
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_finds_no_fault_with_pictures(seeing_env):
    check_env(seeing_env)


@needs_renderer
def test_observations_are_what_is_declared(seeing_env):
    observation, info = seeing_env.reset(seed=0)
    assert info == {"is_success": False, "is_clipped": False}
    assert list(observation["pixels"]) == ["front", "wrist"]
    for image in observation["pixels"].values():
        assert image.shape == (24, 32, 3) and image.dtype == np.uint8 and image.std() > 10
    assert observation["agent_pos"].dtype == np.float32
    np.testing.assert_allclose(observation["agent_pos"], HOME_POSITIONS, atol=1e-3)
    assert seeing_env.render().shape == (480, 640, 3)
    assert seeing_env.metadata["render_fps"] == 30 and "cube" in seeing_env.task_description


def test_actions_are_targets_in_degrees(env):
    env.reset(seed=0)
    target = HOME_POSITIONS + np.array([20, -10, 5, -8, 15, 30])
    for _ in range(60):
        observation, _, _, _, info = env.step(target.astype(np.float32))
    np.testing.assert_allclose(observation["agent_pos"], target, atol=0.6)
    assert not info["is_clipped"]


def test_an_action_beyond_a_limit_is_held_there_and_reported(env):
    env.reset(seed=0)
    *_, info = env.step(POSITION_UPPER + 5)
    assert info["is_clipped"]
    np.testing.assert_allclose(from_radians(env.physics.targets), POSITION_UPPER)


@pytest.mark.parametrize("wrong", [np.zeros(5), np.zeros((1, 6)), np.full(6, np.nan), np.full(6, np.inf)])
def test_actions_that_make_no_sense_are_errors(env, wrong):
    env.reset(seed=0)
    with pytest.raises(UserError, match="finite action of 6 numbers .shoulder_pan"):
        env.step(wrong)


def test_a_seed_fixes_the_episode_and_the_ones_after_it(env):
    other = SO101EnvConfig(obs_type="state").build()
    for seed in (7, None, None):
        first, second = env.reset(seed=seed)[0], other.reset(seed=seed)[0]
        np.testing.assert_array_equal(first["environment_state"], second["environment_state"])
        assert env.episode_seed == other.episode_seed
    assert env.reset(seed=8)[0]["environment_state"][0] != env.reset(seed=7)[0]["environment_state"][0]


def test_an_episode_ends_with_success_or_with_time():
    env = SO101EnvConfig(obs_type="state", episode_length=100).build()
    env.reset(seed=1)
    expert, rewards = env.make_expert(), []
    while True:
        _, reward, is_done, is_over_time, info = env.step(expert.step().executed)
        rewards.append(reward)
        if is_done or is_over_time:
            break
    assert is_done and not is_over_time and info["is_success"]
    assert sum(rewards) == rewards[-1] == 1.0 and len(rewards) > HOLD_STEPS
    env.reset(seed=1)
    ends = [env.step(HOME_POSITIONS)[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


@pytest.mark.parametrize("fps", [10, 30, 50])
def test_a_control_step_takes_one_period(fps):
    env = SO101EnvConfig(obs_type="state", fps=fps).build()
    env.reset(seed=0)
    for _ in range(fps):
        env.step(HOME_POSITIONS)
    assert env.physics.time_s == pytest.approx(1.0)
    assert env.metadata["render_fps"] == fps


@needs_renderer
@pytest.mark.slow
def test_parallel_environments_see_what_one_sees(seeing_env):
    cfg = seeing_env.cfg
    expected = seeing_env.reset(seed=4)[0]  # a context is open in this process while the others are made
    several = gymnasium.vector.AsyncVectorEnv([cfg.build, cfg.build], context="spawn")
    try:
        observations, _ = several.reset(seed=[4, 5])
        np.testing.assert_array_equal(observations["pixels"]["front"][0], expected["pixels"]["front"])
        assert (observations["pixels"]["front"][0] != observations["pixels"]["front"][1]).any()
    finally:
        several.close()


@pytest.mark.slow
def test_reading_the_config_loads_neither_simulator_nor_torch():
    script = (
        "import sys\n"
        "from lerobot.envs.base import EnvConfig\n"
        "assert 'gymnasium' not in sys.modules\n"
        "cfg = EnvConfig.get_choice_class('so101')()\n"
        "cfg.features\n"
        "print([name for name in ('mujoco', 'torch', 'pygame', 'av') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]" and done.stderr == ""
