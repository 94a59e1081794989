"""Flags and files as people write them, read by the real commands' configs."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lerobot.core.aliases import EVAL_ALIASES, TRAIN_ALIASES
from lerobot.core.config import decode, encode
from lerobot.core.errors import ConfigError
from lerobot.core.flags import flags_of, merge, parse, put, read_flags
from lerobot.evaluation import config as evaluation
from lerobot.training import config as training

MUST = ["--dataset.repo_id=me/data", "--policy.type=act"]


def train(*flags: str) -> training.TrainConfig:
    return parse(
        training.TrainConfig,
        flags,
        program="lerobot-train",
        aliases=TRAIN_ALIASES,
        complete=training.complete,
    )


def evaluate(*flags: str) -> evaluation.EvalPipelineConfig:
    return parse(
        evaluation.EvalPipelineConfig,
        flags,
        program="lerobot-eval",
        aliases=EVAL_ALIASES,
        complete=evaluation.complete,
    )


@dataclass(kw_only=True)
class Part:
    size: int = 1  # how large
    name: str = ""  # what it is called


@dataclass(kw_only=True)
class Plain:
    task: str = ""  # what to do
    rate: float = 1.0  # how fast
    is_on: bool = False  # switch
    sizes: list[int] = field(default_factory=list)  # numbers
    rename_map: dict[str, str] = field(default_factory=dict)  # keys
    part: Part = field(default_factory=Part)  # a section
    limit: int | None = 3  # at most
    log_level: str = "INFO"  # level


def plain(*flags: str) -> Plain:
    return parse(Plain, flags, program="plain")


# ------------------------------------------------------------------------------------------- how flags look
def test_both_ways_to_write_a_flag():
    assert plain("--rate=1e-5", "--part.size=3") == plain("--rate", "1e-5", "--part.size", "3")
    assert plain("--rate=1e-5").rate == 1e-5


def test_a_negative_number_is_a_value():
    assert plain("--rate", "-0.5").rate == -0.5
    assert plain("--rate=-2").rate == -2


def test_dashes_are_underscores_in_names_and_not_in_values():
    assert plain("--rename-map={a-b: c-d}", "--is-on").rename_map == {"a-b": "c-d"}


@pytest.mark.parametrize(
    "flags", [["--is_on"], ["--is_on", "--rate=2"], ["--is_on", "True"], ["--is_on=yes"]]
)
def test_a_switch_needs_no_value(flags):
    assert plain(*flags).is_on is True


def test_the_last_of_a_repeated_flag_wins():
    assert plain("--rate=1", "--rate=2").rate == 2


@pytest.mark.parametrize(
    "task",
    [
        "Pick: the cube",
        "it's 'quoted' and \"quoted\"",
        "put it # there",
        "yes",
        "null and void",
        "[bracket] first",
        "{brace} first",
        "include the lid",
        "1e-5",
        "C:\\robot",
        " spaces at both ends ",
        "Würfel greifen 抓取",
        "a=b --rate=3",
        "config.yaml",
    ],
)
def test_task_texts_are_taken_to_the_letter(task):
    assert plain(f"--task={task}").task == task
    assert plain("--task", task).task == task
    assert train(*MUST, f"--task={task}").task == task


def test_keys_with_dots_inside():
    flags = ["--rename_map.observation.images.a=observation.images.b"]
    assert plain(*flags).rename_map == {"observation.images.a": "observation.images.b"}
    cfg = train(*MUST, "--policy.input_shapes.observation.images.top=[3,240,320]")
    assert cfg.input_shapes == {"observation.images.top": (3, 240, 320)}


def test_whole_sections_and_their_fields_in_either_order(tmp_path):
    (tmp_path / "part.yaml").write_text("size: 4\nname: from file\n")
    for whole in (
        "{size: 4, name: from file}",
        "{'size': 4, 'name': 'from file'}",
        str(tmp_path / "part.yaml"),
    ):
        expected = Part(size=5, name="from file")
        assert plain("--part", whole, "--part.size=5").part == expected
        assert plain("--part.size=5", f"--part={whole}").part == expected
        assert plain(f"--part={whole}").part == Part(size=4, name="from file")


def test_a_section_over_the_same_section_in_a_file(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps({"part": {"size": 4, "name": "a"}}))
    (tmp_path / "part.yaml").write_text("size: 5\n")
    cfg = plain(f"--config_path={tmp_path / 'all.json'}", f"--part={tmp_path / 'part.yaml'}")
    assert cfg.part == Part(size=5, name="a")


def test_an_optional_number_can_be_taken_away():
    assert plain("--limit=None").limit is None
    assert plain("--limit", "null").limit is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["batch_size=3"], "'batch_size=3' is not a flag"),
        (["--rate=3", "extra"], "'extra' is not a flag"),
        (["--rats=3"], "--rats is unknown. Did you mean 'rate'. The keys here: is_on, limit"),
        (["--size=3"], "Did you mean --part.size"),
        (["--part.sise=3"], "--part.sise is unknown. Did you mean 'size'. The keys of part: name, size"),
        (["--rate=abc"], "--rate=abc: expected a number, got 'abc'"),
        (["--rate"], "expected a number, got 'true'"),
        (["--sizes=1,2"], "expected a list"),
        (["--rate=3", "--rate.x=4"], "--rate=3 and --rate.x=4 cannot both be given"),
        (["--part=nothing"], "expected a section"),
        (["--part=none.yaml"], "none.yaml cannot be read"),
        (["--log_level=LOUD"], "expected one of DEBUG, INFO, WARNING, ERROR"),
        (["--config_path=none.json"], "--config_path=none.json: there is no such file"),
        (["--config_path=no/where.json"], "Nor is there a folder no."),
        (["--config_path=a.json", "--config=b.json"], "disagree"),
    ],
)
def test_what_a_user_may_do_wrong(flags, said):
    with pytest.raises(ConfigError, match=said):
        plain(*flags)


# ---------------------------------------------------------------------------------------------------- files
GUIDE_ACT = {
    "policy": {
        "type": "act",
        "dim_model": 512,
        "n_heads": 8,
        "n_encoder_layers": 4,
        "n_decoder_layers": 1,
        "chunk_size": 100,
        "n_action_steps": 100,
        "use_vae": True,
        "latent_dim": 32,
        "kl_weight": 10.0,
        "optimizer_lr": 2e-5,
        "dropout": 0.1,
    },
    "dataset": {"repo_id": "user/dataset_name", "video_backend": "pyav"},
    "training": {"batch_size": 32, "steps": 20000, "device": "cuda"},
    "output": {"output_dir": "outputs/train/act_experiment", "job_name": "act_experiment"},
    "wandb": {"enable": True, "project": "lerobot_act"},
}
GUIDE_PARTS = {
    "dataset": {
        "repo_id": "user/dataset_name",
        "video_backend": "pyav",
        "download_videos": True,
        "episodes": None,
        "root": None,
    },
    "policy": {"type": "act"},
    "training": {
        "batch_size": 32,
        "steps": 20000,
        "device": "cuda",
        "num_workers": 4,
        "pin_memory": True,
        "persistent_workers": True,
        "lr": 3e-5,
    },
    "output": {
        "output_dir": "outputs/train/experiment_name",
        "job_name": "experiment_name",
        "save_freq": 1000,
        "eval_freq": 2000,
        "log_freq": 100,
    },
    "wandb": {
        "enable": True,
        "project": "lerobot_training",
        "entity": "your_username",
        "tags": ["act", "manipulation"],
        "notes": "Training ACT on custom dataset",
    },
}


def as_yaml(tree, indent=""):
    """A tree in YAML's block style, by hand, so that the reader is not tested against its own writer."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", as_yaml(value, indent + "  ").rstrip()]
        else:
            lines.append(f"{indent}{key}: {json.dumps(value) if isinstance(value, list) else value}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("flag", ["--config_path", "--config"])
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_the_sectioned_file_of_the_guide(tmp_path, flag, suffix):
    path = tmp_path / f"training_config{suffix}"
    path.write_text(json.dumps(GUIDE_ACT) if suffix == ".json" else as_yaml(GUIDE_ACT))
    cfg = train(f"{flag}={path}")
    assert (cfg.batch_size, cfg.steps, cfg.job_name) == (32, 20000, "act_experiment")
    assert cfg.output_dir == Path("outputs/train/act_experiment")
    assert (cfg.policy.type, cfg.policy.device, cfg.policy.kl_weight) == ("act", "cuda", 10.0)
    assert cfg.optimizer.lr == cfg.policy.optimizer_lr == 2e-5
    assert (cfg.wandb.enable, cfg.wandb.project) == (True, "lerobot_act")


def test_every_section_of_the_guide(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps(GUIDE_PARTS))
    cfg = train(f"--config={tmp_path / 'all.json'}")
    assert (cfg.save_freq, cfg.eval_freq, cfg.log_freq) == (1000, 2000, 100)
    assert (cfg.num_workers, cfg.pin_memory, cfg.persistent_workers) == (4, True, True)
    assert cfg.policy.optimizer_lr == 3e-5
    assert cfg.wandb.tags == ["act", "manipulation"]
    assert cfg.wandb.notes == "Training ACT on custom dataset"


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps(GUIDE_ACT))
    cfg = train(
        f"--config_path={tmp_path / 'all.json'}", "--batch_size=4", "--policy.device=cpu", "--lr=1e-4"
    )
    assert (cfg.batch_size, cfg.steps) == (4, 20000)
    assert (cfg.policy.device, cfg.policy.optimizer_lr) == ("cpu", 1e-4)


