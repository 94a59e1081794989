"""The model card of a published policy: README.md of its Hub repository."""

import json
from pathlib import Path

import yaml

from lerobot.core import keys
from lerobot.policies.config import PreTrainedConfig

BASE_MODELS = {
    "smolvla": "lerobot/smolvla_base",
    "pi0": "lerobot/pi0_base",
    "pi05": "lerobot/pi05_base",
    "pi0_fast": "lerobot/pi0fast-base",
    "xvla": "lerobot/xvla-base",
}
DEFAULT_LICENSE = "apache-2.0"

BODY = """# {type} policy

A robot policy trained with [LeRobot](https://github.com/huggingface/lerobot).

| feature | kind | shape |
|---|---|---|
{features}
{training}
## Use

```bash
lerobot-eval --policy.path={repo_id} --env.type=...
```

```python
from lerobot.policies.policy import PreTrainedPolicy

policy = PreTrainedPolicy.from_pretrained("{repo_id}")
action = policy.select_action(observation)  # raw observation in, action in the robot's units out
```
"""


def model_card(config: PreTrainedConfig, repo_id: str, *, folder: Path | None = None) -> str:
    """README.md of the policy; facts of its training come from `train_config.json` in `folder`."""
    training = read_training(folder) if folder else {}
    repo = (training.get("dataset") or {}).get("repo_id")  # a name, or the names of a mixture
    names = [repo] if isinstance(repo, str) else repo or []
    header = {
        "license": config.license or DEFAULT_LICENSE,
        "library_name": "lerobot",
        "pipeline_tag": "robotics",
        "model_name": config.type,
        "tags": list(dict.fromkeys(["robotics", "lerobot", config.type, *(config.tags or [])])),
        **({"datasets": repo} if names else {}),
        **({"base_model": BASE_MODELS[config.type]} if config.type in BASE_MODELS else {}),
    }
    features = {**config.input_features, **config.output_features}
    rows = [f"| `{name}` | {f.type} | {list(f.shape)} |" for name, f in features.items()]
    facts = {
        name: training.get(name) for name in ("steps", "batch_size", "seed") if training.get(name) is not None
    }
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    body = BODY.format(
        type=config.type,
        repo_id=repo_id,
        features="\n".join(rows),
        training="\n## Training\n\n" + "\n".join([*(f"- dataset: {name}" for name in names), *lines]) + "\n"
        if training
        else "",
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{body}"


def read_training(folder: Path) -> dict:
    """The training config stored with a policy, or nothing."""
    path = folder / keys.TRAIN_CONFIG_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
