from dataclasses import replace

import pytest
import torch
from torch import nn

from lerobot.core import keys
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.nn.draws import Draws
from lerobot.policies.memory import Memory
from lerobot.policies.tdmpc.config import TDMPCConfig, map_size
from lerobot.policies.tdmpc.model import Ensemble, Seen, WorldModel, slow_down, valuation
from lerobot.policies.tdmpc.planner import Planner, lowest
from lerobot.policies.tdmpc.policy import TDMPCPolicy

CAMERA = keys.IMAGES_PREFIX + "top"


def vectors_only(**changes) -> TDMPCConfig:
    """State and environment state, no camera."""
    inputs = {
        keys.STATE: PolicyFeature(FeatureType.STATE, (3,)),
        keys.ENV_STATE: PolicyFeature(FeatureType.ENV, (5,)),
    }
    return replace(TDMPCConfig.tiny(), **{"input_features": inputs, **changes})


def make_batch(config: TDMPCConfig, size: int = 4) -> dict:
    length = config.horizon
    batch = {name: torch.rand(size, length + 1, *f.shape) for name, f in config.input_features.items()}
    batch |= {n + keys.PAD_SUFFIX: torch.zeros(size, length + 1, dtype=torch.bool) for n in list(batch)}
    batch[keys.ACTION] = torch.rand(size, length, *config.action_feature.shape) * 2 - 1
    batch[keys.REWARD] = torch.rand(size, length)
    for name in (keys.ACTION, keys.REWARD):
        batch[name + keys.PAD_SUFFIX] = torch.zeros(size, length, dtype=torch.bool)
    return batch


def observe(config: TDMPCConfig, size: int = 1) -> dict:
    return {name: torch.rand(size, *f.shape) for name, f in config.input_features.items()}


# ----------------------------------------------------------------------------------------------------- config
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_gaussian_samples": 0}, "--policy.n_gaussian_samples=0: expected at least 1"),
        ({"n_pi_samples": -1}, "n_pi_samples=-1: expected at least 0"),
        ({"n_obs_steps": 2}, "--policy.n_obs_steps=1"),
        (
            {"normalization_mapping": {"ACTION": NormalizationMode.MEAN_STD}},
            "scale ACTION by MIN_MAX, not by MEAN_STD",
        ),
        ({"n_action_steps": 2}, "--policy.n_action_repeats=1"),
        ({"n_action_steps": 2, "n_action_repeats": 1, "use_mpc": False}, "one action at a time"),
        ({"n_action_steps": 6, "n_action_repeats": 1}, "--policy.n_action_steps=5"),
        ({"n_elites": 600}, "more than the 563 sequences"),
        ({"q_ensemble_size": 1}, "--policy.uncertainty_regularizer_coeff=0"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        TDMPCConfig(**changes)


def camera(*shape: int) -> PolicyFeature:
    return PolicyFeature(FeatureType.VISUAL, shape)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "needs a camera"),
        ({CAMERA: camera(3, 84, 84), keys.IMAGE: camera(3, 84, 84)}, "looks at one camera"),
        ({CAMERA: camera(3, 84, 96)}, r"84x96.*\[3, 84, 84\]"),
        ({CAMERA: camera(3, 20, 20)}, "too few for four convolutions"),
    ],
)
def test_what_it_cannot_look_at_is_refused(inputs, said):
    with pytest.raises(FeatureMismatchError, match=said):
        TDMPCPolicy(vectors_only(input_features=inputs))


def test_it_needs_something_to_do():
    with pytest.raises(FeatureMismatchError, match="Train on a dataset that has actions"):
        TDMPCPolicy(vectors_only(output_features={}))


def test_offsets():
    config = TDMPCConfig(horizon=3)
    assert config.observation_delta_indices == [0, 1, 2, 3]
    assert config.action_delta_indices == config.reward_delta_indices == [0, 1, 2]


