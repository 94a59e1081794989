"""Steps that nobody looks at lack their pictures, and are the same steps."""

import numpy as np
import pytest

from lerobot.envs.pusht import PushTEnvConfig
from lerobot.envs.so101 import SO101EnvConfig

CONFIGS = {
    "pusht": PushTEnvConfig(observation_height=32, observation_width=32),
    "so101": SO101EnvConfig(cameras=["front"], observation_height=32, observation_width=32),
}


def ran(env, *, watched):
    """Rewards and observations of eight steps, of which only these are looked at."""
    env.reset(seed=3)
    low, high = env.action_space.low, env.action_space.high
    draws, found = np.random.default_rng(0), []
    for step in range(8):
        env.set_wrapper_attr("is_watched", step in watched)
        observation, reward, *_ = env.step(draws.uniform(low, high).astype(np.float32))
        found.append((reward, observation))
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_seen_does_not_depend_on_what_was_seen_before(name):
    env = CONFIGS[name].build()
    always, late = ran(env, watched=range(8)), ran(env, watched=[4, 7])
    for step, ((reward, full), (other_reward, part)) in enumerate(zip(always, late, strict=True)):
        assert reward == other_reward
        np.testing.assert_array_equal(full["agent_pos"], part["agent_pos"])
        assert ("pixels" in part) == (step in (4, 7))
        if "pixels" in part:
            pictures = [
                one if isinstance(one, np.ndarray) else one["front"]
                for one in (full["pixels"], part["pixels"])
            ]
            np.testing.assert_array_equal(*pictures)
    observation, _ = env.reset(seed=3)
    assert "pixels" in observation
    env.close()


def test_corners_are_always_there():
    env = PushTEnvConfig(obs_type="environment_state_agent_pos").build()
    assert all("environment_state" in observation for _, observation in ran(env, watched=[]))
    env.close()