def test_the_flat_file_of_a_checkpoint_and_its_folder(tmp_path):
    saved = encode(train(*MUST, "--batch_size=3", "--eval_freq=7", "--optimizer.grad_clip_norm=5"))
    folder = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    folder.mkdir(parents=True)
    (folder / "train_config.json").write_text(json.dumps(saved))
    for path in (folder / "train_config.json", folder, folder.parent, tmp_path / "run"):
        cfg = train(f"--config_path={path}")
        assert (cfg.batch_size, cfg.eval_freq, cfg.optimizer.grad_clip_norm) == (3, 7, 5)


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(ConfigError, match="there is no train_config.json"):
        train(f"--config_path={tmp_path}")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"batch_sise": 3}, "--batch_sise is unknown. Did you mean 'batch_size'"),
        ({"training": {"batch_sise": 3}}, "--batch_sise is unknown"),
        (
            {"policy": {"type": "act", "chunk_sise": 3}},
            "--policy.chunk_sise is unknown. Did you mean 'chunk_size'",
        ),
        ({"policy": {"type": "atc"}}, "called 'atc'. Known: act.* Did you mean 'act'"),
        ({"steps": "many"}, "--steps=many: expected a whole number"),
        ({"steps": 10, "training": {"steps": 20}}, "--training.steps=20 and --steps=10 disagree"),
    ],
)
def test_a_wrong_file(tmp_path, section, said):
    base = {"dataset": {"repo_id": "a/b"}, "policy": {"type": "act"}}
    (tmp_path / "all.json").write_text(json.dumps(base | section))
    with pytest.raises(ConfigError, match=said):
        train(f"--config_path={tmp_path / 'all.json'}")


