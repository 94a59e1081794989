"""PushT, really run: features, seeds, sizes, success flag, errors."""

import numpy as np
import pytest

from lerobot.core.config import decode, encode
from lerobot.core.errors import ConfigError, UserError
from lerobot.core.types import FeatureType, PolicyFeature, policy_features
from lerobot.envs.base import EnvConfig
from lerobot.envs.pusht import PushTEnvConfig

pytest.importorskip("gym_pusht")


@pytest.fixture
def env():
    made = PushTEnvConfig(observation_height=96, observation_width=64).build()
    yield made
    made.close()


def test_the_config_is_found_by_name_and_survives_a_file():
    cfg = PushTEnvConfig(obs_type="environment_state_agent_pos")
    assert EnvConfig.get_choice_class("pusht") is PushTEnvConfig
    assert decode(EnvConfig, encode(cfg)) == cfg


def test_defaults_are_the_published_ones():
    cfg = PushTEnvConfig()
    assert (cfg.task, cfg.fps, cfg.episode_length) == ("PushT-v0", 10, 300)
    assert cfg.features == {
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
        "action": PolicyFeature(FeatureType.ACTION, (2,)),
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 384, 384)),
    }
    assert policy_features(cfg.dataset_features()) == cfg.features


def test_observations_are_what_is_declared(env):
    observation, info = env.reset(seed=0)
    assert observation["pixels"].shape == (96, 64, 3) and observation["pixels"].dtype == np.uint8
    assert observation["agent_pos"].shape == (2,) and not info["is_success"]
    assert env.render().shape == (384, 384, 3)
    assert env.metadata["render_fps"] == env.unwrapped.metadata["render_fps"] == 10
    assert env.task_description


def test_the_block_can_be_observed_without_pictures():
    cfg = PushTEnvConfig(obs_type="environment_state_agent_pos")
    observation, _ = cfg.build().reset(seed=0)
    assert observation["environment_state"].shape == cfg.features["observation.environment_state"].shape


def test_a_seed_fixes_the_episode(env):
    runs = []
    for _ in range(2):
        env.reset(seed=11)
        runs.append([env.step(np.array([256.0, 100.0 + i]))[0]["agent_pos"] for i in range(10)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (env.reset(seed=12)[0]["agent_pos"] != runs[0][0]).any()


def test_an_action_moves_the_pusher_there(env):
    env.reset(seed=0, options={"reset_to_state": [100.0, 100.0, 400.0, 400.0, 0.0]})
    for _ in range(30):
        observation, reward, *_ = env.step(np.array([150.0, 120.0], dtype=np.float32))
    np.testing.assert_allclose(observation["agent_pos"], [150, 120], atol=1)
    assert 0 <= reward < 0.5


def test_a_block_on_its_target_is_success(env):
    env.reset(seed=0)
    inner = env.unwrapped
    inner.block.angle = inner.goal_pose[2]
    inner.block.position = inner.goal_pose[:2].tolist()
    _, reward, is_done, is_over_time, info = env.step(np.asarray(inner.agent.position))
    assert info["is_success"] and is_done and not is_over_time and reward == 1.0


def test_an_episode_is_cut_off():
    env = PushTEnvConfig(obs_type="environment_state_agent_pos", episode_length=5).build()
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.array([np.nan, 0.0])])
def test_actions_that_make_no_sense_are_errors(env, wrong):
    env.reset(seed=0)
    with pytest.raises(UserError, match="finite action"):
        env.step(wrong)


@pytest.mark.parametrize("wrong", [{"task": "PushT-v9"}, {"fps": 30}])
def test_wrong_configs_are_refused(wrong):
    with pytest.raises(ConfigError, match="--env"):
        PushTEnvConfig(**wrong)
