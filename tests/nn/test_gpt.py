import pytest
import torch
import torch.nn.functional as F

from lerobot.core.errors import ConfigError
from lerobot.nn.gpt import GPT


def gpt(dropout: float = 0.0, **how) -> GPT:
    sizes = {"num_layers": 2, "num_heads": 2, "width": 8, "width_in": 6, "width_out": 5, "num_positions": 10}
    return GPT(**sizes | how, dropout=dropout)


def test_names_of_the_parameters():
    state = gpt().state_dict()
    assert state["transformer.wte.weight"].shape == (8, 6)
    assert state["transformer.wpe.weight"].shape == (10, 8)
    assert state["transformer.h.1.attn.c_attn.weight"].shape == (24, 8)
    assert state["transformer.h.1.mlp.2.weight"].shape == (8, 32)
    assert state["lm_head.weight"].shape == (5, 8) and "lm_head.bias" not in state
    assert torch.equal(state["transformer.h.0.attn.bias"], torch.ones(10, 10).tril()[None, None])
    shared = {state[f"transformer.h.{i}.attn.bias"].data_ptr() for i in (0, 1)}
    assert len(shared) == 2  # files hold each of them


def test_weights_at_the_start():
    state = gpt(width=256, num_layers=8).state_dict()
    assert state["transformer.h.3.mlp.0.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert state["transformer.wpe.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert state["transformer.h.3.attn.c_proj.weight"].std() == pytest.approx(0.02 / 4, rel=0.05)
    assert not state["transformer.h.3.mlp.0.bias"].any() and not state["transformer.wte.bias"].any()
    assert (state["transformer.ln_f.weight"] == 1).all()


def test_it_is_the_pre_norm_transformer_of_the_paper():
    """Against PyTorch's own layers with the same weights."""
    model, x = gpt().eval(), torch.randn(3, 7, 6)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = model.transformer["wte"](x) + model.transformer["wpe"].weight[:7]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7)
    for block in model.blocks:
        theirs = torch.nn.TransformerEncoderLayer(
            8, 2, 32, dropout=0.0, activation=F.gelu, norm_first=True, batch_first=True
        ).eval()
        theirs.load_state_dict(
            {
                "self_attn.in_proj_weight": block.attn.c_attn.weight,
                "self_attn.in_proj_bias": block.attn.c_attn.bias,
                "self_attn.out_proj.weight": block.attn.c_proj.weight,
                "self_attn.out_proj.bias": block.attn.c_proj.bias,
                **{f"linear1.{n}": p for n, p in block.mlp[0].named_parameters()},
                **{f"linear2.{n}": p for n, p in block.mlp[2].named_parameters()},
                **{f"norm1.{n}": p for n, p in block.ln_1.named_parameters()},
                **{f"norm2.{n}": p for n, p in block.ln_2.named_parameters()},
            }
        )
        tokens = theirs(tokens, src_mask=mask)
    expected = model.lm_head(model.transformer["ln_f"](tokens))
    torch.testing.assert_close(model(x), expected)


def test_nobody_sees_what_comes_later():
    model, x = gpt().eval(), torch.randn(2, 6, 6)
    other = torch.cat([x[:, :4], torch.randn(2, 2, 6)], dim=1)
    a, b = model(x), model(other)
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert not torch.allclose(a[:, 4:], b[:, 4:])


@pytest.mark.parametrize("training", [False, True])
def test_outputs_that_are_asked_for(training):
    model, x, at = gpt().train(training), torch.randn(2, 6, 6), torch.tensor([1, 4, 5])
    expected, found = model(x)[:, at], model(x, at=at)
    torch.testing.assert_close(found, expected)
    names = [n for n, _ in model.named_parameters()]
    grads = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (expected, found)]
    for name, ours, theirs in zip(names, *grads, strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_dropout_is_for_training():
    model, x = gpt(dropout=0.5), torch.randn(2, 6, 6)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_recomputed_activations_change_nothing():
    model, x = gpt(dropout=0.3), torch.randn(2, 6, 6)
    found = []
    for is_on in (False, True):
        model.grad_checkpointing = is_on
        torch.manual_seed(1)
        found.append(torch.autograd.grad(model(x).sum(), list(model.parameters())))
    assert all(map(torch.equal, *found))


def test_heads_must_fit():
    with pytest.raises(ConfigError, match="width 8 cannot be split into 3"):
        gpt(num_heads=3)
