import pytest
import torch
import torch.nn.functional as F

from lerobot.core.errors import FeatureMismatchError
from lerobot.nn.keypoints import KeypointEncoder, SpatialSoftmax, cropped
from lerobot.nn.resnet import NumberedResNet, ResNet


def encoder(**how):
    return KeypointEncoder((40, 32), num_keypoints=4, resnet="resnet10", **how)


def test_names_are_those_on_disk():
    names = set(encoder(norm="group").state_dict())
    assert {
        "backbone.0.weight",
        "backbone.1.weight",
        "backbone.4.0.conv1.weight",
        "backbone.7.0.downsample.1.bias",
        "pool.nets.weight",
        "pool.nets.bias",
        "pool.pos_grid",
        "out.weight",
        "out.bias",
    } <= names
    assert "backbone.1.running_mean" not in names
    assert "backbone.1.running_mean" in encoder(norm="batch").state_dict()


def test_a_numbered_resnet_is_the_resnet():
    named, numbered = ResNet("resnet10"), NumberedResNet("resnet10")
    weights = named.state_dict() | {"fc.weight": torch.zeros(2)}
    numbered.load_state_dict(numbered.own_names(weights))
    images = torch.rand(2, 3, 48, 32)
    assert torch.equal(named(images), numbered(images))
    assert numbered.out_channels == 512


@pytest.mark.parametrize(("y", "x"), [(0, 0), (2, 4), (1, 3)])
def test_a_single_bright_cell_is_found_where_it_is(y, x):
    softmax = SpatialSoftmax((3, 5), channels=1, points=1)
    torch.nn.init.constant_(softmax.nets.weight, 1e4)
    maps = torch.zeros(1, 1, 3, 5)
    maps[0, 0, y, x] = 1.0
    wanted = torch.tensor([-1 + 2 * x / 4, -1 + 2 * y / 2])
    torch.testing.assert_close(softmax(maps)[0, 0], wanted)


def test_even_maps_have_their_keypoints_in_the_middle():
    softmax = SpatialSoftmax((4, 3), channels=2, points=6)
    torch.testing.assert_close(softmax(torch.ones(2, 2, 4, 3)), torch.zeros(2, 6, 2), atol=1e-6, rtol=0)


def test_the_grid_is_rounded_from_double_precision():
    grid = SpatialSoftmax((7, 11), channels=1, points=1).pos_grid
    assert grid.dtype == torch.float32 and grid.shape == (77, 2)
    assert torch.equal(grid[:11, 0], torch.linspace(-1, 1, 11, dtype=torch.float64).float())
    assert torch.equal(grid[::11, 1], torch.linspace(-1, 1, 7, dtype=torch.float64).float())


def test_crops_are_the_centre_and_while_training_anywhere():
    places = torch.arange(10 * 8.0).reshape(10, 8)
    images = places.expand(3, 1, 10, 8)
    assert torch.equal(
        cropped(images, (5, 6), is_random=False)[0, 0], places[2:7, 1:7]
    )  # 2.5 is rounded to 2
    torch.manual_seed(0)
    corners = {tuple(cropped(images, (5, 6), is_random=True)[:, 0, 0, 0].tolist()) for _ in range(300)}
    assert len(corners) == 6 * 3  # all of them come up
    assert all(len(set(corner)) == 1 for corner in corners)  # the same for all images


def test_a_crop_of_the_whole_draws_nothing():
    images, before = torch.rand(1, 3, 8, 8), torch.get_rng_state()
    assert torch.equal(cropped(images, (8, 8), is_random=True), images)
    assert torch.equal(before, torch.get_rng_state())


def test_the_encoder_step_by_step():
    net = encoder(norm="group", resize=(36, 30), crop=(33, 28)).eval()
    images = torch.rand(2, 3, 40, 32)
    small = F.interpolate(images, (36, 30), mode="bilinear", antialias=True, align_corners=False)
    maps = torch.nn.Sequential(*net.backbone)(small[..., 2:35, 1:29])
    share = net.pool.nets(maps).flatten(2).softmax(-1)
    places = torch.einsum("bks,sd->bkd", share, net.pool.pos_grid)
    wanted = net.out(places.reshape(2, 8)).relu()
    torch.testing.assert_close(net(images), wanted)


def test_only_training_moves_the_crop():
    net = encoder(norm="group", crop=(36, 30))
    still = encoder(norm="group", crop=(36, 30), crop_is_random=False)
    still.load_state_dict(net.state_dict())
    images = torch.rand(1, 3, 40, 32)
    torch.manual_seed(3)
    moved = torch.stack([net(images) for _ in range(3)])
    assert not torch.equal(moved[0], moved[1]) or not torch.equal(moved[0], moved[2])
    assert torch.equal(net.eval()(images), still(images))


def test_images_of_another_size_are_named_with_the_size_expected():
    with pytest.raises(FeatureMismatchError, match="50 x 60 pixels .* must be 40 x 32"):
        encoder()(torch.rand(1, 3, 50, 60))
    with pytest.raises(FeatureMismatchError, match="20 x 40 pixels .* must be 24 x 24"):
        encoder(crop=(24, 24))(torch.rand(1, 3, 20, 40))
