from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lerobot.core import keys
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy

TOP, SIDE, BACK = (keys.IMAGES_PREFIX + name for name in ("top", "side", "back"))


def vectors_only(**changes) -> ACTConfig:
    """No camera: a model that is built in milliseconds."""
    inputs = {
        keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
        keys.ENV_STATE: PolicyFeature(FeatureType.ENV, (5,)),
    }
    return replace(ACTConfig.tiny(), input_features=inputs, **changes)


def make_batch(config: ACTConfig, size: int = 3) -> dict:
    batch = {name: torch.rand(size, *f.shape) for name, f in config.input_features.items()}
    batch[keys.ACTION] = torch.randn(size, config.chunk_size, *config.action_feature.shape)
    batch[keys.ACTION + keys.PAD_SUFFIX] = torch.zeros(size, config.chunk_size, dtype=torch.bool)
    return batch


# ----------------------------------------------------------------------------------------------------- config
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_backbone": "vit"}, "must be a ResNet"),
        ({"temporal_ensemble_coeff": 0.01, "n_action_steps": 2}, "n_action_steps=1"),
        ({"n_action_steps": 101}, "--policy.n_action_steps=100"),
        ({"n_obs_steps": 2}, "must be 1"),
        ({"feedforward_activation": "glu"}, "halves the width"),
        ({"feedforward_activation": "silu"}, "relu or gelu"),
        ({"dim_model": 510}, "multiple of n_heads"),
        ({"n_heads": 0}, "--policy.n_heads=0: expected at least 1"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        ACTConfig(**changes)


def test_it_needs_something_to_see_and_something_to_do():
    state = {keys.STATE: PolicyFeature(FeatureType.STATE, (3,))}
    with pytest.raises(FeatureMismatchError, match="needs a camera"):
        ACTPolicy(replace(ACTConfig.tiny(), input_features=state))
    with pytest.raises(FeatureMismatchError, match="Train on a dataset that has actions"):
        ACTPolicy(replace(ACTConfig.tiny(), output_features={}))


def test_offsets():
    config = ACTConfig(chunk_size=5, n_action_steps=5)
    assert config.action_delta_indices == [0, 1, 2, 3, 4]
    assert config.observation_delta_indices is None and config.reward_delta_indices is None


# ------------------------------------------------------------------------------------------------------- loss
def test_loss_is_l1_plus_weighted_kl():
    policy = ACTPolicy(vectors_only(kl_weight=3.0)).train()
    batch = make_batch(policy.config)
    torch.manual_seed(1)
    loss, info = policy(batch)
    torch.testing.assert_close(loss, info["l1_loss"] + 3.0 * info["kld_loss"])
    model = policy.model
    mean, log_variance = model.encode_style(batch[keys.ACTION], batch["action_is_pad"], batch[keys.STATE])
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    kld = torch.distributions.kl_divergence(posterior, prior).sum(-1).mean()
    torch.testing.assert_close(info["kld_loss"], kld)
    torch.manual_seed(1)
    plan = model([], state=batch[keys.STATE], env_state=batch[keys.ENV_STATE], style=posterior.rsample())
    torch.testing.assert_close(info["l1_loss"], F.l1_loss(plan, batch[keys.ACTION]))


@pytest.mark.parametrize("training", [True, False])
def test_padded_actions_do_not_touch_the_loss(training):
    policy = ACTPolicy(vectors_only()).train(training)
    batch = make_batch(policy.config)
    batch["action_is_pad"][0, 2:] = True
    batch["action_is_pad"][2, 1:] = True
    torch.manual_seed(0)
    before, _ = policy(batch)
    batch[keys.ACTION][batch["action_is_pad"]] = 1e4
    torch.manual_seed(0)
    torch.testing.assert_close(policy(batch)[0], before)
    batch[keys.ACTION][1, 0] += 1
    torch.manual_seed(0)
    assert not torch.isclose(policy(batch)[0], before)


def test_the_mean_is_over_real_actions_only():
    policy = ACTPolicy(vectors_only(use_vae=False))
    batch = make_batch(policy.config)
    batch["action_is_pad"][:, 1:] = True
    plan = policy.predict_action_chunk(batch)
    wanted = (plan - batch[keys.ACTION])[:, 0].abs().mean()
    torch.testing.assert_close(policy(batch)[0], wanted)
    batch["action_is_pad"][:] = True
    assert policy(batch)[0] == 0


def test_without_training_or_vae_there_is_no_kl():
    batch = make_batch(vectors_only())
    assert "kld_loss" not in ACTPolicy(vectors_only()).eval()(batch)[1]
    plain = ACTPolicy(vectors_only(use_vae=False)).train()
    assert "kld_loss" not in plain(batch)[1]
    assert not any("vae" in name for name in plain.state_dict())


def test_gradients_reach_every_parameter():
    policy = ACTPolicy(ACTConfig.tiny()).train()
    policy(make_batch(policy.config))[0].backward()
    without = {name for name, p in policy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # The first decoder layer begins with zeros, so nothing is multiplied by these.
    first = "model.decoder.layers.0."
    assert without == {
        first + name for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "norm1.weight")
    }


def test_a_missing_entry_is_named():
    policy = ACTPolicy(vectors_only())
    batch = make_batch(policy.config)
    batch["observation.stat"] = batch.pop(keys.STATE)
    with pytest.raises(
        FeatureMismatchError, match="needs 'observation.state'.*Did you mean 'observation.stat'"
    ):
        policy.select_action(batch)


# ---------------------------------------------------------------------------------------------------- cameras
def test_cameras_of_one_size_share_a_pass_and_give_what_separate_ones_give():
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, *hw)) for name, hw in
              {TOP: (32, 32), SIDE: (32, 64), BACK: (32, 32)}.items()}  # fmt: skip
    policy = ACTPolicy(replace(ACTConfig.tiny(), input_features=inputs))
    images = [torch.rand(2, *f.shape) for f in inputs.values()]
    calls = []
    policy.model.backbone.register_forward_hook(lambda net, given, out: calls.append(len(given[0])))
    together = policy.model.look(images)
    assert calls == [4, 2]
    for image, grid in zip(images, together, strict=True):
        torch.testing.assert_close(policy.model.look([image])[0], grid, rtol=1e-4, atol=1e-5)
    assert [tuple(grid.shape[1:]) for grid in together] == [(16, 1, 1), (16, 1, 2), (16, 1, 1)]