def test_names_and_sizes_of_the_published_network():
    inputs = {
        keys.IMAGE: camera(3, 84, 84),
        keys.STATE: PolicyFeature(FeatureType.STATE, (4,)),
        keys.ENV_STATE: PolicyFeature(FeatureType.ENV, (16,)),
    }
    outputs = {keys.ACTION: PolicyFeature(FeatureType.ACTION, (4,))}
    weights = TDMPCPolicy(TDMPCConfig(input_features=inputs, output_features=outputs)).state_dict()
    assert len(weights) == 208 and round(sum(w.numel() for w in weights.values()) / 1e6, 2) == 5.50
    assert weights["model._encoder.image_enc_layers.9.weight"].shape == (50, 288)
    assert weights["model_target._Qs.4.5.weight"].shape == (1, 512)
    assert not weights["model._Qs.2.5.weight"].any() and not weights["model._reward.6.bias"].any()
    assert map_size(84) == 3


# ------------------------------------------------------------------------------------------------------- loss
def test_a_dataset_without_rewards_is_said():
    policy = TDMPCPolicy(vectors_only())
    batch = make_batch(policy.config)
    del batch[keys.REWARD]
    with pytest.raises(FeatureMismatchError, match=r"no 'next.reward'.*--policy.type=act"):
        policy(batch)


def test_what_is_padding_counts_nothing():
    """After the last frame of an episode nothing of an item changes its loss."""
    policy = TDMPCPolicy(vectors_only()).train()
    batch = make_batch(policy.config)
    for name in (keys.ACTION, keys.REWARD):
        batch[name + keys.PAD_SUFFIX][:, 2:] = True
    for name in policy.config.input_features:
        batch[name + keys.PAD_SUFFIX][:, 3:] = True
    torch.manual_seed(0)
    loss, _ = policy(batch)
    changed = {name: value.clone() for name, value in batch.items()}
    changed[keys.ACTION][:, 2:] += 0.5
    changed[keys.REWARD][:, 2:] += 5.0
    for name in policy.config.input_features:
        changed[name][:, 3:] += 1.0
    torch.manual_seed(0)
    again, _ = policy(changed)
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-6)
    changed[keys.REWARD][:, 1] += 5.0  # this one happened
    assert not torch.allclose(policy(changed)[0], loss)


def test_the_total_is_the_weighted_sum_of_its_parts():
    policy = TDMPCPolicy(vectors_only()).train()
    cfg, (loss, info) = policy.config, policy(make_batch(policy.config))
    scales = {
        "consistency_loss": cfg.consistency_coeff,
        "reward_loss": cfg.reward_coeff,
        "Q_value_loss": cfg.value_coeff,
        "V_value_loss": cfg.value_coeff,
        "pi_loss": cfg.pi_coeff,
    }
    torch.testing.assert_close(loss, sum(scale * info[name] for name, scale in scales.items()))
    torch.testing.assert_close(info["sum_loss"], loss.detach() * cfg.horizon)
    assert info["advantage"].shape == (4,)


def test_only_the_model_learns_and_the_copy_follows():
    policy = TDMPCPolicy(vectors_only()).train()
    policy(make_batch(policy.config))[0].backward()
    assert all(p.grad is not None for p in policy.model.parameters())
    assert all(p.grad is None for p in policy.model_target.parameters())
    before = [p.clone() for p in policy.model_target.parameters()]
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 1.0
    policy.update()
    momentum = policy.config.target_model_momentum
    for old, slow, fast in zip(
        before, policy.model_target.parameters(), policy.model.parameters(), strict=True
    ):
        torch.testing.assert_close(slow, momentum * old + (1 - momentum) * fast)


def test_any_camera_is_read_and_shifted_in_training_alone():
    config = TDMPCConfig.tiny()
    policy, batch = TDMPCPolicy(config), make_batch(config)
    assert policy._seen(batch).image is batch[CAMERA]
    moved = policy._seen(batch, is_sequence=True).image  # (T+1, B, C, H, W)
    assert moved.shape == (4, 4, 3, 48, 48) and not torch.equal(moved, batch[CAMERA].transpose(0, 1))
    still = replace(config, max_random_shift_ratio=0.0)
    assert torch.equal(TDMPCPolicy(still)._seen(batch, is_sequence=True).image, batch[CAMERA].transpose(0, 1))


