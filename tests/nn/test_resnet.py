import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lerobot.core.errors import ConfigError
from lerobot.nn.norm import FrozenBatchNorm2d
from lerobot.nn.resnet import LEAST_CHANNELS_LAST, ResNet


@pytest.mark.parametrize(
    ("norm", "tensors_per_norm"),
    [("frozen", 4), ("batch", 5), ("group", 2)],
    ids=["frozen", "batch", "group"],
)
def test_resnet18_has_torchvisions_names(norm, tensors_per_norm):
    with torch.device("meta"):
        state = ResNet("resnet18", norm=norm).state_dict()
    assert len(state) == 20 + 20 * tensors_per_norm
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.1.bn2.weight"].shape == (512,)
    assert "layer1.0.downsample.0.weight" not in state
    assert ("layer3.0.downsample.1.running_var" in state) == (norm != "group")
    assert ("bn1.num_batches_tracked" in state) == (norm == "batch")


@pytest.mark.parametrize(
    ("name", "num_weights", "width"),
    [("resnet10", 4_900_032, 512), ("resnet18", 11_166_912, 512), ("resnet50", 23_454_912, 2048)],
)
def test_sizes(name, num_weights, width):
    with torch.device("meta"):
        net = ResNet(name, norm="frozen")
    assert sum(p.numel() for p in net.parameters()) == num_weights
    assert net.out_channels == width


def test_every_halving_rounds_up():
    net = ResNet("resnet10").eval()
    assert net(torch.rand(2, 3, 96, 65)).shape == (2, 512, 3, 3)


def test_its_children_in_a_row_are_the_network():
    net = ResNet("resnet10", norm="group")
    images = torch.rand(1, 3, 48, 32)
    torch.testing.assert_close(nn.Sequential(*net.children())(images), net(images))


def test_dilation_keeps_the_last_stages_resolution():
    plain, dilated = ResNet("resnet50").eval(), ResNet("resnet50", dilate_last=True).eval()
    images = torch.rand(1, 3, 64, 64)
    assert plain(images).shape[-2:] == (2, 2)
    assert dilated(images).shape[-2:] == (4, 4)
    assert plain.state_dict().keys() == dilated.state_dict().keys()


def test_basic_blocks_cannot_be_dilated():
    with pytest.raises(ConfigError, match="resnet50 or deeper"):
        ResNet("resnet18", dilate_last=True)


def test_an_unknown_network_is_named_with_its_nearest():
    with pytest.raises(ConfigError, match="'resnet19'.*Did you mean"):
        ResNet("resnet19")


def test_a_frozen_norm_is_batch_norm_in_eval_mode_and_never_moves():
    frozen, learning = FrozenBatchNorm2d(5), nn.BatchNorm2d(5)
    for value in (*learning.parameters(), learning.running_mean, learning.running_var):
        value.data.uniform_(0.5, 2.0)
    frozen.load_state_dict({k: v for k, v in learning.state_dict().items() if k != "num_batches_tracked"})
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    x = torch.randn(3, 5, 4, 4)
    torch.testing.assert_close(frozen.train()(x), learning.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not list(frozen.parameters())


def test_a_basic_block_step_by_step():
    block = ResNet("resnet10", norm="frozen").layer2[0]
    x = torch.randn(2, 64, 8, 8)
    y = F.relu(F.conv2d(x, block.conv1.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5)
    y = F.conv2d(y, block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    around = F.conv2d(x, block.downsample[0].weight, stride=2) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), F.relu(y + around))


def test_large_pictures_give_the_same_maps_and_gradients():
    """They are computed channels last until maps are smaller than weights, which keep their order."""
    net, is_last = ResNet("resnet10", norm="frozen"), []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_hook(
            lambda _, given, made: is_last.append(made.is_contiguous(memory_format=torch.channels_last))
        )
    images = torch.rand(3, 3, 160, 192)
    assert images.numel() >= LEAST_CHANNELS_LAST
    found = net(images)
    assert is_last == [True, True, False, False]
    found.square().sum().backward()
    assert all(p.is_contiguous() and p.grad.is_contiguous() for p in net.parameters())
    double = ResNet("resnet10", norm="frozen").double()
    double.load_state_dict(net.state_dict())
    wanted = double(images.double())
    wanted.square().sum().backward()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(net.parameters(), double.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_the_frozen_norm_overwrites_only_where_it_is_told_to():
    x = torch.randn(2, 3, 4, 4)
    kept, overwriting = FrozenBatchNorm2d(3), FrozenBatchNorm2d(3, inplace=True)
    for norm in (kept, overwriting):
        norm.running_mean += torch.tensor([1.0, 2.0, 3.0])
        norm.running_var *= 4
    before = x.clone()
    wanted = kept(x)
    assert torch.equal(x, before)
    assert torch.equal(overwriting(x), wanted) and torch.equal(x, wanted)
