import numpy as np
import pytest

from lerobot.core.errors import ConfigError, UserError
from lerobot.envs.base import EnvConfig
from lerobot.envs.gym import GymEnvConfig


def test_a_task_by_its_name():
    cfg = GymEnvConfig(task="Pendulum-v1", episode_length=3)
    assert EnvConfig.get_choice_class("gym") is GymEnvConfig
    assert {name: f.shape for name, f in cfg.features.items()} == {
        "observation.state": (3,),
        "action": (1,),
    }
    env = cfg.build()
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert np.array_equal(first["agent_pos"], again["agent_pos"]) and first["agent_pos"].dtype == np.float32
    ends = [env.step(np.zeros(1))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    observation, reward, _, _, info = (env.reset(seed=3), env.step(np.array([9.0])))[1]
    assert reward < 0 and info["is_success"] is False and observation["agent_pos"].shape == (3,)
    env.close()


def test_arguments_reach_the_task():
    env = GymEnvConfig(task="Pendulum-v1", arguments={"g": 1.0}).build()
    assert env.unwrapped.g == 1.0
    env.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": None}, "--env.task=Pendulum-v1"),
        ({"task": "Pendulum-v9"}, "unknown to Gymnasium|Pendulum"),
        ({"task": "Pendulun-v1"}, "Pendulum-v1"),
        ({"task": "CartPole-v1"}, "expected vectors of numbers"),
        ({"task": "Pendulum-v1", "arguments": {"gravity": 3}}, "gravity"),
    ],
)
def test_what_cannot_be_built(given, said):
    with pytest.raises(ConfigError, match=said):
        GymEnvConfig(**given).build()


@pytest.mark.parametrize("action", [np.zeros(2), np.array([np.nan])])
def test_wrong_actions(action):
    env = GymEnvConfig().build()
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"finite action of 1 numbers"):
        env.step(action)
    env.close()
