"""What is learnt in the learning benchmarks, and how: tasks, and policies for pictures and for states.

A value here is what stands behind the flag of a command; nothing else is set, so a row can be typed by hand.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Task:
    """A task: flags of its environment, demonstrations to collect, and what its policies look at."""

    env: dict[str, object]
    sees: str  # pictures or states: which settings of a policy are taken
    episodes: int = 60
    collect: dict[str, object] = field(default_factory=dict)
    videos: int = 0  # of an evaluation; some simulators draw a picture a second


@dataclass(frozen=True)
class Recipe:
    """How a policy is trained: flags of `lerobot-train`, the policy's own apart."""

    policy: dict[str, object]
    train: dict[str, object]


def metaworld(task: str, **more: object) -> Task:
    """One of Meta-World's tasks, from states."""
    return Task({"type": "metaworld", "task": task, "obs_type": "state"}, sees="states", **more)  # type: ignore[arg-type]


TASKS = {
    "so101": Task({"type": "so101", "difficulty": "easy"}, sees="pictures", videos=5),
    "so101-front": Task(  # one camera, which is all that VQ-BeT looks at
        {"type": "so101", "difficulty": "easy", "cameras": "[front]"},
        sees="pictures",
        episodes=150,
        videos=5,
    ),
    "push": metaworld("push-v3"),
    "door-open": metaworld("door-open-v3"),
    "drawer-open": metaworld("drawer-open-v3"),
    "pick-place": metaworld("pick-place-v3"),
    "pusht": Task(
        {"type": "pusht", "obs_type": "environment_state_agent_pos"},
        sees="states",
        episodes=400,
        collect={"num_processes": 2},
    ),
    "pusht-pictures": Task(
        {"type": "pusht", "observation_height": 96, "observation_width": 96},
        sees="pictures",
        episodes=400,
        collect={"num_processes": 2},
        videos=5,
    ),
    "aloha-transfer": Task(
        {"type": "aloha", "task": "AlohaTransferCube-v0", "fast_rendering": "true"},
        sees="pictures",
        episodes=50,
        collect={"num_processes": 2},
        videos=5,
    ),
}


SCALE = "normalization_mapping.ENV"  # by default the environment's state stays as it is
COSINE = {"lr_scheduler": "diffuser", "scheduler.name": "cosine", "scheduler.num_warmup_steps": 50}
SMALL_ACT = {
    "chunk_size": 20,
    "n_action_steps": 10,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 256,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "latent_dim": 16,
    "dropout": 0.0,
    "optimizer_lr": 1e-3,
}
SMALL_DIFFUSION = {
    "horizon": 16,
    "n_action_steps": 8,
    "down_dims": "[64,128,256]",
    "diffusion_step_embed_dim": 64,
    "noise_scheduler_type": "DDIM",
    "num_inference_steps": 10,
    "optimizer_lr": 1e-3,
    "scheduler_warmup_steps": 100,
}
SMALL_VQBET = {
    "n_obs_steps": 2,
    "action_chunk_size": 5,
    "n_action_pred_token": 3,
    "n_vqvae_training_steps": 1000,
    "sequentially_select": "true",
    "vqvae_embedding_dim": 64,
    "gpt_input_dim": 128,
    "gpt_output_dim": 128,
    "gpt_hidden_dim": 128,
    "gpt_n_layer": 3,
    "gpt_n_head": 4,
    "gpt_block_size": 50,
    "dropout": 0.0,
    "optimizer_lr": 1e-3,
    "scheduler_warmup_steps": 100,
}
SMALL_EYES = {"vision_backbone": "resnet10", "pretrained_backbone_weights": "null"}
# One look, and all of the picture: random crops hide where things are, which costs more steps than they save.
GROUPED_EYES = {**SMALL_EYES, "use_group_norm": "true", "crop_shape": "null", "n_obs_steps": 1}

RECIPES = {
    ("act", "pictures"): Recipe(
        {**SMALL_ACT, **SMALL_EYES, "optimizer_lr_backbone": 1e-3},
        {"batch_size": 16, "steps": 1000, **COSINE},
    ),
    ("act", "states"): Recipe(
        {**SMALL_ACT, "chunk_size": 10, "n_action_steps": 5, "use_vae": "false", SCALE: "MEAN_STD"},
        {"batch_size": 64, "steps": 4000, **COSINE},
    ),
    ("diffusion", "pictures"): Recipe(  # the U-Net says the actions: far fewer steps than saying the noise
        {**SMALL_DIFFUSION, **GROUPED_EYES, "prediction_type": "sample"}, {"batch_size": 16, "steps": 2000}
    ),
    ("diffusion", "states"): Recipe(
        {**SMALL_DIFFUSION, "n_action_steps": 5, SCALE: "MIN_MAX"}, {"batch_size": 64, "steps": 5000}
    ),
    ("vqbet", "pictures"): Recipe({**SMALL_VQBET, **GROUPED_EYES}, {"batch_size": 16, "steps": 5000}),
    ("vqbet", "states"): Recipe({**SMALL_VQBET, SCALE: "MIN_MAX"}, {"batch_size": 64, "steps": 4000}),
}
