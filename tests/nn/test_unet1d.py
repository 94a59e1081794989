import math

import pytest
import torch
import torch.nn.functional as F

from lerobot.nn.unet1d import FilmBlock, StepCode, UNet1d


def small(**how) -> UNet1d:
    options = {"condition_size": 5, "widths": (8, 16, 24), "num_groups": 4, "code_size": 8, **how}
    return UNet1d(3, **options)


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24)])
@pytest.mark.parametrize("length", [8, 20])
def test_sequences_keep_their_length(widths, length):
    net = small(widths=widths)
    steering = net.modulation(torch.tensor([3, 9]), torch.randn(2, 5))
    assert net(torch.randn(2, length, 3), steering).shape == (2, length, 3)
    assert steering.shape[1] == sum(block.modulation_size for block in net.blocks)
    assert len(net.blocks) == 4 * len(widths)


def test_names_are_those_on_disk():
    names = small().state_dict()
    assert names["diffusion_step_encoder.1.weight"].shape == (32, 8)
    assert names["diffusion_step_encoder.3.weight"].shape == (8, 32)
    assert names["down_modules.0.0.conv1.block.0.weight"].shape == (8, 3, 5)
    assert names["down_modules.1.0.cond_encoder.1.weight"].shape == (32, 13)
    assert names["down_modules.1.0.residual_conv.weight"].shape == (16, 8, 1)
    assert names["down_modules.1.2.weight"].shape == (16, 16, 3)
    assert "down_modules.2.2.weight" not in names and "down_modules.0.1.residual_conv.weight" not in names
    assert names["mid_modules.1.conv2.block.1.weight"].shape == (24,)
    assert names["up_modules.0.0.conv1.block.0.weight"].shape == (16, 48, 5)
    assert names["up_modules.0.2.weight"].shape == (16, 16, 4)
    assert names["up_modules.1.0.conv1.block.0.weight"].shape == (8, 32, 5)
    assert names["final_conv.0.block.0.weight"].shape == (8, 8, 5)
    assert names["final_conv.1.weight"].shape == (3, 8, 1)
    assert "up_modules.2.0.conv1.block.0.weight" not in names


def test_published_size():
    with torch.device("meta"):
        net = UNet1d(2, condition_size=132, widths=(512, 1024, 2048))
    assert 245e6 < sum(p.numel() for p in net.parameters()) < 260e6


def test_the_code_of_a_step():
    code = StepCode(6)(torch.tensor([0, 7]))
    rates = [math.exp(-i * math.log(10000) / 2) for i in range(3)]
    torch.testing.assert_close(code[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    wanted = [math.sin(7 * rate) for rate in rates] + [math.cos(7 * rate) for rate in rates]
    torch.testing.assert_close(code[1], torch.tensor(wanted))


@pytest.mark.parametrize("has_scale", [True, False])
def test_a_block_step_by_step(has_scale):
    block = FilmBlock(3, 8, condition_size=4, kernel_size=3, num_groups=2, has_scale=has_scale)
    x, condition = torch.randn(2, 3, 6), torch.randn(2, 4)
    steering = block.cond_encoder(condition)

    def part(conv, x):
        y = F.conv1d(x, conv.block[0].weight, conv.block[0].bias, padding=1)
        y = F.group_norm(y, 2, conv.block[1].weight, conv.block[1].bias)
        return y * torch.tanh(F.softplus(y))

    y = part(block.conv1, x)
    scale = steering[:, :8, None] if has_scale else 1.0
    y = part(block.conv2, scale * y + steering[:, -8:, None])
    torch.testing.assert_close(block(x, steering[..., None]), y + block.residual_conv(x))


def test_the_terms_add_up_to_the_modulation_of_every_step():
    net, condition = small(), torch.randn(2, 5)
    levels = torch.tensor([90, 45, 0])
    of_levels, of_condition = net.modulation_terms(levels, condition)
    for index, level in enumerate(levels):
        wanted = net.modulation(level.expand(2), condition)
        torch.testing.assert_close(of_levels[index] + of_condition, wanted, rtol=1e-5, atol=1e-5)


def test_recomputed_activations_give_the_same_gradients():
    net, x = small().train(), torch.randn(2, 8, 3)
    found = []
    for is_recomputed in (False, True):
        net.grad_checkpointing = is_recomputed
        net(x, net.modulation(torch.tensor([3, 9]), torch.ones(2, 5))).square().sum().backward()
        found.append({name: p.grad for name, p in net.named_parameters()})
        net.zero_grad()
    assert all(value is not None for value in found[0].values())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_items_do_not_know_each_other():
    net = small().eval()
    x, condition, levels = torch.randn(3, 8, 3), torch.randn(3, 5), torch.tensor([1, 5, 9])
    together = net(x, net.modulation(levels, condition))
    alone = net(x[1:2], net.modulation(levels[1:2], condition[1:2]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)
