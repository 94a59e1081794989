"""The strings our files and batches use; the only place that spells them."""

# --- features of a dataset frame, an observation, a batch
OBSERVATION = "observation"
OBSERVATION_PREFIX = "observation."
STATE = "observation.state"
ENV_STATE = "observation.environment_state"
IMAGE = "observation.image"
IMAGES = "observation.images"
IMAGES_PREFIX = "observation.images."
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
TRUNCATED = "next.truncated"
SUCCESS = "next.success"
INFO = "info"
TASK = "task"
PAD_SUFFIX = "_is_pad"
DATASET_INDEX = "dataset_index"  # (B,) which dataset of a mixture an item is from
LOSS_WEIGHT = "loss_weight"  # (B,) how much each item of a batch counts in the loss

# --- columns that the dataset writer adds to every frame
TIMESTAMP = "timestamp"
FRAME_INDEX = "frame_index"
EPISODE_INDEX = "episode_index"
INDEX = "index"
TASK_INDEX = "task_index"

# --- files of a checkpoint folder
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
TRAIN_CONFIG_FILE = "train_config.json"
PREPROCESSOR = "policy_preprocessor"
POSTPROCESSOR = "policy_postprocessor"
PRETRAINED_FOLDER = "pretrained_model"
TRAINING_STATE_FOLDER = "training_state"
CHECKPOINTS_FOLDER = "checkpoints"
LAST_LINK = "last"
BEST_LINK = "best"

# --- files of a dataset folder
INFO_FILE = "meta/info.json"
STATS_FILE = "meta/stats.json"
TASKS_FILE = "meta/tasks.parquet"
SKETCHES_FILE = "meta/sketches/dataset.json"
EPISODE_SKETCHES_FILE = "meta/sketches/episodes.jsonl"

# --- files of datasets from before format v3.0
EPISODES_JSONL = "meta/episodes.jsonl"
TASKS_JSONL = "meta/tasks.jsonl"
EPISODES_STATS_JSONL = "meta/episodes_stats.jsonl"
