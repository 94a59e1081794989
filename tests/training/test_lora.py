"""Adapters: trained on a checkpoint that stays as it is, saved small, loaded, moved, resumed, folded in."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.errors import CheckpointError, ConfigError, MissingExtraError
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.scripts.train import train

peft = pytest.importorskip("peft")

ADAPTED = [
    "--peft.target_modules=[linear1,out_proj]",
    "--peft.r=4",
    "--peft.full_training_modules=[action_head]",
]
SEEN = {"state": torch.full((3,), 0.5), "images": {"top": torch.full((3, 32, 32), 0.5)}}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def base(work, small_dataset, tiny_act):
    """A run of a tiny ACT: what is adapted."""
    words = [f"--dataset.root={small_dataset}", "--dataset.repo_id=local/small", *tiny_act]
    train([*words, "--steps=2", f"--output_dir={work / 'base'}"])
    return work / "base"


@pytest.fixture(scope="module")
def adapt(work, base, small_dataset):
    """Train adapters; `adapt(name, "--steps=8")` gives the run's folder."""

    def run(name: str, *more: str, path=base):
        words = ["--dataset.repo_id=local/small", f"--dataset.root={small_dataset}"]
        words += [f"--policy.path={path}", f"--output_dir={work / name}", "--policy.optimizer_lr=1e-2"]
        words += ["--steps=6", "--batch_size=4", "--num_workers=1", "--log_freq=2", "--save_freq=3"]
        train([*words, *more])
        return work / name

    return run


@pytest.fixture(scope="module")
def adapted(adapt):
    return adapt("adapted", *ADAPTED)


def last(run):
    return run / "checkpoints/last/pretrained_model"


@pytest.mark.slow
def test_a_checkpoint_holds_adapters_alone(adapted, base):
    folder = last(adapted)
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "train_config.json"} <= names
    assert "model.safetensors" not in names
    config = json.loads((folder / "config.json").read_text())
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert config["use_peft"] is True and config["pretrained_path"] == stored["base_model_name_or_path"]
    assert stored["peft_type"] == "LORA" and (stored["r"], stored["lora_alpha"]) == (4, 4)
    assert stored["target_modules"] == ["linear1", "out_proj"] and stored["modules_to_save"] == [
        "action_head"
    ]
    assert stored["inference_mode"] is True and stored["auto_mapping"]["base_model_class"] == "ACTPolicy"
    assert (folder / stored["base_model_name_or_path"]).resolve() == base.resolve()
    weights = load_file(folder / "adapter_model.safetensors")
    assert weights["base_model.model.model.decoder.layers.0.linear1.lora_A.weight"].shape == (4, 16)
    assert weights["base_model.model.model.decoder.layers.0.linear1.lora_B.weight"].abs().sum() > 0
    assert weights["base_model.model.model.action_head.weight"].shape == (3, 16)
    assert not any("linear2" in name for name in weights)


