import copy
import json
import logging
from dataclasses import fields, replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lerobot.core import keys
from lerobot.core.config import default_of
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.nn.draws import Draws
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.vqbet.config import VQBeTConfig
from lerobot.policies.vqbet.policy import VQBeTPolicy
from tests.training.test_no_waiting import NoWaiting

STATE, ENV = PolicyFeature(FeatureType.STATE, (3,)), PolicyFeature(FeatureType.ENV, (5,))
TOP = keys.IMAGES_PREFIX + "top"
CAMERA = PolicyFeature(FeatureType.VISUAL, (3, 32, 32))
FLAG = "vqbet.action_head.vqvae_model.discretized"


def states_only(**changes) -> VQBeTConfig:
    """No camera: a model that is built in milliseconds."""
    inputs = {keys.STATE: STATE, keys.ENV_STATE: ENV}
    return replace(VQBeTConfig.tiny(), **{"input_features": inputs, "crop_shape": None} | changes)


def make_batch(config: VQBeTConfig, size: int = 4) -> dict:
    looks = config.n_obs_steps
    batch = {name: torch.rand(size, looks, *f.shape) for name, f in config.input_features.items()}
    batch[keys.ACTION] = torch.rand(size, len(config.action_delta_indices), *config.action_feature.shape)
    return batch


def codebooks(policy: VQBeTPolicy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.vqvae.vq_layer.state_dict().items()}


def assert_same(a: dict, b: dict, **how) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, msg=name, **how)


# ----------------------------------------------------------------------------------------------------- config
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_backbone": "vit"}, "must be a ResNet"),
        ({"n_obs_steps": 0}, "--policy.n_obs_steps=0: expected at least 1"),
        ({"n_vqvae_training_steps": -1}, "expected at least 0"),
        ({"bet_softmax_temperature": 0.0}, "expected more than 0"),
        ({"crop_shape": (0, 84)}, "height and width"),
        ({"use_group_norm": True}, "--policy.use_group_norm=false"),
        ({"gpt_n_head": 7}, "multiple of gpt_n_head=7"),
        ({"gpt_block_size": 16}, "--policy.gpt_block_size=17"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        VQBeTConfig(**changes)


def test_defaults_and_offsets():
    config = VQBeTConfig()
    assert config.observation_delta_indices == [-4, -3, -2, -1, 0]
    assert config.action_delta_indices == list(range(-4, 7))
    assert config.reward_delta_indices is None
    assert (config.num_tokens, config.num_chunks, config.n_action_steps) == (17, 7, 5)
    optimizer, schedule = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.type, optimizer.lr, optimizer.betas) == ("adam", 1e-4, (0.95, 0.999))
    assert (schedule.type, schedule.num_warmup_steps) == ("vqbet", 500)
    assert schedule.num_vqvae_training_steps == 20000


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({keys.STATE: STATE}, "Given: observation.state.$"),
        ({TOP: CAMERA}, "Given: observation.images.top.$"),
        ({keys.ENV_STATE: ENV}, "two features"),
        (
            {TOP: CAMERA, keys.IMAGE: CAMERA, keys.STATE: STATE},
            "one camera.*Type, for example: --policy.input",
        ),
        (
            {TOP: CAMERA, keys.ENV_STATE: ENV, keys.STATE: STATE},
            '"observation.images.top": {"type": "VISUAL"',
        ),
        ({TOP: PolicyFeature(FeatureType.VISUAL, (3, 32, 20)), keys.STATE: STATE}, r"'\[32, 20\]'"),
    ],
)
def test_it_looks_at_two_features(inputs, said):
    with pytest.raises(FeatureMismatchError, match=said):
        VQBeTPolicy(replace(VQBeTConfig.tiny(), input_features=inputs))


def test_the_proposed_features_are_accepted():
    inputs = {TOP: CAMERA, keys.IMAGE: CAMERA, keys.STATE: STATE}
    with pytest.raises(FeatureMismatchError) as caught:
        VQBeTPolicy(replace(VQBeTConfig.tiny(), input_features=inputs))
    proposed = json.loads(str(caught.value).split("--policy.input_features='")[1].rstrip("'"))
    tree = VQBeTConfig.tiny().to_tree() | {"input_features": proposed}
    assert list(PreTrainedConfig.from_tree(tree, source="test").input_features) == [TOP, keys.STATE]


