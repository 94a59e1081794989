"""What every environment promises, whatever it simulates; one that is not installed here is skipped.

LIBERO, whose scenes are not in its package, is a stand-in here.
"""

import dataclasses
import typing

import numpy as np
import pytest

from lerobot.core import keys
from lerobot.core.config import decode, encode
from lerobot.core.errors import ConfigError, EnvironmentSetupError, MissingExtraError, UserError
from lerobot.core.types import FeatureType, policy_features
from lerobot.envs.base import EnvConfig, observation_space
from lerobot.sim import gl
from tests.fakes import libero as stand_in

SMALL = {"observation_height": 24, "observation_width": 32, "fast_rendering": True}
NAMES = EnvConfig.get_known_choices()


@pytest.fixture(autouse=True, scope="module")
def libero(tmp_path_factory):
    with stand_in.installed(tmp_path_factory.mktemp("suites") / "suites"):
        yield


def small(name: str, **more: object) -> EnvConfig:
    """The environment's config with its first task, and pictures that cost little."""
    kind = EnvConfig.get_choice_class(name)
    own = {field.name for field in dataclasses.fields(kind)}
    more = {key: value for key, value in more.items() if value is not None}
    cfg = kind(**{key: value for key, value in SMALL.items() if key in own}, **more)
    return cfg.with_task(cfg.tasks[0])


def views(name: str) -> list[str | None]:
    """Every value of its obs_type; None where there is one view of it."""
    hints = typing.get_type_hints(EnvConfig.get_choice_class(name))
    return list(typing.get_args(hints["obs_type"])) if "obs_type" in hints else [None]


def has_pictures(cfg: EnvConfig) -> bool:
    return any(feature.type is FeatureType.VISUAL for feature in cfg.features.values())


def build(cfg: EnvConfig):
    if has_pictures(cfg) and not gl.has_renderer():
        pytest.skip("nothing here can draw")
    try:
        return cfg.build()
    except (MissingExtraError, EnvironmentSetupError) as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=NAMES)
def env(request):
    """Each environment, seeing as little as it can."""
    plain = [view for view in views(request.param) if view and "state" in view]
    made = build(small(request.param, obs_type=(plain or views(request.param))[0], episode_length=4))
    yield made
    made.close()


CASES = [(name, view) for name in NAMES for view in views(name)]


@pytest.mark.parametrize(("name", "view"), CASES)
def test_the_config_survives_a_file_and_its_two_views_agree(name, view):
    cfg = small(name, obs_type=view)
    assert decode(EnvConfig, encode(cfg)) == cfg
    assert policy_features(cfg.dataset_features()) == cfg.features
    assert keys.ACTION in cfg.features


@pytest.mark.parametrize("name", NAMES)
def test_every_task_can_be_had_alone(name):
    cfg = EnvConfig.get_choice_class(name)()
    assert len(set(cfg.tasks)) == len(cfg.tasks) > 0
    assert [cfg.with_task(task).tasks for task in cfg.tasks] == [[task] for task in cfg.tasks]


@pytest.mark.parametrize("name", NAMES)
def test_zero_steps_are_refused(name):
    with pytest.raises(ConfigError, match="env.episode_length=0"):
        EnvConfig.get_choice_class(name)(episode_length=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "view"), CASES)
def test_observations_are_what_is_declared(name, view):
    cfg = small(name, obs_type=view)
    env = build(cfg)
    try:
        declared = observation_space(cfg.dataset_features())
        first, info = env.reset(seed=0)
        after, *_ = env.step(np.zeros(cfg.features[keys.ACTION].shape, dtype=np.float32))
        assert info["is_success"] is False
        for seen in (first, after):
            assert seen in env.observation_space
            assert shapes(seen) == {key: space.shape for key, space in flat(declared.spaces).items()}
            for key, picture in flat(seen).items():
                assert not key.startswith("pixels") or (picture.dtype == np.uint8 and picture.std() > 5)
    finally:
        env.close()


def flat(tree: dict, prefix: str = "") -> dict:
    """{"pixels": {"top": x}} as {"pixels.top": x}; spaces and arrays are leaves."""
    found = {}
    for key, value in tree.items():
        inner = getattr(value, "spaces", value)
        found |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: value}
    return found


def shapes(observation: dict) -> dict:
    return {key: value.shape for key, value in flat(observation).items()}


def trace(env, seed: int | None) -> np.ndarray:
    """Everything that is seen in one episode with actions of a fixed seed."""
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=seed)
    seen = [observation]
    for _ in range(3):
        action = rng.uniform(-0.3, 0.3, env.action_space.shape).astype(np.float32)
        seen.append(env.step(action)[0])
    return np.concatenate([np.ravel(value) for each in seen for value in flat(each).values()])


def test_a_seed_fixes_the_episode_in_any_order(env):
    first, other, again = trace(env, 3), trace(env, 4), trace(env, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_episodes_without_a_seed_follow_from_the_last_one(env):
    runs = []
    for _ in range(2):
        trace(env, 5)
        runs.append(trace(env, None))
    np.testing.assert_array_equal(*runs)
    assert (runs[0] != trace(env, 5)).any()


def test_an_episode_is_cut_off(env):
    env.reset(seed=0)
    zeros = np.zeros(env.action_space.shape, dtype=np.float32)
    assert [env.step(zeros)[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]


@pytest.mark.parametrize("wrong", ["short", "batched", "nan", "inf"])
def test_actions_that_make_no_sense_are_errors(env, wrong):
    env.reset(seed=0)
    zeros = np.zeros(env.action_space.shape, dtype=np.float32)
    action = {"short": zeros[1:], "batched": zeros[None], "nan": zeros * np.nan, "inf": zeros + np.inf}[wrong]
    with pytest.raises(UserError, match="finite action"):
        env.step(action)


@pytest.mark.slow
@pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")
def test_it_can_be_filmed(env):
    env.reset(seed=0)
    picture = env.render()
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.std() > 5
    assert env.metadata["render_fps"] > 0 and env.task_description


# ----------------------------------------------------------------------------------- what nobody looks at
@pytest.mark.parametrize(("name", "view"), [case for case in CASES if case[1] and "pixels" in case[1]])
def test_steps_that_nobody_looks_at_lack_their_pictures_and_are_the_same_steps(name, view):
    cfg = small(name, obs_type=view)
    env = build(cfg)
    always, late = looked_at(env, range(8)), looked_at(env, (4, 7))
    for step, ((reward, whole), (other_reward, part)) in enumerate(zip(always, late, strict=True)):
        assert reward == other_reward
        assert ("pixels" in part) == (step in (4, 7))
        for key in part:
            same(whole[key], part[key])
    observation, _ = env.reset(seed=3)
    assert "pixels" in observation
    env.close()


def looked_at(env, steps):
    """Rewards and observations of eight steps, of which only these are looked at."""
    env.set_wrapper_attr("is_watched", True)
    env.reset(seed=3)
    low, high = (np.clip(limit, -1e3, 1e3) for limit in (env.action_space.low, env.action_space.high))
    draws, found = np.random.default_rng(0), []
    for step in range(8):
        env.set_wrapper_attr("is_watched", step in steps)
        observation, reward, *_ = env.step((0.05 * draws.uniform(low, high)).astype(np.float32))
        found.append((reward, observation))
    env.set_wrapper_attr("is_watched", True)
    return found


def same(one, other):
    """Two observations, or parts of them, hold the same numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            same(value, other[key])
    else:
        np.testing.assert_array_equal(one, other)
