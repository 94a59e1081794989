"""The experts of PushT, ALOHA and Meta-World, where these are installed: they succeed, and repeat it."""

import numpy as np
import pytest

from lerobot.control.attempts import Driver, world_with_expert
from lerobot.core.errors import UserError
from lerobot.envs.aloha import AlohaEnvConfig
from lerobot.envs.base import EnvConfig
from lerobot.envs.experts import pusht
from lerobot.envs.metaworld import MetaworldEnvConfig
from lerobot.envs.pusht import PushTEnvConfig
from lerobot.sim import gl
from lerobot.sim.decision import MEMORY, Drift

PUSHT = PushTEnvConfig(obs_type="environment_state_agent_pos")


def attempt(env, *, seed: int, noise: float | None = 0.0) -> list[dict]:
    return list(Driver(noise=noise).attempt(env, seed=seed, is_stopped=lambda: False))


def built(cfg: EnvConfig, package: str):
    gl.choose_backend()
    pytest.importorskip(package, reason=f"pip install 'lerobot[{cfg.type}]'")
    return cfg.build()


def check_attempts(env, *, seeds, limit: int, least: int) -> None:
    """At least so many episodes succeed, with the usual noise, in time; the first one is the same twice."""
    episodes = [attempt(env, seed=seed, noise=None) for seed in seeds]
    won = [len(frames) for frames in episodes if frames[-1]["next.success"][0]]
    assert len(won) >= least and max(won) <= limit
    again = attempt(env, seed=seeds[0], noise=None)
    np.testing.assert_array_equal([f["action"] for f in again], [f["action"] for f in episodes[0]])
    low, high = env.action_space.low, env.action_space.high
    assert all(((low <= f["action"]) & (f["action"] <= high)).all() for frames in episodes for f in frames)
    world = world_with_expert(env)
    with pytest.raises(UserError, match="noise=-1"):
        next(iter(world.experts.values()))(-1)


# ---------------------------------------------------------------------------------------------------- noise
def test_noise_has_its_size_and_memory_and_repeats_itself():
    drift, same = Drift(0.5, size=4, seed=3), Drift(0.5, size=4, seed=3)
    values = np.array([drift.step().copy() for _ in range(4000)])
    np.testing.assert_array_equal(values[:9], [same.step().copy() for _ in range(9)])
    assert values.std() == pytest.approx(0.5, rel=0.1)
    assert (values[1:] * values[:-1]).mean() / (values**2).mean() == pytest.approx(MEMORY, abs=0.03)


# ---------------------------------------------------------------------------------------------------- PushT
def test_a_push_predicts_what_the_pusht_package_does():
    env = built(PUSHT, "gym_pusht")
    env.reset(seed=4)
    pose = np.array([*env.env.block.position, env.env.block.angle])
    start, direction = next(iter(pusht.contacts(pose)))
    push = pusht.Push(start, direction, 9.0, 12)
    predicted = pusht.Sandbox().push(pose, push)
    env.env.agent.position, env.env.agent.velocity = tuple(start), (0, 0)
    for action in pusht.push_actions(push):
        env.step(action)
    done = np.array([*env.env.block.position, env.env.block.angle])
    assert np.linalg.norm(done[:2] - pose[:2]) > 5, "the block has not been pushed"
    np.testing.assert_allclose(predicted[-1], done, atol=0.05)
    env.close()


def test_a_way_leads_around_the_block_of_pusht():
    shapely = pytest.importorskip("shapely")
    block = pusht.outline(np.array([256.0, 256.0, 0.0]))
    start, goal = np.array([256.0, 200.0]), np.array([256.0, 420.0])
    way = pusht.route(block, start, goal)
    assert way is not None and (way[0] == start).all() and (way[-1] == goal).all() and len(way) > 2
    assert shapely.LineString(way).distance(shapely.Polygon(block)) >= pusht.RADIUS - 1
    assert shapely.LineString(way).length < 400
    walled = pusht.outline(np.array([256.0, 256.0, 0.0])) * [4, 1] - [768, 0]  # from wall to wall
    assert pusht.route(walled, start, goal) is None


@pytest.mark.slow
def test_the_planner_solves_pusht():
    env = built(PUSHT, "gym_pusht")
    check_attempts(env, seeds=range(1000, 1003), limit=250, least=3)
    env.close()


# ---------------------------------------------------------------------------------------------------- ALOHA
@pytest.mark.slow
@pytest.mark.parametrize("task", ["AlohaTransferCube-v0", "AlohaInsertion-v0"])
def test_the_expert_of_aloha(task):
    env = built(AlohaEnvConfig(task=task, obs_type="state"), "gym_aloha")
    check_attempts(env, seeds=range(1000, 1005), limit=380, least=4)
    env.close()


@pytest.mark.slow
def test_a_cube_that_aloha_cannot_reach():
    env = built(AlohaEnvConfig(task="AlohaTransferCube-v0", obs_type="state"), "gym_aloha")
    env.reset(seed=0)
    with env.physics.reset_context():
        env.physics.named.data.qpos["red_box_joint"][:2] = (-0.5, 0.9)
    with pytest.raises(UserError, match="The arm cannot reach .* Put the cube nearer"):
        env.make_expert()
    env.close()


# ----------------------------------------------------------------------------------------------- Meta-World
@pytest.mark.slow
@pytest.mark.parametrize("task", ["push-v3", "door-open-v3", "drawer-open-v3"])
def test_the_experts_of_metaworld(task):
    env = built(MetaworldEnvConfig(task=task, obs_type="state"), "metaworld")
    check_attempts(env, seeds=range(1000, 1005), limit=200, least=4)
    env.close()


def test_metaworld_has_an_expert_for_every_task():
    pytest.importorskip("metaworld", reason="pip install 'lerobot[metaworld]'")
    from metaworld.policies import ENV_POLICY_MAP

    assert {task.name for task in MetaworldEnvConfig(task="all").tasks} == set(ENV_POLICY_MAP)