# --------------------------------------------------------------------------------------------------- ensemble
def test_an_ensemble_is_its_members():
    members = [valuation(7, 16) for _ in range(3)]
    ensemble, x = Ensemble(members), torch.randn(2, 5, 7)
    expected = torch.stack([member(x) for member in members])  # (E, 2, 5, 1)
    torch.testing.assert_close(ensemble(x), expected)
    torch.testing.assert_close(ensemble.at_once(x), expected)  # as on a GPU


def test_of_two_values_the_lower_counts():
    values = torch.tensor([[[3.0]], [[1.0]]])  # (E, N, B)
    assert lowest(values, Draws()).item() == 1.0
    many = torch.arange(5.0)[:, None, None].expand(5, 1, 400)
    torch.manual_seed(0)
    shared = lowest(many, Draws())
    assert len(shared.unique()) == 1  # one pair for all items
    own = lowest(many, Draws([torch.Generator().manual_seed(i) for i in range(400)]))
    # the lower of two of five, with replacement: (9, 7, 5, 3, 1) / 25
    shares = own.flatten().long().bincount(minlength=5) / 400
    torch.testing.assert_close(shares, torch.tensor([9, 7, 5, 3, 1]) / 25, rtol=0, atol=0.08)


# --------------------------------------------------------------------------------------------------- planning
class Line(nn.Module):
    """A known world: the state (1,) moves by the action; the reward is the closeness to 1 after that."""

    def imagine(self, latent, action):
        return latent + 0.25 * action

    def reward(self, latent, action):
        return -(self.imagine(latent, action) - 1).square().sum(-1)

    def react(self, latent):
        return torch.zeros_like(latent)

    def action_values(self, latent, action):
        return torch.zeros(2, *latent.shape[:-1])


def line_config(**changes) -> TDMPCConfig:
    return replace(
        vectors_only(),
        **{"horizon": 4, "n_gaussian_samples": 256, "cem_iterations": 8, "n_elites": 24, **changes},
    )


@pytest.mark.parametrize("begin", [0.0, 2.0, 1.0])
def test_the_plan_finds_what_a_known_world_rewards(begin):
    torch.manual_seed(0)
    plan = Planner(Line(), line_config())(torch.tensor([[begin]]), Draws())
    path = begin + 0.25 * plan.mean.flatten().cumsum(0)  # (T,)
    nearest = torch.tensor([min(max(1 - begin, -0.25 * t), 0.25 * t) + begin for t in range(1, 5)])
    torch.testing.assert_close(path, nearest, rtol=0, atol=0.08)
    assert plan.actions.abs().max() <= 1


def test_doubt_is_avoided():
    class Doubtful(Line):
        """On the right the members of the ensemble disagree."""

        def action_values(self, latent, action):
            doubt = 10 * (latent + action).clamp(min=0).squeeze(-1)
            return torch.stack([doubt, -doubt])

    def first(coeff):
        torch.manual_seed(0)
        config = line_config(uncertainty_regularizer_coeff=coeff)
        return Planner(Doubtful(), config)(torch.zeros(1, 1), Draws()).mean[0].item()

    assert first(0.0) > 0.9 and first(1.0) < 0.1


def test_values_that_are_no_numbers_are_worth_nothing():
    class Broken(Line):
        def reward(self, latent, action):
            return torch.where(action.squeeze(-1) > 0, torch.nan, 1.0)

    plan = Planner(Broken(), line_config())(torch.zeros(1, 1), Draws())
    assert torch.isfinite(plan.mean).all() and (plan.mean[0] < 0).all()


def test_the_next_plan_begins_from_the_last_one():
    """With one round and hardly any spread the plan stays at what it began from."""
    config = line_config(cem_iterations=1, max_std=1e-3, min_std=1e-4, gaussian_mean_momentum=1.0)
    last = torch.linspace(-0.4, 0.4, 4)[:, None, None]  # (T, B, A)
    plan = Planner(Line(), config)(torch.zeros(1, 1), Draws(), last_mean=last)
    torch.testing.assert_close(plan.mean, torch.cat([last[1:], torch.zeros(1, 1, 1)]))


