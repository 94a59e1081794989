"""ALOHA: the config everywhere; the episode compared with the package's own where that is installed."""

import sys

import numpy as np
import pytest

from lerobot.core.errors import ConfigError, MissingExtraError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs.aloha import TASKS, AlohaEnvConfig
from lerobot.sim import gl

PACKAGE_NAMES = {"AlohaInsertion-v0": "insertion", "AlohaTransferCube-v0": "transfer_cube"}
needs_renderer = pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")


@pytest.fixture
def package():
    gl.choose_backend()
    return pytest.importorskip("gym_aloha.env", reason="pip install 'lerobot[aloha]'")


def test_defaults_are_the_published_ones():
    cfg = AlohaEnvConfig()
    assert (cfg.task, cfg.fps, cfg.episode_length) == ("AlohaInsertion-v0", 50, 400)
    assert cfg.features == {
        "action": PolicyFeature(FeatureType.ACTION, (14,)),
        "observation.state": PolicyFeature(FeatureType.STATE, (14,)),
        "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
    }
    assert not cfg.fast_rendering


@pytest.mark.parametrize(("task", "size"), [("AlohaInsertion-v0", 14), ("AlohaTransferCube-v0", 7)])
def test_the_poses_of_things_can_be_observed(task, size):
    features = AlohaEnvConfig(task=task, obs_type="state").features
    assert features["observation.environment_state"] == PolicyFeature(FeatureType.ENV, (size,))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "AlohaTransferCup-v0"}, "Did you mean 'AlohaTransferCube-v0'"),
        ({"fps": 30}, "always runs at 50"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        AlohaEnvConfig(**wrong)


def test_a_missing_package_names_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "gym_aloha"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gym_aloha", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[aloha\]'"):
        AlohaEnvConfig().build()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_an_episode_is_the_packages_own(package, task):
    """Same seed, same actions: same joints, things and rewards."""
    inner = package.AlohaEnv(PACKAGE_NAMES[task], obs_type="pixels_agent_pos")
    inner._env.task.get_observation = lambda physics: {"qpos": inner._env.task.get_qpos(physics)}
    inner._format_raw_obs = lambda seen: seen["qpos"]
    env = AlohaEnvConfig(task=task, obs_type="state").build()
    ours, theirs = env.reset(seed=3)[0], inner.reset(seed=3)[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_allclose(ours["agent_pos"], theirs, atol=1e-6)
        np.testing.assert_allclose(ours["environment_state"], inner._env.physics.data.qpos[16:], atol=1e-6)
        action = theirs + rng.normal(size=14) * 0.1
        ours, reward, *_ = env.step(action)
        theirs, expected, *_ = inner.step(action)
        assert reward == expected


@needs_renderer
@pytest.mark.slow
def test_a_picture_is_the_packages_own(package):
    inner = package.AlohaEnv("transfer_cube", obs_type="pixels_agent_pos")
    expected = inner.reset(seed=3)[0]["pixels"]["top"]
    env = AlohaEnvConfig(task="AlohaTransferCube-v0").build()
    np.testing.assert_array_equal(env.reset(seed=3)[0]["pixels"]["top"], expected)
    fast = AlohaEnvConfig(task="AlohaTransferCube-v0", fast_rendering=True).build()
    difference = np.abs(fast.reset(seed=3)[0]["pixels"]["top"].astype(int) - expected)
    assert 0.5 < difference.mean() < 10  # shadows are gone, the scene is the same
    for made in (env, fast):
        made.close()


def test_a_cube_held_by_the_left_hand_alone_is_success(package):
    env = AlohaEnvConfig(task="AlohaTransferCube-v0", obs_type="state").build()
    env.reset(seed=0)
    finger = env.physics.named.data.geom_xpos["vx300s_left/10_left_gripper_finger"].copy()
    env.physics.data.qpos[16:19] = finger
    _, reward, is_done, is_over_time, info = env.step(env._judge.get_qpos(env.physics))
    assert (reward, is_done, is_over_time, info["is_success"]) == (4.0, True, False, True)


def test_a_target_beyond_a_joint_is_told(package):
    env = AlohaEnvConfig(obs_type="state").build()
    home = env.reset(seed=0)[0]["agent_pos"]
    assert not env.step(home)[-1]["is_clipped"]
    assert env.step(home + np.eye(14)[1] * 4)[-1]["is_clipped"]
