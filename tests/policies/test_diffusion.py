from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounterWithBackend

from lerobot.core import keys
from lerobot.core.errors import ConfigError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.nn.draws import Draws
from lerobot.policies.config import PreTrainedConfig, release_of
from lerobot.policies.diffusion.config import DiffusionConfig
from lerobot.policies.diffusion.policy import DiffusionPolicy
from lerobot.policies.policy import PreTrainedPolicy
from tests.training.test_no_waiting import NoWaiting

TOP, SIDE = (keys.IMAGES_PREFIX + name for name in ("top", "side"))
PAD = keys.ACTION + keys.PAD_SUFFIX
STATE_ONLY = {keys.STATE: PolicyFeature(FeatureType.STATE, (3,))}


def camera(height: int = 40, width: int = 40) -> PolicyFeature:
    return PolicyFeature(FeatureType.VISUAL, (3, height, width))


def vectors_only(**changes) -> DiffusionConfig:
    """No camera: a model that is built in milliseconds."""
    inputs = {**STATE_ONLY, keys.ENV_STATE: PolicyFeature(FeatureType.ENV, (5,))}
    return replace(DiffusionConfig.tiny(), input_features=inputs, **changes)


def two_cameras(**changes) -> DiffusionConfig:
    inputs = {**STATE_ONLY, TOP: camera(), SIDE: camera()}
    return replace(DiffusionConfig.tiny(), input_features=inputs, **changes)


def make_batch(config: DiffusionConfig, size: int = 3) -> dict:
    batch = {n: torch.rand(size, config.n_obs_steps, *f.shape) for n, f in config.input_features.items()}
    batch[keys.ACTION] = torch.rand(size, config.horizon, *config.action_feature.shape)
    batch[PAD] = torch.zeros(size, config.horizon, dtype=torch.bool)
    return batch


# ----------------------------------------------------------------------------------------------------- config
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_backbone": "vit"}, "must be a ResNet"),
        ({"prediction_type": "velocity"}, "epsilon or sample"),
        ({"noise_scheduler_type": "DPM"}, "DDPM or DDIM"),
        ({"beta_schedule": "cosine"}, "squaredcos_cap_v2 or linear"),
        ({"resize_shape": (0, 40)}, "two positive numbers"),
        ({"resize_shape": (40,)}, "two positive numbers"),
        ({"crop_shape": (-1, 40)}, "two positive numbers"),
        ({"crop_ratio": 0.0}, "more than 0 and at most 1"),
        ({"crop_ratio": 1.5}, "more than 0 and at most 1"),
        ({"crop_ratio": 0.01, "resize_shape": (40, 40)}, "leaves nothing"),
        ({"horizon": 60}, "--policy.horizon=64"),
        ({"horizon": 20, "down_dims": (64, 128)}, None),
        ({"n_obs_steps": 65}, "does not reach the current one.*n_obs_steps=2"),
        ({"use_group_norm": True}, "--policy.pretrained_backbone_weights=null"),
        ({"num_inference_steps": 101}, "between 1 and"),
        ({"kernel_size": 4}, "must be odd"),
        ({"n_groups": 7}, "multiples of n_groups=7"),
        ({"down_dims": (12, 24, 48), "n_groups": 4}, "the first one of 8"),
        ({"down_dims": ()}, "one or more positive widths"),
        ({"diffusion_step_embed_dim": 7}, "must be even"),
        ({"drop_n_last_frames": -1}, "expected at least 0"),
        ({"n_obs_steps": 0}, "--policy.n_obs_steps=0: expected at least 1"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    if said is None:
        assert DiffusionConfig(**{"n_action_steps": 8, **changes}).horizon == changes["horizon"]
        return
    with pytest.raises(ConfigError, match=said):
        DiffusionConfig(**changes)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({TOP: camera()}, "needs observation.state"),
        (STATE_ONLY, "needs a camera or"),
        ({**STATE_ONLY, TOP: camera(), SIDE: camera(44)}, "of one size"),
        ({**STATE_ONLY, TOP: camera(30)}, "larger than .*top with 30 x 40"),
    ],
)
def test_what_it_must_see(inputs, said):
    with pytest.raises(FeatureMismatchError, match=said):
        DiffusionPolicy(replace(DiffusionConfig.tiny(), input_features=inputs))


def test_it_needs_something_to_do():
    with pytest.raises(FeatureMismatchError, match="Train on a dataset that has actions"):
        DiffusionPolicy(replace(vectors_only(), output_features={}))


