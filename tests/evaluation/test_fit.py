"""An environment's pictures have the policy's size, unless somebody asked for another."""

import dataclasses

import pytest

from lerobot.core.errors import FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs.pusht import PushTEnvConfig
from lerobot.envs.so101 import SO101EnvConfig
from lerobot.evaluation.fit import fitting_env
from lerobot.policies.act.config import ACTConfig
from lerobot.processor.pipeline import DataProcessorPipeline

NOTHING = DataProcessorPipeline([])


def policy_for(env, **pictures):
    """A config of a policy for the environment, with pictures (3, H, W) of another size."""
    sizes = {
        name: PolicyFeature(FeatureType.VISUAL, (3, *pictures["size"]))
        for name, feature in env.features.items()
        if feature.type is FeatureType.VISUAL
    }
    features = {**env.features, **sizes}
    action = {"action": features.pop("action")}
    return dataclasses.replace(ACTConfig.tiny(), input_features=features, output_features=action)


def test_a_size_nobody_chose_is_the_policys():
    for env in (PushTEnvConfig(), SO101EnvConfig()):
        found = fitting_env(policy_for(env, size=(48, 64)), env, NOTHING, rename_map={})
        assert (found.observation_height, found.observation_width) == (48, 64)
        assert dataclasses.replace(found, observation_height=env.observation_height,
                                   observation_width=env.observation_width) == env  # fmt: skip


def test_a_size_that_fits_stays():
    env = PushTEnvConfig(observation_height=48, observation_width=64)
    assert fitting_env(policy_for(env, size=(48, 64)), env, NOTHING, rename_map={}) is env


def test_a_size_that_was_chosen_is_refused():
    env = PushTEnvConfig(observation_height=100)
    with pytest.raises(FeatureMismatchError, match="--env.observation_height=48 --env.observation_width=64"):
        fitting_env(policy_for(env, size=(48, 64)), env, NOTHING, rename_map={})


def test_what_a_size_cannot_mend_is_said_of_the_environment_as_it_was():
    env = PushTEnvConfig()
    config = policy_for(env, size=(48, 64))
    config.output_features["action"] = PolicyFeature(FeatureType.ACTION, (7,))
    with pytest.raises(FeatureMismatchError, match=r"384, 384\] there .* action is \[2\] there and \[7\]"):
        fitting_env(config, env, NOTHING, rename_map={})
