"""What every policy keeps to. A policy joins by existing: its config's `tiny()` is what is tested."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounterWithBackend

from lerobot.core import keys
from lerobot.core.config import Text, decode, default_of
from lerobot.core.errors import CheckpointError
from lerobot.core.types import FeatureType
from lerobot.policies.build import get_policy_class, make_policy, make_pre_post_processors
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.parts import find_part, freeze, known_parts

NAMES = PreTrainedConfig.get_known_choices()
SIZE = 2
STATISTICS = ("mean", "std", "min", "max", "q01", "q10", "q90", "q99")
VALUES = (0.4, 0.3, -3.0, 3.0, -2.0, -1.0, 1.0, 2.0)


@pytest.fixture(params=NAMES)
def config(request):
    return PreTrainedConfig.get_choice_class(request.param).tiny()


def made_up_stats(config) -> dict:
    """Statistics of every feature, as a dataset has them."""
    found = {}
    for name, feature in {**config.input_features, **config.output_features}.items():
        shape = (feature.shape[0], 1, 1) if feature.type is FeatureType.VISUAL else feature.shape
        found[name] = {s: torch.full(shape, v) for s, v in zip(STATISTICS, VALUES, strict=True)}
    return found


def raw_batch(config, *, size: int = SIZE) -> dict:
    """A batch of a dataset, as this policy asks for it."""

    def several(shape, offsets):
        return (size, *shape) if offsets is None else (size, len(offsets), *shape)

    batch = {}
    for name, feature in config.input_features.items():
        batch[name] = torch.rand(several(feature.shape, config.observation_delta_indices))
        if config.observation_delta_indices is not None:
            is_pad = several((), config.observation_delta_indices)
            batch[name + keys.PAD_SUFFIX] = torch.zeros(is_pad, dtype=torch.bool)
    for name, feature in config.output_features.items():
        batch[name] = torch.rand(several(feature.shape, config.action_delta_indices))
        batch[name + keys.PAD_SUFFIX] = torch.zeros(
            several((), config.action_delta_indices), dtype=torch.bool
        )
    batch[keys.REWARD] = torch.rand(several((), config.reward_delta_indices))
    if config.reward_delta_indices is not None:
        is_pad = several((), config.reward_delta_indices)
        batch[keys.REWARD + keys.PAD_SUFFIX] = torch.zeros(is_pad, dtype=torch.bool)
    return batch | {keys.TASK: ["put the cube on the plate"] * size}


def raw_observation(config) -> dict:
    """What a robot sees at one moment, without batch axis."""
    seen = {name: torch.rand(feature.shape) for name, feature in config.input_features.items()}
    return seen | {keys.TASK: "put the cube on the plate"}


def built(config) -> tuple[PreTrainedPolicy, tuple]:
    return make_policy(config), make_pre_post_processors(config, dataset_stats=made_up_stats(config))


def test_a_file_gives_the_config_back(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path) == config


def test_flags_give_the_config_back(config):
    """`--policy.{name}={value}` of every field that is set, or switched off, as scripts write them."""
    by_default = {field.name: default_of(field) for field in fields(config)}
    given = {
        name: value
        for name, value in config.__dict__.items()
        if value is not None or by_default[name] is not None
    }
    flags = {name: Text(str(value)) for name, value in given.items()}
    again = decode(PreTrainedConfig, {"type": config.type} | flags)
    assert {name: again.__dict__[name] for name in given} == given


def test_names(config):
    policy_class = get_policy_class(config.type)
    assert policy_class.name == config.type and policy_class.config_class is type(config)


def test_the_loss_falls_on_one_batch(config):
    policy, (before, _) = built(config)
    batch = before(raw_batch(config))
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        loss, _ = policy.train()(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_loss_and_its_parts(config):
    policy, (before, _) = built(config)
    loss, info = policy.train()(before(raw_batch(config)))
    assert loss.shape == () and loss.requires_grad
    for name, value in (info or {}).items():
        assert isinstance(name, str)
        assert not (isinstance(value, torch.Tensor) and value.requires_grad), name


@pytest.fixture
def equal_draws(monkeypatch):
    """Every item of every batch gets the same random numbers, so that a batch may be cut."""
    kept: dict[tuple, torch.Tensor] = {}

    def patched(name, original):
        def draw(*args, **how):
            value = original(*args, **how)
            if not value.dim():
                return value
            return kept.setdefault((name, value.shape[1:]), value[:1]).expand_as(value).clone()

        return draw

    for name in ("rand", "randn", "rand_like", "randn_like", "randint", "multinomial"):
        monkeypatch.setattr(torch, name, patched(name, getattr(torch, name)))


def padded_batch(config, before, *, size: int) -> dict:
    """A preprocessed batch whose items have fewer and fewer actions that are no padding."""
    raw = raw_batch(config, size=size)
    for name in config.output_features:
        is_pad = raw[name + keys.PAD_SUFFIX]
        if is_pad.dim() == 2:
            length = is_pad.shape[1]
            is_pad |= torch.arange(length) >= torch.linspace(length, 1, size).ceil()[:, None]
    return before(raw)


def cut(batch, at: int, *, size: int) -> list[dict]:
    """The first `at` items, and the others."""

    def part(value, chosen):
        is_long = isinstance(value, list) or (isinstance(value, torch.Tensor) and value.dim() > 0)
        return value[chosen] if is_long and len(value) == size else value

    slices = (slice(0, at), slice(at, size))
    return [{name: part(value, chosen) for name, value in batch.items()} for chosen in slices]


def gradients(policy) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("is_weighted", [False, True])
def test_accumulated_parts_equal_the_whole(config, is_weighted, equal_draws):
    policy, (before, _) = built(config)
    policy.train()
    batch = padded_batch(config, before, size=4)
    if is_weighted and policy.has_item_losses:
        batch[keys.LOSS_WEIGHT] = torch.tensor([1.0, 0.0, 0.5, 2.0])
    whole, whole_info = policy(batch)
    whole.backward()
    expected = gradients(policy)
    parts = cut(batch, 1, size=4)
    each = [policy.loss_totals(part) for part in parts]
    totals = {name: sum(one[name] for one in each) for name in each[0]}
    losses = []
    for part in parts:
        loss, info = policy(part, totals=totals)
        loss.backward()
        losses.append((loss.detach(), info or {}))
    torch.testing.assert_close(losses[0][0] + losses[1][0], whole.detach())
    for name, value in (whole_info or {}).items():
        if name in policy.batch_facts:
            assert torch.isfinite(losses[0][1][name] + losses[1][1][name])
        elif name != "item_losses" and isinstance(value, torch.Tensor) and value.numel() == 1:
            torch.testing.assert_close(losses[0][1][name] + losses[1][1][name], value)
    found = gradients(policy)
    assert found.keys() == expected.keys()
    scale = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * float(scale), msg=name)


def test_losses_of_single_items(config, equal_draws):
    """Without padding and weights the batch's loss is the mean of its items' losses."""
    policy, (before, _) = built(config)
    if not policy.has_item_losses:
        pytest.skip("a loss that is a mean over the batch")
    batch = before(raw_batch(config, size=3))
    loss, info = policy.train()(batch)
    items, _ = policy(batch, reduction="none")
    assert items.shape == (3,) and items.requires_grad and not info["item_losses"].requires_grad
    torch.testing.assert_close(info["item_losses"], items.detach())
    torch.testing.assert_close(items.mean(), loss)


def test_parts_can_be_frozen(config):
    """What is frozen stays, the rest moves, and the optimizer never sees it."""
    policy, (before, _) = built(config)
    part = known_parts(policy)[0]
    frozen = find_part(policy, part, flag="--freeze")
    freeze(policy, [part])
    kept = {name: parameter.detach().clone() for name, parameter in frozen.items()}
    others = {n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad}
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    seen = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not seen & {id(parameter) for parameter in frozen.values()}
    loss, _ = policy.train()(before(raw_batch(config)))
    loss.backward()
    optimizer.step()
    assert all(torch.equal(policy.get_parameter(name), value) for name, value in kept.items())
    assert any(not torch.equal(policy.get_parameter(name), value) for name, value in others.items())


def test_recomputed_activations_give_the_same_gradients(config):
    """`--grad_checkpointing` of every transformer stack, with dropout where the policy has it."""
    if hasattr(config, "dropout"):
        config = replace(config, dropout=0.3)
    policy, (before, _) = built(config)
    batch, found = before(raw_batch(config)), []
    stacks = [module for module in policy.modules() if hasattr(type(module), "grad_checkpointing")]
    if not stacks:
        pytest.skip("nothing in it can recompute")
    for is_on in (False, True):
        if is_on:
            policy.enable_grad_checkpointing()
        torch.manual_seed(0)
        loss, _ = policy.train()(batch)
        loss.backward()
        found.append((loss.detach(), gradients(policy)))
    assert all(stack.grad_checkpointing for stack in stacks)
    assert torch.equal(found[0][0], found[1][0]) and found[0][1].keys() == found[1][1].keys()
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, msg=name)


def test_saved_and_loaded_it_acts_the_same(config, tmp_path):
    policy, pair = built(config)
    for part in (policy, *pair):
        part.save_pretrained(tmp_path)
    loaded = PreTrainedPolicy.from_pretrained(tmp_path, config=PreTrainedConfig.from_pretrained(tmp_path))
    carrying = PreTrainedPolicy.from_pretrained(tmp_path)
    before, after = make_pre_post_processors(loaded.config, tmp_path)
    raw, actions = raw_observation(config), []
    for actor in (policy, loaded, carrying):
        torch.manual_seed(0)
        actor.reset()
        if actor is carrying:
            actions.append(actor.select_action(copy.deepcopy(raw))[None])
        else:
            actions.append(after(actor.select_action(before(copy.deepcopy(raw)))))
    assert actions[0].shape == (1, *config.action_feature.shape) and torch.isfinite(actions[0]).all()
    torch.testing.assert_close(actions[1], actions[0], rtol=0, atol=0)
    torch.testing.assert_close(actions[2], actions[0])


def test_reset_begins_anew(config):
    policy, (before, _) = built(config)
    raw, seen = raw_observation(config), []
    for _ in range(2):
        torch.manual_seed(0)
        policy.reset()
        seen.append(torch.stack([policy.select_action(before(copy.deepcopy(raw))) for _ in range(3)]))
    assert torch.equal(seen[0], seen[1])


def test_batches_are_not_changed(config):
    policy, (before, _) = built(config)
    batch = before(raw_batch(config))
    kept = {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
    policy.train()(batch)
    policy.reset()
    policy.select_action(before(raw_observation(config)))
    assert all(torch.equal(batch[name], value) for name, value in kept.items())


def test_missing_weights_are_an_error(config, tmp_path):
    make_policy(config).save_pretrained(tmp_path)
    path = tmp_path / keys.WEIGHTS_FILE
    weights = load_file(path)
    gone = sorted(weights)[len(weights) // 2]
    save_file({name: value for name, value in weights.items() if name != gone}, path)
    with pytest.raises(CheckpointError, match="1 weights are missing"):
        PreTrainedPolicy.from_pretrained(tmp_path)


def test_a_config_is_a_value(config):
    before = copy.deepcopy(config)
    get_policy_class(config.type)(replace(config))
    assert config == before


@pytest.mark.slow
def test_a_plan_is_one_graph_that_nothing_breaks(config):
    """So it can be compiled, or captured as one CUDA graph: no step reads a value off the device."""
    torch._dynamo.reset()
    policy, counter = make_policy(config).eval(), CompileCounterWithBackend("aot_eager")
    lead = (SIZE, config.n_obs_steps) if policy.looks_back else (SIZE,)
    batch = {name: torch.rand(*lead, *feature.shape) for name, feature in config.input_features.items()}
    compiled = torch.compile(policy.plan, backend=counter, fullgraph=True, dynamic=False)
    plans = []
    for plan in (policy.plan, compiled):
        torch.manual_seed(1)
        with torch.no_grad():
            plans.append(plan(batch))
    assert counter.frame_count == 1
    torch.testing.assert_close(*plans)
    torch._dynamo.reset()