def test_resizing_decides_about_the_crop():
    assert DiffusionConfig(resize_shape=(64, 56), crop_ratio=0.9).crop_shape == (57, 50)
    assert DiffusionConfig(resize_shape=(64, 56), crop_shape=(20, 20)).crop_shape is None
    assert DiffusionConfig(crop_shape=(20, 20)).crop_shape == (20, 20)


def test_offsets_and_presets():
    config = DiffusionConfig(n_obs_steps=3, horizon=8, n_action_steps=4)
    assert config.observation_delta_indices == [-2, -1, 0]
    assert config.action_delta_indices == [-2, -1, 0, 1, 2, 3, 4, 5]
    assert config.reward_delta_indices is None and config.uses_ema and config.drop_n_last_frames == 7
    optimizer, schedule = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.type, optimizer.lr, optimizer.betas) == ("adam", 1e-4, (0.95, 0.999))
    assert (schedule.type, schedule.name, schedule.num_warmup_steps) == ("diffuser", "cosine", 500)


# ------------------------------------------------------------------------------------ files of older releases
CHANGED = ("horizon", "n_action_steps", "crop_shape", "pretrained_backbone_weights", "use_group_norm")
CHANGED += ("use_separate_rgb_encoder_per_camera",)
NOW = (64, 32, None, "ResNet18_Weights.IMAGENET1K_V1", False, True)
ABSENT_BEFORE = {
    (0, 6): (),
    (0, 4, 3): ("pretrained_revision", "gradient_checkpointing"),
    (0, 4): ("pretrained_revision", "gradient_checkpointing", "use_peft", "compile_model", "compile_mode")
    + ("resize_shape", "crop_ratio"),
}
ABSENT_BEFORE[(0, 3)] = (*ABSENT_BEFORE[(0, 4)], "pretrained_path")


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        ((0, 6), NOW),
        ((0, 4, 3), (16, 8, None, None, True, False)),
        ((0, 4), (16, 8, (84, 84), None, True, False)),
        ((0, 3), (16, 8, (84, 84), None, True, False)),
    ],
)
def test_absent_fields_have_the_defaults_of_the_release_that_wrote_the_file(release, wanted):
    tree = {k: v for k, v in DiffusionConfig().to_tree().items() if k not in ABSENT_BEFORE[release]}
    assert release_of(tree) == release
    config = PreTrainedConfig.from_tree({k: v for k, v in tree.items() if k not in CHANGED}, source="a file")
    assert tuple(getattr(config, name) for name in CHANGED) == wanted
    kept = PreTrainedConfig.from_tree(tree, source="a file")
    assert tuple(getattr(kept, name) for name in CHANGED) == NOW


def test_what_a_person_wrote_has_the_defaults_of_now():
    config = PreTrainedConfig.from_tree({"type": "diffusion", "n_obs_steps": 3}, source="a file")
    assert release_of({"type": "diffusion"}) is None
    assert tuple(getattr(config, name) for name in CHANGED) == NOW


def test_fields_are_stored_in_the_published_order():
    names = list(DiffusionConfig().to_tree())
    assert names[:3] == ["type", "n_obs_steps", "input_features"]
    assert names.index("pretrained_revision") < names.index("horizon") < names.index("drop_n_last_frames")


def test_names_that_compiling_left_in_a_file_are_read(tmp_path):
    policy = DiffusionPolicy(vectors_only())
    policy.save_pretrained(tmp_path)
    path = tmp_path / keys.WEIGHTS_FILE
    weights = load_file(path)
    save_file({n.replace("unet.", "unet._orig_mod."): value for n, value in weights.items()}, path)
    again = PreTrainedPolicy.from_pretrained(tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())


@pytest.mark.slow
def test_a_compiled_unet_has_the_same_names():
    plain, compiled = (DiffusionPolicy(vectors_only(compile_model=is_it)) for is_it in (False, True))
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert compiled.diffusion.unet._compiled_call_impl is not None
    assert plain.diffusion.unet._compiled_call_impl is None


