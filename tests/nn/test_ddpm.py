import math

import pytest
import torch

from lerobot.core.errors import ConfigError
from lerobot.nn.ddpm import NoiseSchedule, Sampler, betas_of
from lerobot.nn.draws import Draws

SCHEDULES = ["squaredcos_cap_v2", "linear", "scaled_linear"]


def test_the_cosine_schedule_by_hand():
    betas = betas_of("squaredcos_cap_v2", num_levels=4, start=0.0, end=0.0)
    left = [math.cos((i / 4 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(5)]
    wanted = [min(0.999, 1 - after / before) for before, after in zip(left, left[1:], strict=False)]
    torch.testing.assert_close(betas, torch.tensor(wanted))
    assert betas[-1] == torch.tensor(0.999)


def test_the_linear_schedules_by_hand():
    linear = betas_of("linear", num_levels=3, start=0.01, end=0.09)
    torch.testing.assert_close(linear, torch.tensor([0.01, 0.05, 0.09]))
    scaled = betas_of("scaled_linear", num_levels=3, start=0.01, end=0.09)
    torch.testing.assert_close(scaled, torch.tensor([0.01, 0.04, 0.09]))


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match="'cosine'.*Known: squaredcos_cap_v2"):
        betas_of("cosine", num_levels=3, start=0.0, end=0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_grows_and_the_variance_stays(name):
    schedule = NoiseSchedule(100, schedule=name)
    torch.testing.assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(100))
    assert (schedule.noise.diff() > 0).all()
    data, noise = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    mixed = schedule.add(data, noise, torch.tensor([0, 50, 99]))
    for i, level in enumerate((0, 50, 99)):
        torch.testing.assert_close(
            mixed[i], schedule.signal[level] * data[i] + schedule.noise[level] * noise[i]
        )


def test_constants_are_no_weights():
    schedule = NoiseSchedule(10)
    assert not schedule.state_dict() and not Sampler(schedule, num_steps=5).state_dict()


def test_levels_are_those_of_equal_steps_that_end_at_the_lowest():
    schedule = NoiseSchedule(50)
    assert Sampler(schedule, num_steps=5).levels.tolist() == [40, 30, 20, 10, 0]
    assert Sampler(schedule, num_steps=3).levels.tolist() == [32, 16, 0]
    assert Sampler(schedule, num_steps=50).levels.tolist() == list(range(49, -1, -1))
    for num_steps in (0, 51):
        with pytest.raises(ConfigError, match=f"{num_steps} denoising steps.*1 to 50"):
            Sampler(schedule, num_steps=num_steps)


@pytest.mark.parametrize("predicts", ["epsilon", "sample"])
@pytest.mark.parametrize("num_steps", [1, 7, 100])
def test_ddim_with_the_truth_leads_straight_back(predicts, num_steps):
    """Whoever knows the data ends at it, on the way that noise and data lie on."""
    schedule = NoiseSchedule(100, schedule="linear", predicts=predicts)
    sampler = Sampler(schedule, num_steps=num_steps, way="DDIM", clip=None)
    data, noise = torch.rand(4, 6, dtype=torch.float64) - 0.5, torch.randn(4, 6, dtype=torch.float64)
    x = schedule.double().add(data, noise, sampler.levels[:1].expand(4))
    for index in range(num_steps):
        torch.testing.assert_close(
            x, schedule.add(data, noise, sampler.levels[index].expand(4)), rtol=1e-4, atol=1e-4
        )
        x = sampler.step(x, noise if predicts == "epsilon" else data, index=index, draws=Draws())
    torch.testing.assert_close(x, data, rtol=1e-4, atol=1e-4)


def perfect(x, *, schedule, level, mean, spread, predicts):
    """What the best network says where the data is N(mean, spread^2)."""
    signal, noise = schedule.signal[level], schedule.noise[level]
    variance = (signal * spread) ** 2 + noise**2
    data = mean + signal * spread**2 / variance * (x - signal * mean)
    return data if predicts == "sample" else (x - signal * data) / noise


@pytest.mark.parametrize("way", ["DDPM", "DDIM"])
@pytest.mark.parametrize("predicts", ["epsilon", "sample"])
def test_a_gaussian_is_recovered(way, predicts):
    """The best network for a Gaussian is known; both ways then end at that Gaussian."""
    schedule = NoiseSchedule(200, predicts=predicts)
    sampler = Sampler(schedule, num_steps=200, way=way, clip=None)
    torch.manual_seed(0)
    x = torch.randn(20000)
    for index, level in enumerate(sampler.levels):
        said = perfect(x, schedule=schedule, level=level, mean=0.3, spread=0.2, predicts=predicts)
        x = sampler.step(x, said, index=index, draws=Draws())
    assert abs(x.mean() - 0.3) < 0.01
    assert abs(x.std() - 0.2) < 0.01


def test_what_ddim_draws_is_nothing_and_ddpm_nothing_at_the_end():
    schedule = NoiseSchedule(10)
    x, said = torch.randn(2, 3), torch.randn(2, 3)
    before = torch.get_rng_state()
    for index in range(10):
        Sampler(schedule, num_steps=10, way="DDIM").step(x, said, index=index, draws=Draws())
    sampler = Sampler(schedule, num_steps=10, way="DDPM")
    sampler.step(x, said, index=9, draws=Draws())
    assert torch.equal(before, torch.get_rng_state())
    sampler.step(x, said, index=8, draws=Draws())
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("way", ["DDPM", "DDIM"])
def test_guesses_are_cut(way):
    """The last step of DDPM is its guess; that of DDIM too, since no noise is left."""
    sampler = Sampler(NoiseSchedule(10, predicts="sample"), num_steps=10, way=way, clip=0.7)
    x = sampler.step(torch.randn(3), torch.tensor([-5.0, 0.2, 1.0]), index=9, draws=Draws())
    torch.testing.assert_close(x, torch.tensor([-0.7, 0.2, 0.7]), rtol=1e-4, atol=1e-4)


def test_each_item_draws_its_own():
    sampler = Sampler(NoiseSchedule(10), num_steps=10)
    x, said = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    together = Draws([torch.Generator().manual_seed(seed) for seed in (5, 6, 7)])
    alone = Draws([torch.Generator().manual_seed(6)])
    found = sampler.step(x, said, index=2, draws=together)
    torch.testing.assert_close(found[1:2], sampler.step(x[1:2], said[1:2], index=2, draws=alone))