def test_it_needs_actions():
    with pytest.raises(FeatureMismatchError, match="Train on a dataset that has actions"):
        VQBeTPolicy(states_only(output_features={}))


def test_defaults_of_older_releases():
    tree = VQBeTConfig.tiny().to_tree()
    changed = ("pretrained_backbone_weights", "use_group_norm", "pretrained_revision", "use_peft")
    old = PreTrainedConfig.from_tree({k: v for k, v in tree.items() if k not in changed}, source="test")
    assert old.pretrained_backbone_weights is None and old.use_group_norm
    said = tree | {"use_group_norm": False}
    del said["pretrained_revision"]
    assert not PreTrainedConfig.from_tree(said, source="test").use_group_norm
    new = {k: v for k, v in tree.items() if k not in changed[:2]}
    by_default = {field.name: default_of(field) for field in fields(VQBeTConfig)}
    now = PreTrainedConfig.from_tree(new, source="test")
    assert all(getattr(now, name) == by_default[name] for name in changed[:2])


# ------------------------------------------------------------------------------------------------------ model
def test_chunks_of_an_item():
    policy = VQBeTPolicy(states_only())  # 3 chunks of 2 actions
    actions = torch.arange(4.0)[None, :, None].expand(1, 4, 2)
    assert policy.vqbet.chunks(actions)[0, :, :, 0].tolist() == [[0, 1], [1, 2], [2, 3]]
    with pytest.raises(FeatureMismatchError, match=r"expected \(B, 4, A\)"):
        policy.vqbet.chunks(actions[:, :3])


def test_names_with_and_without_a_camera():
    seeing = VQBeTPolicy(VQBeTConfig.tiny()).state_dict()
    blind = VQBeTPolicy(states_only()).state_dict()
    assert (
        "vqbet.env_state_projector.0.weight" in blind and "vqbet.env_state_projector.0.weight" not in seeing
    )
    gone = seeing.keys() - blind.keys()
    assert {name.split(".")[1] for name in gone} == {"rgb_encoder", "rgb_feature_projector"}
    assert {"vqbet.action_token", "vqbet.select_target_actions_indices", FLAG} <= seeing.keys()
    steps = {"vqbet.action_head.map_to_cbet_preds_primary_bin.0.weight": (4, 16)}
    steps |= {"vqbet.action_head.map_to_cbet_preds_secondary_bin.0.weight": (4, 20)}
    one_by_one = VQBeTPolicy(states_only(sequentially_select=True)).state_dict()
    assert {name: tuple(one_by_one[name].shape) for name in steps} == steps


def test_a_question_sees_no_later_observation():
    policy = VQBeTPolicy(states_only()).eval()
    batch = make_batch(policy.config)
    later = batch | {keys.STATE: batch[keys.STATE].clone()}
    later[keys.STATE][:, 1] += 1
    with torch.no_grad():
        a, b = policy._features(batch), policy._features(later)
    torch.testing.assert_close(a[:, 0], b[:, 0])
    assert not torch.allclose(a[:, 1], b[:, 1]) and not torch.allclose(a[:, 2], b[:, 2])


@pytest.mark.parametrize("one_by_one", [False, True])
def test_actions_are_those_of_the_codes_and_their_offset(one_by_one):
    policy = VQBeTPolicy(states_only(sequentially_select=one_by_one)).eval()
    head, features = policy.vqbet.action_head, torch.randn(2, 3, 16)
    with torch.no_grad():
        chosen = head(features, Draws())
        table = head.map_to_cbet_preds_offset(features).reshape(2, 3, 2, 4, 2, 2)
    vectors = policy.vqvae.vq_layer.decode(chosen.codes)
    rough = policy.vqvae.decoder(vectors).reshape(2, 3, 2, 2)
    for b in range(2):
        for w in range(3):
            primary, secondary = chosen.codes[b, w].tolist()
            offset = table[b, w, 0, primary] + table[b, w, 1, secondary]
            torch.testing.assert_close(chosen.actions[b, w], rough[b, w] + offset)
            if one_by_one:
                known = torch.cat([features[b, w], torch.eye(4)[primary]])
                logits = head.map_to_cbet_preds_secondary_bin(known)
                torch.testing.assert_close(chosen.logits[b, w, 1], logits)