# ------------------------------------------------------------------------------------------------------- loss
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_the_loss_is_the_mean_squared_error_of_what_is_predicted(prediction):
    policy = DiffusionPolicy(vectors_only(prediction_type=prediction)).train()
    batch = make_batch(policy.config)
    torch.manual_seed(1)
    loss, info = policy(batch)
    torch.manual_seed(1)
    noise, levels = torch.randn(3, 8, 2), torch.randint(0, 10, (3,))
    model = policy.diffusion
    left = torch.cumprod(1 - torch.tensor(betas(10)), 0)[levels][:, None, None]
    noisy = left.sqrt() * batch[keys.ACTION] + (1 - left).sqrt() * noise
    condition = model.condition([], state=batch[keys.STATE], env_state=batch[keys.ENV_STATE])
    wanted = noise if prediction == "epsilon" else batch[keys.ACTION]
    error = (model.predict(noisy.float(), levels=levels, condition=condition) - wanted).square().mean()
    torch.testing.assert_close(loss, error)
    torch.testing.assert_close(info["mse_loss"], error.detach())


def betas(num: int) -> list[float]:
    from lerobot.nn.ddpm import betas_of

    return betas_of("squaredcos_cap_v2", num_levels=num, start=0.0, end=0.0).tolist()


def test_padding_counts_unless_it_is_masked():
    losses = {}
    for is_masked in (False, True):
        policy = DiffusionPolicy(vectors_only(do_mask_loss_for_padding=is_masked, prediction_type="sample"))
        batch = make_batch(policy.config)
        batch[PAD][0, 3:] = True
        batch[PAD][2] = True
        found = []
        for value in (0.0, 100.0):
            batch[keys.ACTION][2] = value
            torch.manual_seed(0)
            found.append(policy(batch, reduction="none")[0])
        losses[is_masked] = found
    assert losses[True][0][2] == losses[True][1][2] == 0
    assert losses[False][1][2] > 1000 * losses[False][0][2]


def test_the_masked_mean_is_over_real_actions():
    policy = DiffusionPolicy(vectors_only(do_mask_loss_for_padding=True))
    batch = make_batch(policy.config)
    torch.manual_seed(0)
    whole = policy(batch)[1]["item_losses"]
    batch[PAD][1:] = True
    torch.manual_seed(0)
    torch.testing.assert_close(policy(batch)[0].detach(), whole[0])
    batch[PAD][:] = True
    assert policy(batch)[0] == 0


def test_without_masking_no_padding_is_asked_for():
    policy = DiffusionPolicy(vectors_only())
    batch = make_batch(policy.config)
    del batch[PAD]
    assert policy(batch)[0] > 0
    with pytest.raises(FeatureMismatchError, match="action_is_pad"):
        DiffusionPolicy(vectors_only(do_mask_loss_for_padding=True))(batch)


def test_gradients_reach_every_parameter():
    policy = DiffusionPolicy(two_cameras(use_separate_rgb_encoder_per_camera=True)).train()
    policy(make_batch(policy.config))[0].backward()
    assert not [name for name, p in policy.named_parameters() if p.grad is None]


def test_checkpointing_by_config_and_by_flag():
    assert DiffusionPolicy(vectors_only(gradient_checkpointing=True)).diffusion.unet.grad_checkpointing
    policy = DiffusionPolicy(vectors_only())
    assert not policy.diffusion.unet.grad_checkpointing
    policy.enable_grad_checkpointing()
    assert policy.diffusion.unet.grad_checkpointing


def test_wrong_shapes_are_named():
    policy = DiffusionPolicy(vectors_only())
    batch = make_batch(policy.config)
    with pytest.raises(FeatureMismatchError, match=r"n_obs_steps=2 .*\[3, 3\]"):
        policy.plan(batch | {keys.STATE: torch.rand(3, 3)})
    with pytest.raises(FeatureMismatchError, match=r"\(batch, 8, actions\).*\[3, 5, 2\]"):
        policy(batch | {keys.ACTION: torch.rand(3, 5, 2)})
    del batch[keys.ENV_STATE]
    with pytest.raises(FeatureMismatchError, match="needs 'observation.environment_state'"):
        policy(batch)


# ---------------------------------------------------------------------------------------------------- cameras
def test_cameras_of_one_encoder_go_through_it_together():
    policy = DiffusionPolicy(two_cameras()).eval()
    batch, calls, encode = make_batch(policy.config), [], policy.diffusion.rgb_encoder
    encode.backbone.register_forward_hook(lambda net, given, out: calls.append(len(given[0])))
    features = policy.diffusion.look([batch[TOP], batch[SIDE]])
    assert calls == [2 * 3 * 2]
    of_each = features.unflatten(-1, (2, encode.feature_size))  # (B, O, V, 2K)
    for i, name in enumerate((TOP, SIDE)):
        for step in range(2):
            alone = encode(batch[name][:, step])
            torch.testing.assert_close(of_each[:, step, i], alone, rtol=1e-4, atol=1e-5)


