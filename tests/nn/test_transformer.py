import pytest
import torch

from lerobot.nn.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer

HOW = {"hidden": 20, "dropout": 0.0, "activation": "relu"}


def encoder(pre_norm: bool = False, dropout: float = 0.0) -> Encoder:
    how = HOW | {"dropout": dropout, "pre_norm": pre_norm}
    return Encoder([EncoderLayer(8, 2, **how) for _ in range(2)], width=8, pre_norm=pre_norm)


def decoder(pre_norm: bool = False) -> Decoder:
    return Decoder([DecoderLayer(8, 2, **HOW, pre_norm=pre_norm) for _ in range(2)], width=8)


def test_names_of_the_parameters():
    post, pre = encoder().state_dict(), encoder(pre_norm=True).state_dict()
    assert pre.keys() - post.keys() == {"norm.weight", "norm.bias"}
    assert post["layers.1.self_attn.in_proj_weight"].shape == (24, 8)
    assert post["layers.0.linear1.weight"].shape == (20, 8)
    assert {"layers.0.multihead_attn.out_proj.bias", "layers.1.norm3.weight", "norm.weight"} <= (
        decoder().state_dict().keys()
    )


def test_post_norm_is_pytorchs_layer_without_positions():
    layer = EncoderLayer(8, 2, **HOW, pre_norm=False)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 20, dropout=0.0)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(5, 3, 8)
    torch.testing.assert_close(layer(x, position=torch.zeros(5, 1, 8)), theirs(x))


def test_pre_norm_is_pytorchs_layer_without_positions():
    layer = DecoderLayer(8, 2, **HOW, pre_norm=True)
    theirs = torch.nn.TransformerDecoderLayer(8, 2, 20, dropout=0.0, norm_first=True)
    theirs.load_state_dict(layer.state_dict())
    x, memory = torch.randn(4, 3, 8), torch.randn(5, 3, 8)
    torch.testing.assert_close(
        layer(x, memory, position=torch.zeros(4, 1, 8), keys=memory), theirs(x, memory)
    )


def test_without_positions_the_order_of_tokens_does_not_matter():
    stack, x, order = encoder(), torch.randn(6, 2, 8), torch.randperm(6)
    nowhere, somewhere = torch.zeros(6, 1, 8), torch.randn(6, 1, 8)
    torch.testing.assert_close(stack(x[order], position=nowhere), stack(x, position=nowhere)[order])
    assert not torch.allclose(stack(x[order], position=somewhere), stack(x, position=somewhere)[order])


@pytest.mark.parametrize("pre_norm", [False, True])
def test_recomputing_changes_neither_output_nor_gradients(pre_norm):
    stacks = encoder(pre_norm, dropout=0.3), decoder(pre_norm)
    x, position = torch.randn(6, 2, 8), torch.randn(6, 1, 8)
    queries, places = torch.zeros(3, 2, 8), torch.randn(3, 1, 8)
    seen = []
    for recompute in (False, True):
        for stack in stacks:
            stack.grad_checkpointing = recompute
            stack.zero_grad()
        torch.manual_seed(0)
        memory = stacks[0](x, position=position)
        out = stacks[1](queries, memory, position=places, memory_position=position)
        out.square().sum().backward()
        seen.append([out, *(p.grad.clone() for stack in stacks for p in stack.parameters())])
    for kept, recomputed in zip(*seen, strict=True):
        torch.testing.assert_close(kept, recomputed)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_the_first_tokens_alone_are_those_of_all(pre_norm, grad_checkpointing):
    net, x = encoder(pre_norm), torch.randn(7, 3, 8)
    net.grad_checkpointing = grad_checkpointing
    position, is_pad = torch.randn(7, 1, 8), torch.zeros(3, 7, dtype=torch.bool)
    is_pad[1, 4:] = True
    gradients = []
    for num_out in (None, 2):
        net.zero_grad()
        made = net(x, position=position, key_is_pad=is_pad, num_out=num_out)[:2]
        made.square().sum().backward()
        gradients.append([made.detach()] + [p.grad for p in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)