# -------------------------------------------------------------------------------------------------- aliases
@pytest.mark.parametrize(
    ("flag", "read"),
    [
        ("--policy.lr=1e-4", lambda cfg: cfg.policy.optimizer_lr == 1e-4),
        ("--lr=1e-4", lambda cfg: cfg.policy.optimizer_lr == 1e-4),
        ("--training.lr=1e-4", lambda cfg: cfg.policy.optimizer_lr == 1e-4),
        ("--training.device=cpu", lambda cfg: cfg.policy.device == "cpu"),
        ("--device=cpu", lambda cfg: cfg.policy.device == "cpu"),
        ("--training.batch_size=9", lambda cfg: cfg.batch_size == 9),
        ("--output.output_dir=x/y", lambda cfg: cfg.output_dir == Path("x/y")),
        ("--policy.backbone=resnet34", lambda cfg: cfg.policy.vision_backbone == "resnet34"),
        ("--policy.action_dim=7", lambda cfg: cfg.action_dim == 7),
        ("--policy.num_epochs=3", lambda cfg: cfg.num_epochs == 3),
        ("--grad_clip_norm=2", lambda cfg: cfg.optimizer.grad_clip_norm == 2),
        ("--env_eval_freq=11", lambda cfg: cfg.eval_freq == 11),
        ("--eval_freq=11", lambda cfg: cfg.eval_freq == 11),
        ("--mixed_precision=bf16", lambda cfg: cfg.mixed_precision == "bf16"),
        ("--mixed_precision=true", lambda cfg: cfg.mixed_precision is True),
        ("--lr_scheduler=true", lambda cfg: cfg.scheduler is not None),
    ],
)
def test_other_spellings(flag, read):
    assert read(train(*MUST, flag))