def test_an_encoder_for_each_camera():
    policy = DiffusionPolicy(two_cameras(use_separate_rgb_encoder_per_camera=True)).eval()
    assert "diffusion.rgb_encoder.1.backbone.0.weight" in policy.state_dict()
    batch = make_batch(policy.config)
    first = policy.diffusion.look([batch[TOP], batch[SIDE]])
    other = policy.diffusion.look([batch[TOP], torch.rand_like(batch[SIDE])])
    size = policy.diffusion.encoders[0].feature_size
    assert torch.equal(first[..., :size], other[..., :size])
    assert not torch.equal(first[..., size:], other[..., size:])


def test_a_step_of_the_condition_is_joints_cameras_environment():
    policy = DiffusionPolicy(vectors_only())
    batch = make_batch(policy.config)
    condition = policy.diffusion.condition([], state=batch[keys.STATE], env_state=batch[keys.ENV_STATE])
    wanted = [batch[name][:, step] for step in range(2) for name in (keys.STATE, keys.ENV_STATE)]
    assert torch.equal(condition, torch.cat(wanted, dim=1))


# ----------------------------------------------------------------------------------------------------- acting
def plans(policy, batch, seeds) -> torch.Tensor:
    return policy.plan(batch, draws=Draws([torch.Generator().manual_seed(seed) for seed in seeds]))


@pytest.mark.parametrize("way", ["DDPM", "DDIM"])
@torch.no_grad()
def test_a_plan_does_not_depend_on_its_company(way):
    policy = DiffusionPolicy(vectors_only(noise_scheduler_type=way)).eval()
    batch = make_batch(policy.config)
    together = plans(policy, batch, [1, 2, 3])
    for i in range(3):
        alone = plans(policy, {name: value[i : i + 1] for name, value in batch.items()}, [1 + i])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together, plans(policy, batch, [1, 5, 3]))


@torch.no_grad()
def test_ddim_from_given_noise_draws_nothing():
    policy = DiffusionPolicy(vectors_only(noise_scheduler_type="DDIM", num_inference_steps=5)).eval()
    batch, noise = make_batch(policy.config), torch.randn(3, 8, 2)
    before = torch.get_rng_state()
    first = policy.predict_action_chunk(batch, noise=noise)
    assert torch.equal(first, policy.predict_action_chunk(batch, noise=noise))
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == (3, policy.config.n_action_steps, 2)


@torch.no_grad()
def test_the_plan_is_the_part_of_the_trajectory_that_begins_now():
    policy = DiffusionPolicy(vectors_only(noise_scheduler_type="DDIM", n_obs_steps=3)).eval()
    batch, noise = make_batch(policy.config), torch.randn(3, 8, 2)
    condition = policy.diffusion.condition([], state=batch[keys.STATE], env_state=batch[keys.ENV_STATE])
    whole = policy.diffusion.sample(condition, draws=Draws(), noise=noise)
    assert torch.equal(policy.plan(batch, noise=noise), whole[:, 2:6])
    assert whole.abs().max() <= policy.config.clip_sample_range + 1e-5


@torch.no_grad()
def test_chunks_are_executed_before_the_next_look():
    policy = DiffusionPolicy(vectors_only(noise_scheduler_type="DDIM")).eval()
    runs = []
    policy.diffusion.unet.register_forward_hook(lambda net, given, out: runs.append(len(out)))
    for _ in range(9):
        seen = {name: torch.rand(1, *f.shape) for name, f in policy.config.input_features.items()}
        policy.select_action(seen)
    assert len(runs) == 3 * 10  # actions 1 to 4, 5 to 8 and 9, ten denoising steps each


@torch.no_grad()
def test_a_trajectory_may_end_before_the_next_look_was_due(caplog):
    policy = DiffusionPolicy(vectors_only(n_action_steps=32)).eval()
    assert "n_action_steps=32 is more than the 7 actions" in caplog.text
    assert policy.plan(make_batch(policy.config)).shape == (3, 7, 2)


