import torch

from lerobot.nn.draws import Draws


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_without_generators_torch_draws():
    like = torch.zeros(1)
    torch.manual_seed(3)
    wanted = torch.randn(4, 5)
    torch.manual_seed(3)
    assert torch.equal(Draws().normal(4, 5, like=like), wanted)


def test_an_item_draws_the_same_in_any_company():
    like, probabilities = torch.zeros(1), torch.rand(3, 2, 7)
    together, alone = Draws(generators(5, 6, 7)), Draws(generators(6))
    assert torch.equal(
        together.normal(4, 3, like=like, axis=1)[:, 1], alone.normal(4, 1, like=like, axis=1)[:, 0]
    )
    assert torch.equal(together.categories(probabilities)[1], alone.categories(probabilities[1:2])[0])


def test_categories_are_as_frequent_as_they_should_be():
    wanted = torch.tensor([0.5, 0.0, 0.3, 0.2])
    for draws in (Draws(), Draws(generators(1))):
        torch.manual_seed(0)
        chosen = draws.categories(3 * wanted.expand(1, 20_000, 4))
        assert chosen.shape == (1, 20_000)
        found = torch.bincount(chosen.flatten(), minlength=4) / 20_000
        assert found[1] == 0
        torch.testing.assert_close(found, wanted, atol=0.015, rtol=0)