def test_codes_are_drawn_as_sharply_as_the_temperature_says():
    logits = torch.tensor([0.0, 0.1, 0.0, -9.0]).expand(20000, 4)
    for temperature in (0.1, 1.0):
        head = VQBeTPolicy(states_only(bet_softmax_temperature=temperature)).vqbet.action_head
        share = torch.bincount(head._draw(logits, Draws()), minlength=4) / len(logits)
        torch.testing.assert_close(share, (logits[0] / temperature).softmax(-1), rtol=0, atol=0.02)


# --------------------------------------------------------------------------------------------------- learning
def first_phase(steps: int = 3, **changes) -> VQBeTPolicy:
    return VQBeTPolicy(states_only(n_vqvae_training_steps=steps, **changes)).train()


def test_phase_one_ends_after_its_steps():
    policy = first_phase(3)
    batch = make_batch(policy.config)
    for _ in range(3):
        assert not policy.vqvae.is_discretized
        loss, info = policy(batch)
        assert {"recon_l1_error", "n_different_codes", "n_different_combinations"} <= info.keys()
        loss.backward()
        assert all(p.grad is not None for p in policy.vqvae.parameters())
        assert policy.vqbet.action_token.grad is None
        policy.zero_grad()
        policy.update()  # what the batch showed was taken in at once
    flags = [
        value for name, value in policy.state_dict().items() if name.endswith(("zed", "freeze_codebook"))
    ]
    assert len(flags) == 2 and all(flags)
    kept = codebooks(policy)
    loss, info = policy(batch)
    loss.backward()
    torch.testing.assert_close(loss.detach(), info["classification_loss"] + 10000 * info["offset_loss"])
    assert all(p.grad is None for p in policy.vqvae.parameters())
    assert policy.vqbet.action_token.grad is not None
    assert_same(codebooks(policy), kept)


def test_the_loss_of_phase_one():
    policy = first_phase()
    batch = make_batch(policy.config)
    chunks = policy.vqbet.chunks(batch[keys.ACTION]).flatten(2)
    with torch.no_grad():
        coded = policy.vqvae.encoder(chunks)
        codes = policy.vqvae.encode(chunks)
        first, second = (book(codes[..., i]) for i, book in enumerate(policy.vqvae.vq_layer.codebooks))
        rebuilt = policy.vqvae.decode(codes)
    misses = (coded - first).square().mean() + (coded - first - second).square().mean()
    loss, info = policy(batch)
    torch.testing.assert_close(loss, (chunks - rebuilt).abs().mean() + 5 * misses)
    pairs = codes.flatten(0, 1)
    assert int(info["n_different_combinations"]) == len(pairs.unique(dim=0))
    assert int(info["n_different_codes"]) == sum(len(pairs[:, i].unique()) for i in (0, 1))


