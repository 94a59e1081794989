"""What to evaluate, and on what: the flags of `lerobot-eval` and the `eval.*` section of training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lerobot.core.config import extra
from lerobot.core.errors import ConfigError
from lerobot.core.flags import merge
from lerobot.datasets.source import DatasetConfig
from lerobot.envs.base import EnvConfig
from lerobot.policies.config import PreTrainedConfig, fill_from_checkpoint


@dataclass(kw_only=True)
class EvalConfig:
    """How many episodes, and how many at once."""

    n_episodes: int = 50  # episodes per task
    batch_size: int = 0  # environments stepped together; 0 chooses from the machine's cores
    use_async_envs: bool = True  # step environments in processes of their own; false: in this one
    recording: bool = False  # write datasets of the episodes instead of videos
    recording_repo_id: str | None = None  # Hub id of those datasets
    recording_private: bool = False  # whether that repository is private
    max_videos: int = extra(10)  # episodes per task that leave a video
    num_processes: int = extra(0)  # processes of the environments; 0: from cores and batch_size
    plan_batch_size: int = extra(0)  # plans computed together, part of the result; 0: 1 on a CPU, else 8

    def __post_init__(self) -> None:
        if self.n_episodes < 1:
            raise ConfigError(f"--eval.n_episodes={self.n_episodes}: expected at least 1.")
        for name in ("batch_size", "num_processes", "plan_batch_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--eval.{name}={getattr(self, name)}: expected 0 (automatic) or more.")
        if self.recording_repo_id is not None and not self.recording:
            raise ConfigError(
                f"--eval.recording_repo_id={self.recording_repo_id} is where recordings are uploaded to, and "
                "there are none. Add --eval.recording=true."
            )


@dataclass(kw_only=True)
class EvalPipelineConfig:
    """Measure a trained policy: roll it out in simulation, or replay a dataset; or compare two."""

    policy: PreTrainedConfig | None = None  # the policy; give --policy.path
    env: EnvConfig | None = None  # simulated environment to roll it out in
    dataset: DatasetConfig | None = None  # dataset to compare its actions with
    eval: EvalConfig = field(default_factory=EvalConfig)  # how many episodes
    output_dir: Path | None = None  # folder of the results; null is outputs/eval/<date>/<time>_<job_name>
    job_name: str | None = None  # name of the run; null is made from environment and policy
    seed: int | None = 1000  # seed of the first episode; episode i gets seed + i
    rename_map: dict[str, str] = field(default_factory=dict)  # environment's or dataset's key: policy's key
    trust_remote_code: bool = False  # allow environments whose code comes from the Hub
    compare: str | None = extra(None)  # A,B: two policies for one --env.type, or folders of two evaluations
    task: str | None = extra(None)  # task text given to the policy
    executor: Literal["local", "ray"] = extra("local")  # local (this machine) or ray (a Ray cluster)
    ray_address: str | None = extra(None)  # address of the Ray cluster; null starts one here
    n_jobs: int | None = extra(None)  # actors that share the episodes on Ray; null: one per GPU or 4 CPUs
    batch_size: int = extra(64)  # frames predicted at once when a dataset is replayed
    log_level: str = extra("INFO")  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"--batch_size={self.batch_size}: expected at least 1.")
        self._check_executor()
        if self.compare is not None:
            self._check_comparison()
            return
        if self.policy is None or not self.policy.pretrained_path:
            raise ConfigError(
                "--policy.path must be given: a checkpoint folder, a run folder or a Hub id. "
                "A policy that was never trained is not evaluated."
            )
        if (self.env is None) == (self.dataset is None):
            raise ConfigError(
                "Give --env.type=NAME to roll out in simulation, or --dataset.repo_id=ID to replay a dataset."
            )
        if self.eval.recording and self.env is None:
            raise ConfigError("--eval.recording=true records episodes in simulation: give --env.type=NAME.")

    def _check_executor(self) -> None:
        if self.n_jobs is not None and self.n_jobs < 1:
            raise ConfigError(f"--n_jobs={self.n_jobs}: expected at least 1.")
        for name in ("ray_address", "n_jobs"):
            if getattr(self, name) is not None and self.executor != "ray":
                raise ConfigError(f"--{name}={getattr(self, name)} needs --executor=ray.")
        if self.executor == "ray" and self.env is None:
            raise ConfigError("--executor=ray spreads episodes in simulation: give --env.type=NAME.")
        if self.executor == "ray" and self.eval.recording:
            raise ConfigError("--eval.recording=true writes on this machine: leave out --executor=ray.")

    def _check_comparison(self) -> None:
        if len(self.compared) != 2 or not all(self.compared):
            raise ConfigError(
                f"--compare={self.compare}: expected two names with a comma between them, such as "
                "--compare=outputs/train/a,outputs/train/b"
            )
        if self.dataset is not None:
            raise ConfigError("--compare compares in simulation: give --env.type=NAME, not --dataset.")
        if self.env is not None and self.seed is None:
            raise ConfigError("--compare needs a --seed, so that both policies meet the same episodes.")
        if self.eval.recording:
            raise ConfigError(
                "--compare and --eval.recording=true: evaluate the policies one by one for that."
            )

    @property
    def compared(self) -> tuple[str, ...]:
        """What `--compare` names."""
        return tuple(name.strip() for name in (self.compare or "").split(","))

    @property
    def name(self) -> str:
        """`job_name`, or one made from environment or dataset and policy."""
        where = self.env.type if self.env else "dataset" if self.dataset else "evaluations"
        what = "comparison" if self.policy is None or self.compare is not None else self.policy.type
        return self.job_name or f"{where}_{what}"


def complete(file: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """One tree from a config file and flags, the policy's own config filled in from its checkpoint.

    Without `--policy.device` the best device of this machine is taken, wherever the policy was trained.
    """
    tree = merge(file, {key: value for key, value in flags.items() if key != "config_path"})
    if tree.get("compare") is not None:
        return _with_policy_of_a(tree)
    if isinstance(tree.get("policy"), dict):
        asked = tree["policy"].get("device")
        if str(tree["policy"].get("path")) == "true":  # a flag without a value reads as true
            raise ConfigError(
                "--policy.path (-p) needs a value: a checkpoint folder, a run folder or a Hub id."
            )
        tree["policy"] = {**fill_from_checkpoint(tree["policy"]), "device": asked}
    return tree


def _with_policy_of_a(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a comparison; where policies are to be rolled out, with the config of the first of them.

    Raises:
        ConfigError: a flag that would hold for one of the policies only.
    """
    given = tree.pop("policy", None) or {}
    names = [name for name in given if name != "device"]
    if names:
        raise ConfigError(
            f"--policy.{names[0]} and --compare were both given. --compare=A,B names the policies; of the "
            "flags of a policy only --policy.device holds for both."
        )
    if tree.get("env") is None:
        return tree
    first = str(tree["compare"]).split(",")[0].strip()
    return tree | {"policy": {**fill_from_checkpoint({"path": first}), "device": given.get("device")}}