def test_other_spellings_of_eval(tmp_path):
    from lerobot.policies.act.config import ACTConfig

    ACTConfig.tiny().save_pretrained(tmp_path)
    cfg = evaluate("-p", str(tmp_path), "--env.type=so101", "--num_episodes=3")
    assert cfg.policy.type == "act"
    assert cfg.eval.n_episodes == 3
    assert evaluate(f"-p={tmp_path}", "--env.type=so101", "--eval.n_episodes=3") == cfg


def test_a_spelling_and_its_canonical_form():
    assert train(*MUST, "--lr=1e-4", "--policy.optimizer_lr=0.0001").policy.optimizer_lr == 1e-4
    with pytest.raises(ConfigError, match="--lr=1e-4 and --policy.optimizer_lr=1e-5 disagree"):
        train(*MUST, "--lr=1e-4", "--policy.optimizer_lr=1e-5")


def test_what_was_read_as_what_is_said_once(caplog):
    with caplog.at_level(logging.INFO):
        train(*MUST, "--policy.lr=1e-4")
    said = [record.getMessage() for record in caplog.records if record.name == "lerobot.core.aliases"]
    assert said == ["--policy.lr is read as --policy.optimizer_lr"]


def test_the_keypoints_of_a_feature_width():
    from lerobot.core.aliases import POLICY_ALIASES, apply_aliases

    read = apply_aliases(read_flags(["--policy.visual_features=512"]), POLICY_ALIASES)
    assert read == {"policy": {"spatial_softmax_num_keypoints": 256}}
    for wrong in ("511", "0", "many"):
        with pytest.raises(ConfigError, match=f"--policy.visual_features={wrong}"):
            apply_aliases(read_flags([f"--policy.visual_features={wrong}"]), POLICY_ALIASES)


@pytest.mark.parametrize(
    ("typed", "name"), [("pi0.5", "pi05"), ("gr00t", "groot"), ("sac", "gaussian_actor")]
)
def test_names_of_types_in_other_spellings(typed, name):
    from lerobot.policies.config import PreTrainedConfig

    if name in PreTrainedConfig.get_known_choices():
        assert train("--dataset.repo_id=a/b", f"--policy.type={typed}").policy.type == name
    else:  # the policy is not in this release: the message then says the name that was looked for
        with pytest.raises(ConfigError, match=f"no policy called '{name}'"):
            train("--dataset.repo_id=a/b", f"--policy.type={typed}")


# ------------------------------------------------------------------------------------------- there and back
def test_flags_of_a_config_read_back():
    cfg = Plain(
        task="a: b # 'c'",
        rate=1e-5,
        is_on=True,
        sizes=[1],
        rename_map={"a.b": "c: d"},
        part=Part(size=2),
        limit=None,
    )
    assert plain(*flags_of(cfg)) == cfg


def test_merge_leaves_its_arguments_alone():
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, over) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


def test_another_type_replaces_the_section():
    assert merge({"p": {"type": "a", "x": 1}}, {"p": {"type": "b"}}) == {"p": {"type": "b"}}
    assert merge({"p": {"type": "a", "x": 1}}, {"p": {"type": "a", "y": 2}})["p"] == {
        "type": "a",
        "x": 1,
        "y": 2,
    }


def test_put_makes_the_sections_on_its_way():
    tree = {}
    put(tree, ["a", "b", "c"], 1)
    assert tree == {"a": {"b": {"c": 1}}}


def test_one_entry_of_a_mapping_leaves_the_others():
    @dataclass
    class Settings:
        table: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 2})

    def table(*words):
        return decode(Settings, read_flags(words)).table

    assert table("--table.b=3", "--table.c=4") == {"a": 1, "b": 3, "c": 4}
    assert table('--table={"b": 3}') == {"b": 3}  # the whole of it
    assert table() == {"a": 1, "b": 2}
    assert decode(Settings, {"table": {"b": 3}}).table == {"b": 3}  # a file
