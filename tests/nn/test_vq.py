import copy

import pytest
import torch

from lerobot.nn.vq import Codebook, ResidualVQ

WIDTH, CODES = 3, 4


def alone(shown: torch.Tensor) -> torch.Tensor:
    """The sum over one process."""
    return shown


def quantiser(seed: int = 0) -> ResidualVQ:
    torch.manual_seed(seed)
    vq = ResidualVQ(WIDTH, num_codes=CODES)
    for book in vq.codebooks:  # vectors as far apart as the data
        book.embed.copy_(torch.randn_like(book.embed))
        book.embed_avg.copy_(book.embed)
        book.cluster_size.fill_(2.0)
    return vq


def books(vq: ResidualVQ) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in vq.state_dict().items()}


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_names_of_the_tensors():
    names = {
        f"layers.{i}._codebook.{n}" for i in (0, 1) for n in ("initted", "cluster_size", "embed_avg", "embed")
    }
    state = ResidualVQ(256, num_codes=16).state_dict()
    assert state.keys() == names | {"freeze_codebook"}
    assert state["layers.1._codebook.embed"].shape == (1, 16, 256)
    assert state["layers.0._codebook.embed"].abs().max() <= (6 / (16 * 256)) ** 0.5


def test_each_layer_rounds_what_is_left():
    vq, x = quantiser().eval(), torch.randn(20, WIDTH)
    first, second = (book.embed[0] for book in vq.codebooks)
    primary = (x[:, None] - first).norm(dim=-1).argmin(1)
    secondary = ((x - first[primary])[:, None] - second).norm(dim=-1).argmin(1)
    found = vq(x)
    assert torch.equal(found.codes, torch.stack([primary, secondary], dim=1))
    assert torch.equal(found.codes, vq.encode(x))
    torch.testing.assert_close(found.vectors, first[primary] + second[secondary])
    torch.testing.assert_close(found.vectors, vq.decode(found.codes))
    expected = (x - first[primary]).square() + (x - first[primary] - second[secondary]).square()
    torch.testing.assert_close(found.misses, expected)


def test_codes_of_many_axes():
    vq, x = quantiser(), torch.randn(2, 5, WIDTH)
    codes = vq.encode(x)
    assert codes.shape == (2, 5, 2) and torch.equal(codes[1], vq.encode(x[1]))
    assert vq.decode(codes).shape == (2, 5, WIDTH)


def test_gradients_pass_straight_through_every_layer():
    vq, x = quantiser(), torch.randn(6, WIDTH, requires_grad=True)
    vq(x).vectors.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 2.0))  # as each of the two layers hands it on


def test_codebooks_follow_averages():
    vq, x = quantiser(), torch.randn(10, WIDTH)
    book, before = vq.codebooks[0], books(vq)
    codes = vq(x).codes[:, 0]
    assert_same(books(vq), before)  # collected only
    vq.advance(alone)
    counts = torch.stack([(codes == k).sum() for k in range(CODES)]).float()
    sums = torch.stack([x[codes == k].sum(0) for k in range(CODES)])
    sizes = 0.8 * 2.0 + 0.2 * counts
    averages = 0.8 * before["layers.0._codebook.embed_avg"][0] + 0.2 * sums
    torch.testing.assert_close(book.cluster_size[0], sizes)
    torch.testing.assert_close(book.embed_avg[0], averages)
    smoothed = (sizes + 1e-5) / (sizes.sum() + CODES * 1e-5) * sizes.sum()
    torch.testing.assert_close(book.embed[0], averages / smoothed[:, None])
    kept = books(vq)
    vq.advance(alone)  # nothing was shown since
    assert_same(books(vq), kept)


def test_parts_move_the_codebooks_as_the_whole_does():
    whole, parts, x = quantiser(), quantiser(), torch.randn(9, WIDTH)
    whole(x)
    whole.advance(alone)
    for part in (x[:2], x[2:]):
        parts(part)
    parts.advance(alone)
    assert_same(books(parts), books(whole))


def test_processes_move_the_codebooks_as_one_does():
    one, here, there, x = quantiser(), quantiser(), quantiser(), torch.randn(9, WIDTH)
    one(x)
    one.advance(alone)
    here(x[:4])
    there(x[4:])
    other = there.collected
    here.advance(lambda shown: shown + other)
    assert_same(books(here), books(one))


def test_weights_count_vectors_so_often():
    weighed, repeated, x = quantiser(), quantiser(), torch.randn(3, WIDTH)
    weighed(x, weight=torch.tensor([0.0, 1.0, 2.0]))
    repeated(x[[1, 2, 2]])
    for vq in (weighed, repeated):
        vq.advance(alone)
    assert_same(books(weighed), books(repeated))


@pytest.mark.parametrize("what", ["frozen", "eval", "no number", "no weight", "nothing"])
def test_codebooks_stay(what):
    vq, x, weight = quantiser(), torch.randn(4, WIDTH), None
    vq.freeze_codebook.fill_(what == "frozen")
    vq.train(what != "eval")
    before = books(vq)
    if what == "no number":
        x[1, 1] = float("nan")
    if what == "no weight":
        weight = torch.zeros(4)
    vq(x[:0] if what == "nothing" else x, weight=weight)
    vq.advance(alone)
    assert_same(books(vq), before)


def test_a_new_codebook_survives_a_batch_without_weight():
    vq = ResidualVQ(WIDTH, num_codes=CODES)
    before = books(vq)
    vq(torch.randn(2, WIDTH), weight=torch.zeros(2))
    vq.advance(alone)
    assert_same(books(vq), before)


def test_half_precision_leaves_codes_exact():
    vq, x = quantiser().eval(), torch.randn(30, WIDTH)
    expected = vq(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = vq(x)
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.vectors, expected.vectors)


def test_the_nearest_of_vectors_far_from_zero():
    book = Codebook(2, 3)
    book.embed.copy_(torch.tensor([[[100.0, 0], [101, 0], [0, 100]]]))
    assert book.nearest(torch.tensor([[100.4, 0], [100.6, 0], [-1, 90]])).tolist() == [0, 1, 2]


def test_a_copy_under_way_is_independent():
    vq = quantiser()
    vq(torch.randn(4, WIDTH))
    twin = copy.deepcopy(vq)
    twin.advance(alone)
    assert vq.collected is not None and twin.collected is None