def test_the_backbone_has_two_names_and_one_place_in_the_file():
    policy = ACTPolicy(ACTConfig.tiny())
    assert policy.model.vision_backbone is policy.model.backbone
    assert not any("vision_backbone" in name for name in policy.state_dict())


def test_the_backbone_has_its_own_learning_rate_and_can_be_frozen():
    policy = ACTPolicy(replace(ACTConfig.tiny(), optimizer_lr_backbone=0.5))
    rest, backbone = policy.get_optim_params()
    assert backbone["lr"] == 0.5 and "lr" not in rest
    assert len(rest["params"]) + len(backbone["params"]) == len(list(policy.parameters()))
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 0.5]
    for parameter in policy.model.vision_backbone.parameters():
        parameter.requires_grad_(False)
    assert policy.get_optim_params()[1]["params"] == []


# ----------------------------------------------------------------------------------------------------- acting
def test_a_chunk_is_executed_before_the_next_look():
    policy = ACTPolicy(vectors_only(chunk_size=4, n_action_steps=3))
    looks = []
    policy.model.register_forward_hook(lambda model, given, plan: looks.append(plan))
    batch = make_batch(policy.config)
    actions = [policy.select_action(batch) for _ in range(7)]
    assert len(looks) == 3
    torch.testing.assert_close(torch.stack(actions[:3], dim=1), looks[0][:, :3])
    policy.reset()
    policy.select_action(batch)
    assert len(looks) == 4


def test_ensembling_looks_at_every_step():
    policy = ACTPolicy(vectors_only(n_action_steps=1, temporal_ensemble_coeff=0.5))
    batches = [make_batch(policy.config) for _ in range(2)]
    chunks = [policy.predict_action_chunk(batch) for batch in batches]
    torch.testing.assert_close(policy.select_action(batches[0]), chunks[0][:, 0])
    weights = torch.tensor([1.0, torch.tensor(-0.5).exp()])
    wanted = (chunks[0][:, 1] * weights[0] + chunks[1][:, 0] * weights[1]) / weights.sum()
    torch.testing.assert_close(policy.select_action(batches[1]), wanted)


def test_acting_needs_no_actions_and_leaves_no_gradients():
    policy = ACTPolicy(vectors_only()).train()
    batch = {k: v for k, v in make_batch(policy.config).items() if not k.startswith(keys.ACTION)}
    action = policy.select_action(batch)
    assert action.shape == (3, 2) and not action.requires_grad and not policy.training


def test_recomputing_activations_gives_the_same_loss():
    policy = ACTPolicy(vectors_only()).train()
    batch = make_batch(policy.config)
    torch.manual_seed(0)
    before = policy(batch)[0]
    policy.enable_grad_checkpointing()
    assert policy.model.encoder.grad_checkpointing and policy.model.decoder.grad_checkpointing
    torch.manual_seed(0)
    torch.testing.assert_close(policy(batch)[0], before)


def test_every_transformer_layer_is_a_unit():
    units = ACTPolicy(vectors_only(n_encoder_layers=3)).shard_units
    assert [type(unit).__name__ for unit in units] == ["EncoderLayer"] * 4 + ["DecoderLayer"]


def test_initialisation():
    """Matrices of encoder and decoder are Xavier-uniform as a whole: within sqrt(6 / (rows + columns))."""
    torch.manual_seed(0)
    model = ACTPolicy(vectors_only(dim_model=64, dim_feedforward=64)).model
    for name, matrix in [*model.encoder.named_parameters(), *model.decoder.named_parameters()]:
        if matrix.dim() > 1:
            bound = (6 / sum(matrix.shape)) ** 0.5
            assert 0.97 * bound < matrix.abs().max() <= bound, name
    assert model.encoder.layers[0].self_attn.in_proj_bias.abs().max() == 0
    assert 0.8 < model.decoder_pos_embed.weight.std() < 1.2


def test_a_large_chunk_computes_only_the_style_token_that_is_read(monkeypatch):
    policy = ACTPolicy(ACTConfig.tiny()).train()
    batch = make_batch(policy.config)
    losses = []
    for least in (1, 2**60):
        monkeypatch.setattr("lerobot.nn.linear.LEAST_MULTIPLICATIONS", least)
        policy.zero_grad()
        torch.manual_seed(0)
        loss, _ = policy(batch)
        loss.backward()
        losses.append([loss.detach()] + [p.grad for p in policy.parameters() if p.grad is not None])
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