def test_looking_at_the_loss_moves_nothing():
    policy = first_phase().eval()
    kept = codebooks(policy)
    loss, _ = policy(make_batch(policy.config))
    policy.update()
    assert loss.isfinite() and policy.vqvae.num_steps == 0
    assert_same(codebooks(policy), kept)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_parts_of_a_step_of_phase_one_equal_the_whole(is_weighted):
    whole = first_phase()
    parts = copy.deepcopy(whole)
    batch = make_batch(whole.config)
    if is_weighted:
        batch[keys.LOSS_WEIGHT] = torch.tensor([1.0, 0.0, 0.5, 2.0])
    loss, info = whole(batch)
    loss.backward()
    pieces = [{name: value[cut] for name, value in batch.items()} for cut in (slice(0, 1), slice(1, 4))]
    each = [parts.loss_totals(piece) for piece in pieces]
    totals = {name: sum(one[name] for one in each) for name in each[0]}
    losses, errors = [], []
    for piece in pieces:
        share, its = parts(piece, totals=totals)
        share.backward()
        losses.append(share.detach())
        errors.append(its["recon_l1_error"])
    assert parts.vqvae.num_steps == 0
    parts.update()
    assert parts.vqvae.num_steps == 1 == whole.vqvae.num_steps
    torch.testing.assert_close(sum(losses), loss.detach())
    torch.testing.assert_close(sum(errors), info["recon_l1_error"])
    assert_same(codebooks(parts), codebooks(whole), rtol=1e-4, atol=1e-5)
    grads = [{n: p.grad for n, p in one.vqvae.named_parameters()} for one in (whole, parts)]
    assert_same(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_losses_of_single_items_in_phase_one():
    policy = first_phase().eval()
    batch = make_batch(policy.config)
    loss, info = policy(batch)
    items, _ = policy(batch, reduction="none")
    assert items.shape == (4,)
    torch.testing.assert_close(items.mean(), loss)
    torch.testing.assert_close(info["item_losses"], items.detach())


@pytest.mark.parametrize("how", ["state dict", "tensor"])
def test_the_phase_is_that_of_the_weights(how):
    policy = first_phase()
    batch = make_batch(policy.config)
    assert "recon_l1_error" in policy(batch)[1]
    if how == "state dict":
        policy.load_state_dict(VQBeTPolicy(states_only()).state_dict())
    else:
        policy.state_dict()[FLAG].fill_(True)
    assert "offset_loss" in policy(batch)[1]
    with torch.inference_mode():
        for twin in (copy.deepcopy(policy), VQBeTPolicy(states_only())):
            assert "offset_loss" in twin(batch)[1]
            twin.state_dict()[FLAG].fill_(False)
            assert "recon_l1_error" in twin.eval()(batch)[1]


def test_nothing_in_a_step_waits_for_the_device():
    policy = first_phase(3)
    batch = make_batch(policy.config)
    policy(batch)  # reads the flag
    with NoWaiting():
        for _ in range(4):
            loss, info = policy(batch)
            loss.backward()
            policy.update()
    assert "offset_loss" in info and policy.vqvae.num_steps == 3


def test_a_resumed_run_goes_on_with_phase_one():
    policy, resumed = first_phase(10), first_phase(10)
    for _ in range(4):
        policy(make_batch(policy.config))
    progress = json.loads(json.dumps(policy.progress()))
    resumed.resume(progress, step=99)
    assert resumed.vqvae.num_steps == 4
    resumed.resume({}, step=7)  # a checkpoint of other releases
    assert resumed.vqvae.num_steps == 7


def test_three_groups_for_the_optimizer():
    policy = VQBeTPolicy(VQBeTConfig.tiny())
    names = {id(p): name for name, p in policy.named_parameters()}
    groups = policy.get_optim_params()
    main, vqvae, vectors = ([names[id(p)] for p in group["params"]] for group in groups)
    assert sorted(main + vqvae + vectors) == sorted(names.values())
    assert (
        main[0] == "vqbet.policy.lm_head.weight"
        and main[-1] == "vqbet.action_head.map_to_cbet_preds_bin.0.bias"
    )
    assert all(name.startswith("vqbet.action_head.vqvae_model.") for name in vqvae)
    assert all(name.endswith("bias") or "ln_" in name or "wpe" in name for name in vectors)
    assert {k: v for k, v in groups[1].items() if k != "params"} == {"lr": 1e-3, "weight_decay": 1e-4}
    assert "lr" not in groups[0] and groups[2]["weight_decay"] == 0.0


@pytest.mark.slow
def test_each_phase_is_compiled_once():
    torch._dynamo.reset()
    policy, counter = first_phase(2), CompileCounterWithBackend("aot_eager")
    eager, batch = copy.deepcopy(policy), make_batch(policy.config)
    policy.compile(backend=counter, fullgraph=True, dynamic=False)
    for _ in range(4):
        losses = []
        for one in (policy, eager):
            torch.manual_seed(1)
            losses.append(one(batch)[0].detach())
            one.update()
        torch.testing.assert_close(*losses)
    torch._dynamo.reset()
    assert counter.frame_count == 2 and policy.vqvae.num_steps == eager.vqvae.num_steps == 2
    assert_same(codebooks(policy), codebooks(eager))


# ----------------------------------------------------------------------------------------------------- acting
def test_it_looks_back_and_executes_whole_chunks(monkeypatch):
    policy = VQBeTPolicy(states_only())
    seen, moments = [], torch.arange(5.0)[:, None, None].expand(5, 1, 3)

    def plan(batch, **how):
        seen.append(batch[keys.STATE][0, :, 0].tolist())
        return torch.arange(2.0)[None, :, None] + 10 * len(seen)

    monkeypatch.setattr(policy, "plan", plan)
    actions = [
        policy.select_action({keys.STATE: m, keys.ENV_STATE: torch.zeros(1, 5)}).item() for m in moments
    ]
    assert actions == [10, 11, 20, 21, 30]
    assert seen == [[0, 0], [1, 2], [3, 4]]


def test_the_plan_is_that_of_the_current_observation():
    policy = VQBeTPolicy(states_only()).eval()
    batch = make_batch(policy.config)
    torch.manual_seed(3)
    plan = policy.plan(batch)
    torch.manual_seed(3)
    chosen = policy.vqbet.action_head(policy._features(batch), Draws())
    assert plan.shape == (4, 2, 2) and torch.equal(plan, chosen.actions[:, 1])


def test_an_episode_acts_the_same_in_any_company():
    policy = VQBeTPolicy(states_only(bet_softmax_temperature=5.0)).eval()
    observations = [
        {name: value[:, 0] for name, value in make_batch(policy.config, 3).items() if name != keys.ACTION}
        for _ in range(4)
    ]
    together = [policy.new_memory(seed=seed) for seed in range(3)]
    alone = policy.new_memory(seed=1)
    with torch.no_grad():
        for observation in observations:
            of_all = policy.act(observation, together)
            of_one = policy.act({name: value[1:2] for name, value in observation.items()}, [alone])
            torch.testing.assert_close(of_all[1:2], of_one)


def test_acting_before_the_codes_are_learned_is_said_once(caplog):
    policy = first_phase(7)
    observation = {keys.STATE: torch.zeros(1, 3), keys.ENV_STATE: torch.zeros(1, 5)}
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            policy.select_action(observation)
    assert [r.message for r in caplog.records if "has not learned its codes" in r.message] == [
        "This VQ-BeT has not learned its codes yet (phase 1 takes 7 steps): what it does means nothing."
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_two_ways_and_takes_both(seed):
    """Half of the demonstrations go up, half down, from the same observations: a mean would do neither."""
    torch.manual_seed(seed)
    widths = dict.fromkeys(("gpt_input_dim", "gpt_hidden_dim", "gpt_output_dim"), 32)
    rates = {"optimizer_lr": 2e-4, "optimizer_vqvae_lr": 3e-3, "bet_softmax_temperature": 0.2}
    config = states_only(n_vqvae_training_steps=300, **widths, **rates)
    policy, up = VQBeTPolicy(config).train(), torch.tensor([0.8, 0.4])
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (700 - k) / 400))
    for _ in range(700):
        batch = make_batch(config, 256)
        batch[keys.ACTION] = (up * (2 * torch.randint(0, 2, (256, 1, 1)) - 1)).expand(256, 4, 2)
        policy(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        fall.step()
    policy.eval()
    with torch.no_grad():
        chosen = policy.vqbet.action_head(policy._features(make_batch(config, 400)), Draws())
        plan = policy.plan(make_batch(config, 400))  # (400, 2, 2)
    for actions, most in ((plan, 0.42), (chosen.rough[:, 1], 0.2)):  # always 0 would be 0.6 away
        side = actions[..., :1].mean(1, keepdim=True).sign()
        assert 0.1 < (side > 0).float().mean() < 0.9
        assert (actions - up * side).abs().mean() < most