@pytest.mark.slow
def test_loaded_and_folded_in_it_acts_the_same(adapted, base, tmp_path):
    policy = PreTrainedPolicy.from_pretrained(adapted)
    action = policy.select_action(SEEN)
    assert isinstance(policy, ACTPolicy) and policy.adapter is not None
    assert not torch.equal(action, ACTPolicy.from_pretrained(base).select_action(SEEN))
    policy.save_pretrained(tmp_path / "again")
    again = ACTPolicy.from_pretrained(tmp_path / "again")
    assert torch.equal(again.select_action(SEEN), action)
    merged = policy.adapter.merge()
    merged.save_pretrained(tmp_path / "merged")
    assert merged is policy and (tmp_path / "merged/model.safetensors").is_file()
    whole = ACTPolicy.from_pretrained(tmp_path / "merged")
    assert whole.adapter is None and whole.state_dict().keys() == ACTPolicy(whole.config).state_dict().keys()
    torch.testing.assert_close(whole.select_action(SEEN), action, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_package_itself_reads_it(adapted, base):
    """`PeftModel.from_pretrained`, by which other installations load adapters."""
    wanted = ACTPolicy.from_pretrained(adapted).select_action(SEEN)
    plain = ACTPolicy.from_pretrained(base)
    wrapped = peft.PeftModel.from_pretrained(plain, str(last(adapted)))
    torch.testing.assert_close(wrapped.base_model.model.select_action(SEEN), wanted)


@pytest.mark.slow
def test_base_and_adapter_move_together(adapted, base, tmp_path):
    wanted = ACTPolicy.from_pretrained(adapted).select_action(SEEN)
    for run in (adapted, base):
        shutil.copytree(run, tmp_path / "moved" / run.name, symlinks=True)
    shutil.rmtree(base.with_name("gone"), ignore_errors=True)
    base.rename(base.with_name("gone"))
    try:
        assert torch.equal(ACTPolicy.from_pretrained(tmp_path / "moved/adapted").select_action(SEEN), wanted)
        with pytest.raises(CheckpointError, match="base_model_name_or_path of"):
            ACTPolicy.from_pretrained(adapted)
        other = ACTPolicy.from_pretrained(adapted, base=tmp_path / "moved/base")
        assert torch.equal(other.select_action(SEEN), wanted)
    finally:
        base.with_name("gone").rename(base)


@pytest.mark.slow
def test_resumed_it_equals_an_uninterrupted_run(adapt, adapted, work):
    adapt("parts", *ADAPTED, "--steps=3")
    train(["--resume=true", f"--output_dir={work / 'parts'}", "--steps=6"])
    whole, parts = (load_file(last(run) / "adapter_model.safetensors") for run in (adapted, work / "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    stored = json.loads((last(work / "parts") / "adapter_config.json").read_text())
    assert (last(work / "parts") / stored["base_model_name_or_path"]).resolve() == (work / "base").resolve()


@pytest.mark.slow
def test_adapters_are_trained_further(adapt, adapted):
    run = adapt("further", "--steps=2", path=adapted)
    policy = ACTPolicy.from_pretrained(run)
    assert policy.adapter is not None
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in trained) and trained
    with pytest.raises(ConfigError, match="has adapters already"):
        adapt("twice", *ADAPTED, path=adapted)


@pytest.mark.slow
def test_another_method(adapt):
    run = adapt("loha", "--peft.method_type=loha", "--peft.target_modules=linear1", "--peft.r=2", "--steps=2")
    assert any("hada_w1_a" in name for name in load_file(last(run) / "adapter_model.safetensors"))
    assert torch.isfinite(ACTPolicy.from_pretrained(run).select_action(SEEN)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peft.r=4"], r"act does not say which layers to adapt.*--peft.target_modules=\[action_head,"),
        (["--peft.target_modules=[nothing]"], r"Layers that can be adapted end with: action_head"),
        (["--peft.target_modules=[self_attn]"], r"is not supported.*Layers that can be adapted end with"),
        (["--peft.method_type=LORAX"], r"LORAX is unknown. Did you mean 'LORA'"),
        (["--peft.method_type=PREFIX_TUNING"], r"does not adapt layers. Try LORA"),
        ([*ADAPTED, "--peft.init_type=pissa"], r"expected gaussian or orthogonal"),
        ([*ADAPTED[:1], "--peft.full_training_modules=[actoin_head]"], r"no part 'actoin_head'"),
        ([*ADAPTED, "--freeze=[vision_backbone]"], r"leave out --freeze"),
        ([*ADAPTED, "--ema.enable=true"], r"with --peft. Type: --ema.enable=false"),
    ],
)
def test_mistakes(adapt, work, words, message):
    with pytest.raises(ConfigError, match=message):
        adapt("mistake", *words)
    assert not (work / "mistake").exists()


def test_from_scratch_is_an_error(flags, tmp_path):
    with pytest.raises(ConfigError, match="--peft adapts a trained policy"):
        train(flags(tmp_path / "run", *ADAPTED))


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    ACTPolicy(ACTConfig.tiny()).config.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[peft\]'"):
        ACTPolicy.from_pretrained(tmp_path)


def test_weights_of_another_policy_are_an_error(tmp_path):
    policy = ACTPolicy(ACTConfig.tiny())
    policy.save_pretrained(tmp_path / "base")
    from lerobot.policies.adapter import attach

    attach(policy, peft.LoraConfig(r=2, target_modules=["linear1"]), base=str(tmp_path / "base"))
    policy.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(path.read_text().replace('"linear1"', '"linear2"'))
    with pytest.raises(CheckpointError, match="does not fit this policy: .* such as model"):
        ACTPolicy.from_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"and no adapter_model.safetensors"):
        ACTPolicy.from_pretrained(tmp_path / "adapter")