@torch.no_grad()
def test_the_first_look_fills_the_past():
    policy = DiffusionPolicy(vectors_only(noise_scheduler_type="DDIM")).eval()
    seen = {name: torch.rand(1, *f.shape) for name, f in policy.config.input_features.items()}
    past = {name: value[:, None].expand(-1, 2, -1) for name, value in seen.items()}
    chunks = []
    for batch in (seen, past):
        torch.manual_seed(0)
        chunks.append(policy.predict_action_chunk(batch))
    assert torch.equal(chunks[0], chunks[1])


@pytest.mark.parametrize("way", ["DDPM", "DDIM"])
def test_nothing_waits_for_the_device(way):
    policy = DiffusionPolicy(two_cameras(noise_scheduler_type=way))
    batch = make_batch(policy.config)
    with NoWaiting():
        policy.train()(batch)[0].backward()
        with torch.no_grad():
            policy.eval().plan(batch)


# ------------------------------------------------------------------------------------------- beside training
@pytest.mark.slow
def test_adapters_take_part_in_every_denoising_step():
    peft = pytest.importorskip("peft")
    policy = DiffusionPolicy(vectors_only()).eval()
    levels, condition = torch.tensor([9, 3]), torch.randn(2, 16)
    before = policy.diffusion.unet.modulation(levels, condition)
    peft.get_peft_model(policy, peft.LoraConfig(target_modules=policy.adapter_targets, r=2))
    added = {name: p for name, p in policy.named_parameters() if "lora_B" in name}
    assert sum("cond_encoder" in name for name in added) == 8 and len(added) == 8 + 2 * 8 + 1
    for parameter in added.values():
        torch.nn.init.normal_(parameter)
    wanted = policy.diffusion.unet.modulation(levels, condition)
    assert not torch.allclose(wanted, before)
    of_levels, of_condition = policy.diffusion.unet.modulation_terms(levels, condition)
    torch.testing.assert_close(of_levels + of_condition, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_training_step_and_a_denoising_step_are_one_graph_each():
    policy, batch = DiffusionPolicy(two_cameras()).train(), make_batch(two_cameras())
    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(policy.forward, backend=counter, fullgraph=True, dynamic=False)
    torch.manual_seed(0)
    found = step(batch)[0]
    torch.manual_seed(0)
    torch.testing.assert_close(found, policy(batch)[0], rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
    policy.eval().diffusion.unet.compile(backend=counter, fullgraph=True, dynamic=False)
    with torch.no_grad():
        noise = torch.randn(3, 8, 2)
        torch.manual_seed(0)
        found = policy.plan(batch, noise=noise)
        assert counter.frame_count == 2  # ten steps of one graph
        policy.diffusion.unet._compiled_call_impl = None
        torch.manual_seed(0)
        torch.testing.assert_close(policy.plan(batch, noise=noise), found, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------- learning
@pytest.mark.slow
def test_it_learns_to_go_either_way_but_not_between():
    """Demonstrations pass an obstacle on the left or on the right; the mean of both would hit it."""
    torch.manual_seed(0)
    config = vectors_only(down_dims=(32, 64), num_train_timesteps=20, optimizer_lr=4e-3)
    policy = DiffusionPolicy(config).train()
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    steps = torch.linspace(0, 1, config.horizon)

    def demonstrations(size: int) -> dict:
        side = torch.randint(0, 2, (size, 1)) * 2.0 - 1  # left or right
        goal = torch.rand(size, 1) - 0.5  # where to end, which the joints tell
        across = 0.8 * side * torch.sin(torch.pi * steps) + goal * steps
        batch = make_batch(config, size)
        batch[keys.STATE][:] = goal[:, None]
        batch[keys.ACTION] = torch.stack([across, steps.expand(size, -1) * 2 - 1], dim=-1)
        return batch

    for _ in range(400):
        loss, _ = policy(demonstrations(64))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    config.n_action_steps = config.horizon - 1
    batch = demonstrations(200)
    plan = policy.predict_action_chunk(batch)  # (200, 7, 2), of steps 1 to 7
    middle, ends = plan[:, 3, 0] - batch[keys.STATE][:, 0, 0] * steps[4], plan[:, -1, 0]
    assert 0.25 < (middle > 0).float().mean() < 0.75  # both ways are taken
    assert (middle.abs() > 0.5).float().mean() > 0.9  # hardly ever between them
    assert (ends - batch[keys.STATE][:, 0, 0]).abs().mean() < 0.1  # and the goal is reached
