"""Meta-World: names of tasks everywhere; the episode against the package's own where it is installed."""

import logging
import sys

import numpy as np
import pytest

from lerobot.core.errors import ConfigError, MissingExtraError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs import metaworld
from lerobot.envs.base import Task
from lerobot.envs.metaworld import DESCRIPTIONS, GROUP_OF, SETS, MetaworldEnvConfig
from lerobot.sim import gl

needs_renderer = pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")


@pytest.fixture
def package():
    gl.choose_backend()
    return pytest.importorskip("metaworld.env_dict", reason="pip install 'lerobot[metaworld]'")


def names(task: str) -> list[str | None]:
    return [each.name for each in MetaworldEnvConfig(task=task).tasks]


# ------------------------------------------------------------------------------------------------- the config
def test_defaults_are_the_published_ones():
    cfg = MetaworldEnvConfig()
    assert (cfg.task, cfg.fps, cfg.episode_length) == ("metaworld-push-v2", 80, 400)
    assert cfg.features == {
        "action": PolicyFeature(FeatureType.ACTION, (4,)),
        "observation.state": PolicyFeature(FeatureType.STATE, (4,)),
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 480, 480)),
    }
    state = MetaworldEnvConfig(obs_type="state").features["observation.environment_state"]
    assert state == PolicyFeature(FeatureType.ENV, (39,))


@pytest.mark.parametrize("spelling", ["push", "push-v2", "push-v3", "metaworld-push-v2", "metaworld-push"])
def test_spellings_of_one_task(spelling):
    assert MetaworldEnvConfig(task=spelling).tasks == [Task("hard", 4, "push-v3")]


def test_lists_and_sets_of_tasks():
    assert names("reach, push-v3,reach") == ["reach-v3", "push-v3"]
    assert [len(names(group)) for group in DESCRIPTIONS] == [28, 11, 6, 5]
    assert len(set(names("all"))) == 50 and names("mt50") == names("all")
    assert len(names("mt10,ml10-train")) == 12
    tasks = MetaworldEnvConfig(task="all").tasks
    assert [task.group for task in tasks] == [GROUP_OF[str(task.name)[:-3]] for task in tasks]


def test_an_older_version_is_said_once(caplog):
    metaworld._say_newer.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            names("metaworld-push-v2,reach-v3")
    assert [record.getMessage() for record in caplog.records] == [
        "--env.task=metaworld-push-v2 is read as push-v3: the package no longer has the older version."
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "pusch"}, "Did you mean 'push'"),
        ({"task": "push-v4"}, "no such task"),
        ({"task": None}, "no such task"),
        ({"fps": 30}, "always runs at 80"),
        ({"episode_length": 501}, "allows 500"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        MetaworldEnvConfig(**wrong)


def test_several_tasks_at_once_are_refused():
    with pytest.raises(
        ConfigError, match="names 6 tasks, and one is expected here: for example --env.task=asse"
    ):
        MetaworldEnvConfig(task="hard").build()


def test_a_missing_package_names_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "metaworld"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[metaworld\]'"):
        MetaworldEnvConfig().build()


def test_every_task_has_its_own_sentence():
    sentences = [text for group in DESCRIPTIONS.values() for text in group.values()]
    assert len(set(sentences)) == len(sentences) == 50
    assert all(text[0].isupper() and text.endswith(".") for text in sentences)


# ---------------------------------------------------------------------------------------- with the package
def test_tasks_and_sets_are_the_packages(package):
    assert {f"{name}-v3" for name in GROUP_OF} == set(package.ALL_V3_ENVIRONMENTS)
    assert [f"{name}-v3" for name in SETS["mt10"]] == list(package.MT10_V3)
    assert [f"{name}-v3" for name in SETS["ml10-train"]] == list(package.ML10_V3["train"])
    assert [f"{name}-v3" for name in SETS["ml10-test"]] == list(package.ML10_V3["test"])


@pytest.mark.slow
@pytest.mark.parametrize("task", list(GROUP_OF))
def test_a_seed_fixes_every_task_in_any_order(package, task):
    """Goal, objects and what follows; after other seeds, and in another environment."""
    cfg = MetaworldEnvConfig(task=task, obs_type="state")
    env, other = cfg.build(), cfg.build()
    first = trace(env, 5)
    different = trace(env, 9)
    np.testing.assert_array_equal(trace(env, 5), first)
    np.testing.assert_array_equal(trace(other, 5), first)
    assert (different[0] != first[0]).any()


def trace(env, seed: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    seen = [env.reset(seed=seed)[0]["environment_state"]]
    seen += [env.step(rng.uniform(-1, 1, 4))[0]["environment_state"] for _ in range(3)]
    return np.stack(seen)


def test_the_state_holds_hand_and_goal(package):
    env = MetaworldEnvConfig(task="push", obs_type="state").build()
    observation, _ = env.reset(seed=0)
    state = observation["environment_state"]
    np.testing.assert_array_equal(state[:4], observation["agent_pos"])
    np.testing.assert_array_equal(state[:18], state[18:36])
    np.testing.assert_allclose(state[36:], env.inner._target_pos, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Constant:UserWarning")  # the package's remark on its own expert
def test_an_expert_of_the_package_succeeds(package):
    from metaworld.policies import ENV_POLICY_MAP

    env = MetaworldEnvConfig(task="push", obs_type="state").build()
    state, expert = env.reset(seed=1)[0]["environment_state"], ENV_POLICY_MAP["push-v3"]()
    while True:
        action = np.clip(expert.get_action(state.astype(np.float64)), -1, 1)
        observation, reward, is_done, is_over_time, info = env.step(action)
        state = observation["environment_state"]
        if is_done or is_over_time:
            break
    assert is_done and info == {"is_success": True, "is_clipped": False} and reward > 1


@needs_renderer
@pytest.mark.slow
def test_a_picture_is_the_packages_own(package):
    """Its camera "corner2", where published data sets have it, turned by half a turn."""
    inner = package.ALL_V3_ENVIRONMENTS["push-v3"](render_mode="rgb_array", camera_name="corner2")
    inner.model.cam_pos[2] = [0.75, 0.075, 0.7]
    metaworld._unfreeze(inner)
    inner.seed(3)
    inner.reset()
    env = MetaworldEnvConfig(task="push").build()
    picture = env.reset(seed=3)[0]["pixels"]
    np.testing.assert_array_equal(picture, inner.render()[::-1, ::-1])
    np.testing.assert_array_equal(picture, env.render())
    for made in (env, inner):
        made.close()
