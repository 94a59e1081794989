import torch
import torch.nn.functional as F

from lerobot.nn.activation import Mish, Tanh
from lerobot.nn.shift import randomly_shifted, shifted


def test_a_shift_moves_pictures_and_repeats_their_border():
    picture = torch.arange(12.0).reshape(1, 1, 3, 4)
    moved = shifted(picture, down=torch.tensor([1]), across=torch.tensor([-2]))
    assert moved[0, 0].tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]


def test_random_shifts_are_crops_of_the_padded_picture():
    torch.manual_seed(0)
    pictures = torch.rand(6, 3, 10, 10)
    moved, padded = randomly_shifted(pictures, reach=2), F.pad(pictures, (2,) * 4, mode="replicate")
    crops = padded.unfold(2, 10, 1).unfold(3, 10, 1)  # (B, C, 5, 5, H, W)
    places = [
        [(y, x) for y in range(5) for x in range(5) if torch.equal(crops[i, :, y, x], moved[i])]
        for i in range(6)
    ]
    assert all(len(place) == 1 for place in places) and len({place[0] for place in places}) > 2
    assert torch.equal(randomly_shifted(pictures, reach=0), pictures)


def test_activations_without_gradients_are_those_with_them():
    x = torch.cat([torch.randn(1000) * 4, torch.tensor([-100.0, -30.0, 0.0, 30.0, 100.0])])
    for layer, exact in ((Mish(), F.mish), (Tanh(), torch.tanh)):
        with torch.no_grad():
            torch.testing.assert_close(layer(x), exact(x), rtol=1e-6, atol=2e-6)
        kept = x.clone().requires_grad_()
        assert torch.equal(layer(kept), exact(kept))
