"""Flat batches, actions and observations <-> transitions, the form that steps work on.

{"observation.state": x, "action": a, "task": t}  <->  {"observation": {"observation.state": x}, "action": a,
                                                        "complementary_data": {"task": t}, ...}
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.core.types import TransitionKey
from lerobot.processor.step import EnvTransition, PolicyAction, RobotAction, RobotObservation

# What a batch carries besides observation, action, reward and flags; keys with `_is_pad` in them come too.
COMPLEMENTARY_KEYS = (
    keys.TASK,
    keys.INDEX,
    keys.TASK_INDEX,
    keys.EPISODE_INDEX,
    keys.TIMESTAMP,
    keys.LOSS_WEIGHT,
    keys.DATASET_INDEX,
    "language_persistent",
    "language_events",
    "messages",
    "message_streams",
    "target_message_indices",
    "query_kind",
    "query_text",
)


def create_transition(
    observation: dict[str, Any] | None = None,
    action: Any = None,
    reward: Any = 0.0,
    done: Any = False,
    truncated: Any = False,
    info: dict[str, Any] | None = None,
    complementary_data: dict[str, Any] | None = None,
) -> EnvTransition:
    """A transition with every part; parts that are not given hold nothing, 0.0 or False."""
    return {
        TransitionKey.OBSERVATION: observation,
        TransitionKey.ACTION: action,
        TransitionKey.REWARD: reward,
        TransitionKey.DONE: done,
        TransitionKey.TRUNCATED: truncated,
        TransitionKey.INFO: {} if info is None else info,
        TransitionKey.COMPLEMENTARY_DATA: {} if complementary_data is None else complementary_data,
    }


def batch_to_transition(batch: Mapping[str, Any]) -> EnvTransition:
    """The transition in a flat batch, a dataset item or an observation; keys no step knows are left out.

    Raises:
        ConfigError: the batch is not a mapping.
    """
    if not isinstance(batch, Mapping):
        raise ConfigError(
            f"A preprocessor reads a dict such as {{'observation.state': tensor}}, but was given a "
            f"{type(batch).__name__}."
        )
    observation = {key: value for key, value in batch.items() if key.startswith(keys.OBSERVATION_PREFIX)}
    return create_transition(
        observation=observation or None,
        action=batch.get(keys.ACTION),
        reward=batch.get(keys.REWARD, 0.0),
        done=batch.get(keys.DONE, False),
        truncated=batch.get(keys.TRUNCATED, False),
        info=batch.get(keys.INFO, {}),
        complementary_data={
            key: value for key, value in batch.items() if keys.PAD_SUFFIX in key or key in COMPLEMENTARY_KEYS
        },
    )


def transition_to_batch(transition: EnvTransition) -> dict[str, Any]:
    """The flat batch of a transition: the inverse of `batch_to_transition`."""
    return {
        keys.ACTION: transition.get(TransitionKey.ACTION),
        keys.REWARD: transition.get(TransitionKey.REWARD, 0.0),
        keys.DONE: transition.get(TransitionKey.DONE, False),
        keys.TRUNCATED: transition.get(TransitionKey.TRUNCATED, False),
        keys.INFO: transition.get(TransitionKey.INFO, {}),
        **(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}),
        **(transition.get(TransitionKey.OBSERVATION) or {}),
    }


def policy_action_to_transition(action: PolicyAction) -> EnvTransition:
    """A transition that holds only an action tensor.

    Raises:
        ConfigError: the action is not a tensor.
    """
    if not isinstance(action, Tensor):
        raise ConfigError(
            f"A postprocessor reads the policy's action tensor, but was given a {type(action).__name__}."
        )
    return create_transition(action=action)


def transition_to_policy_action(transition: EnvTransition) -> PolicyAction:
    """The action tensor of a transition.

    Raises:
        ConfigError: it holds none.
    """
    action = transition.get(TransitionKey.ACTION)
    if not isinstance(action, Tensor):
        raise ConfigError(f"The pipeline's last step left no action tensor, but {type(action).__name__}.")
    return action


def robot_action_to_transition(action: RobotAction) -> EnvTransition:
    """A transition that holds only a robot's action dict."""
    return create_transition(action=dict(action))


def transition_to_robot_action(transition: EnvTransition) -> RobotAction:
    """The action dict of a transition.

    Raises:
        ConfigError: it holds none.
    """
    action = transition.get(TransitionKey.ACTION)
    if not isinstance(action, dict):
        raise ConfigError(f"The pipeline's last step left no action dict, but {type(action).__name__}.")
    return action


def observation_to_transition(observation: RobotObservation) -> EnvTransition:
    """A transition that holds only an observation."""
    return create_transition(observation=dict(observation))


def transition_to_observation(transition: EnvTransition) -> RobotObservation:
    """The observation of a transition; empty when it holds none."""
    return transition.get(TransitionKey.OBSERVATION) or {}


def robot_action_observation_to_transition(pair: tuple[RobotAction, RobotObservation]) -> EnvTransition:
    """A transition from what a person commanded and what the robot saw at that moment."""
    action, observation = pair
    return create_transition(action=dict(action), observation=dict(observation))
