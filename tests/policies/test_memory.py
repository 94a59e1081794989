import pytest
import torch

from lerobot.core.errors import FeatureMismatchError
from lerobot.policies.memory import Memory, pick
from tests.fakes.walk import HEIGHT, IMAGE, STATE, WIDTH, Walker, WalkerConfig


def look(*places):
    """Observations of walkers at these places."""
    size = len(places)
    state = torch.tensor(places, dtype=torch.float32)[:, None].expand(size, 2)
    return {
        STATE: state,
        IMAGE: torch.zeros(size, 3, HEIGHT, WIDTH),
        "task": [str(place) for place in places],
    }


def test_the_first_observation_fills_all_places():
    memory = Memory(3)
    for number in range(5):
        memory.see({"x": torch.full((1,), float(number))})
        wanted = [max(0, number - back) for back in (2, 1, 0)]
        assert memory.history()["x"][:, 0].tolist() == wanted


def test_some_items_of_a_batch():
    batch = {"x": torch.arange(3), "task": ["a", "b", "c"], "rate": 10}
    assert pick(batch, [2, 0]) == {"x": pytest.approx([2, 0]), "task": ["c", "a"], "rate": 10}
    assert pick(batch, [0, 1, 2])["x"] is batch["x"]


def test_episodes_that_began_at_different_times_plan_when_they_need_to():
    policy = Walker()
    early, late = policy.new_memory(), policy.new_memory()
    alone = [policy.act(look(0.5), [early]) for _ in range(2)]
    both = [policy.act(look(0.5, -0.7), [early, late]) for _ in range(4)]
    assert policy.tasks == [["0.5"], ["-0.7"], ["0.5"], ["-0.7"]]  # every third step of each
    single = Walker()
    wanted = [single.next_action(look(0.5)) for _ in range(6)]
    assert torch.equal(torch.cat([*alone, *(actions[:1] for actions in both)]), torch.cat(wanted))


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_plans_of_a_fixed_number_of_episodes(at_once):
    """Random numbers are each episode's own, those of the copies that fill up nobody's."""
    config = WalkerConfig(noise=0.5)
    places, policy = (0.5, -0.7, 0.1), Walker(config)
    memories = [policy.new_memory(seed=seed) for seed in range(3)]
    together = torch.stack([policy.act(look(*places), memories, at_once=at_once) for _ in range(7)])
    for i, place in enumerate(places):
        memory = policy.new_memory(seed=i)
        alone = torch.stack([policy.act(look(place), [memory], at_once=at_once) for _ in range(7)])
        torch.testing.assert_close(together[:, i], alone[:, 0], rtol=0, atol=0)


def test_another_number_of_episodes_without_a_reset_is_an_error():
    policy = Walker()
    policy.next_action(look(0.5))
    with pytest.raises(FeatureMismatchError, match="about 1 episodes and now about 2"):
        policy.next_action(look(0.5, 0.6))
    policy.reset()
    assert policy.next_action(look(0.5, 0.6)).shape == (2, 1)
