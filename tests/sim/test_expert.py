"""The scripted expert: succeeds, repeats itself, records the clean target while a noisy one is executed."""

import numpy as np
import pytest

from lerobot.core.errors import UserError
from lerobot.envs.so101 import SO101EnvConfig, SO101TabletopEnv
from lerobot.sim import decision, expert, tabletop
from lerobot.sim.geometry import POSITION_LOWER, POSITION_UPPER
from lerobot.sim.physics import Physics


def make_env(difficulty: str = "easy") -> SO101TabletopEnv:
    return SO101EnvConfig(obs_type="state", difficulty=difficulty).build()


def run_episode(env: SO101TabletopEnv, *, seed: int, noise: float) -> tuple[bool, int, np.ndarray]:
    env.reset(seed=seed)
    follower, states = env.make_expert(noise), []
    while True:
        observation, _, is_done, is_over_time, info = env.step(follower.step().executed)
        states.append(observation["agent_pos"])
        if is_done or is_over_time:
            return info["is_success"], len(states), np.stack(states)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, expert.DEFAULT_NOISE])
@pytest.mark.parametrize("difficulty", tabletop.AREAS)
def test_49_of_50_episodes_succeed(difficulty, noise):
    env = make_env(difficulty)
    results = [run_episode(env, seed=seed, noise=noise) for seed in range(50)]
    assert sum(is_success for is_success, _, _ in results) >= 49
    assert max(steps for is_success, steps, _ in results if is_success) <= 100


def test_an_easy_episode_succeeds_and_repeats_itself():
    first, second = (run_episode(make_env(), seed=3, noise=0.01) for _ in range(2))
    assert first[0] and 60 <= first[1] <= 90
    np.testing.assert_array_equal(first[2], second[2])


def test_noise_is_executed_and_not_recorded():
    env = make_env()
    env.reset(seed=0)
    clean = env.make_expert(0.0).step()
    noisy = env.make_expert(0.02).step()
    np.testing.assert_array_equal(clean.recorded, clean.executed)
    np.testing.assert_array_equal(clean.recorded, noisy.recorded)
    assert (noisy.executed[:5] != noisy.recorded[:5]).all()
    assert noisy.executed[5] == noisy.recorded[5]


def test_noise_has_the_asked_for_size_and_memory():
    env = make_env()
    offsets = []
    for seed in range(12):
        env.reset(seed=seed)
        follower = env.make_expert(0.02)
        steps = [follower.step() for _ in range(len(follower))]
        offsets.append([np.deg2rad(step.executed[:5] - step.recorded[:5]) for step in steps])
    offsets = np.array(offsets)  # (episodes, T, 5)
    assert offsets.std() == pytest.approx(0.02, rel=0.2)
    memory = (offsets[:, 1:] * offsets[:, :-1]).mean() / (offsets**2).mean()
    assert memory == pytest.approx(decision.MEMORY, abs=0.06)


def test_the_plan_is_smooth_within_limits_and_ends_by_waiting():
    env = make_env("hard")
    env.reset(seed=5)
    follower = env.make_expert()
    targets = np.stack([follower.step().recorded for _ in range(len(follower) + 5)])
    assert (targets >= POSITION_LOWER - 1e-3).all() and (targets <= POSITION_UPPER + 1e-3).all()
    assert np.abs(np.diff(targets[:, :5], axis=0)).max() < 15  # degrees per control step
    np.testing.assert_array_equal(targets[-5:], np.repeat(targets[-1:], 5, axis=0))


def test_a_cube_out_of_reach_is_an_error_and_so_is_negative_noise():
    physics = Physics()
    physics.reset(angles=tabletop.HOME, cube=(0.45, 0.0, 0.0))
    with pytest.raises(UserError, match="cannot reach"):
        expert.PickPlaceExpert(physics)
    physics.reset(angles=tabletop.HOME)
    with pytest.raises(UserError, match="noise=-1"):
        expert.PickPlaceExpert(physics, noise=-1)