def test_the_warm_start_is_kept_per_episode():
    policy = TDMPCPolicy(vectors_only(n_action_repeats=1)).eval()
    memories = [policy.new_memory(seed=0), policy.new_memory(seed=1)]
    with torch.no_grad():
        policy.act(observe(policy.config, 2), memories)
        first = [memory.kept["mean"].clone() for memory in memories]
        policy.act(observe(policy.config, 2), memories)
    assert first[0].shape == (3, 2) and not torch.equal(first[0], first[1])
    assert all(not torch.equal(m.kept["mean"], old) for m, old in zip(memories, first, strict=True))


def test_episodes_do_not_depend_on_their_company():
    """Three episodes, of which one begins later, act as each of them does alone."""
    torch.manual_seed(0)
    policy = TDMPCPolicy(vectors_only()).eval()
    seen = [observe(policy.config, 3) for _ in range(5)]

    def part(looks, who):
        return {name: value[who] for name, value in looks.items()}

    def alone(i, start):
        memory = policy.new_memory(seed=i)
        return [policy.act(part(looks, [i]), [memory])[0] for looks in seen[start:]]

    with torch.no_grad():
        memories: list[Memory] = [policy.new_memory(seed=i) for i in range(3)]
        together = [policy.act(part(looks, [0, 1]), memories[:2]) for looks in seen[:1]]
        together += [policy.act(looks, memories) for looks in seen[1:]]
        for i, start in ((0, 0), (1, 0), (2, 1)):
            for mine, action in zip(alone(i, start), together[start:], strict=True):
                torch.testing.assert_close(action[i], mine, rtol=1e-4, atol=1e-5)


def test_actions_are_repeated_or_taken_from_the_plan():
    torch.manual_seed(0)
    for changes, kept in (({"n_action_repeats": 3}, 3), ({"n_action_repeats": 1, "n_action_steps": 2}, 2)):
        policy, plans = TDMPCPolicy(vectors_only(**changes)).eval(), []
        original = policy._plan
        policy._plan = lambda *args, original=original, plans=plans: (
            plans.append(original(*args)) or plans[-1]
        )
        actions = torch.stack([policy.select_action(observe(policy.config)) for _ in range(2 * kept)])
        assert len(plans) == 2
        expected = [
            plan[0][:, 0] if "n_action_steps" not in changes else plan[0][:, t]
            for plan in plans
            for t in range(kept)
        ]
        assert torch.equal(actions, torch.stack(expected))


def test_without_planning_it_acts_by_reflex():
    policy = TDMPCPolicy(vectors_only(use_mpc=False)).eval()
    seen = observe(policy.config, 2)
    chunk = policy.predict_action_chunk(seen)
    assert chunk.shape == (2, 1, 2)
    with torch.no_grad():
        reflex = policy.model.react(policy.model.encode(policy._seen(seen)))
    torch.testing.assert_close(policy.select_action(seen), reflex)


def test_it_plans_without_reflexes_and_with_a_lone_critic():
    config = vectors_only(n_pi_samples=0, q_ensemble_size=1, uncertainty_regularizer_coeff=0.0)
    plan = TDMPCPolicy(config).predict_action_chunk(observe(config, 2))
    assert plan.shape == (2, 3, 2) and torch.isfinite(plan).all()


def test_encodings_are_averaged():
    config = vectors_only()
    encoder = WorldModel(config)._encoder
    state, env = torch.rand(2, 3), torch.rand(2, 5)
    one = encoder.state_enc_layers(state), encoder.env_state_enc_layers(env)
    torch.testing.assert_close(encoder(Seen(None, state, env)), (one[0] + one[1]) / 2)


def test_a_slow_copy_moves_slowly():
    fast, slow = nn.Linear(2, 2), nn.Linear(2, 2)
    before = slow.weight.detach().clone()
    slow_down(slow, fast, momentum=0.9)
    torch.testing.assert_close(slow.weight, 0.9 * before + 0.1 * fast.weight)
