"""The network of Diffusion Policy: cameras and joints make a condition, under which noise becomes actions.

Paper: Chi et al. 2023, "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", arXiv:2303.04137.

    O observations -> [joints, keypoints of each camera, environment] -> condition (B, G)
    noise (B, T, A) -> [U-Net under the condition -> a little less noise] x n -> trajectory (B, T, A)

Shapes: B batch, O observation steps, V cameras, T horizon, A action size, J joints, G condition size, n
denoising steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lerobot.nn.conv1d import packed
from lerobot.nn.ddpm import NoiseSchedule, Sampler
from lerobot.nn.draws import Draws
from lerobot.nn.keypoints import KeypointEncoder
from lerobot.nn.unet1d import UNet1d
from lerobot.policies.diffusion.config import DiffusionConfig


class DiffusionModel(nn.Module):
    """Trajectories (B, T, A) from observations (B, O, ...)."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        vectors = (config.robot_state_feature, config.env_state_feature)
        size = sum(feature.shape[0] for feature in vectors if feature is not None)
        num_cameras = len(config.image_features)
        if num_cameras:
            is_separate = config.use_separate_rgb_encoder_per_camera
            encoders = [image_encoder(config) for _ in range(num_cameras if is_separate else 1)]
            self.rgb_encoder = nn.ModuleList(encoders) if is_separate else encoders[0]
            size += num_cameras * encoders[0].feature_size
        self.unet = UNet1d(
            config.action_feature.shape[0],  # type: ignore[union-attr]
            condition_size=config.n_obs_steps * size,
            widths=config.down_dims,
            kernel_size=config.kernel_size,
            num_groups=config.n_groups,
            code_size=config.diffusion_step_embed_dim,
            has_scale=config.use_film_scale_modulation,
        )
        self.unet.grad_checkpointing = config.gradient_checkpointing
        self.schedule = NoiseSchedule(
            config.num_train_timesteps,
            schedule=config.beta_schedule,
            start=config.beta_start,
            end=config.beta_end,
            predicts=config.prediction_type,
        )
        self.sampler = Sampler(
            self.schedule,
            num_steps=config.num_inference_steps or config.num_train_timesteps,
            way=config.noise_scheduler_type,
            clip=config.clip_sample_range if config.clip_sample else None,
        )

    @property
    def encoders(self) -> list[KeypointEncoder]:
        """What reads the cameras: one for each, one for all, or none."""
        return [module for module in self.modules() if isinstance(module, KeypointEncoder)]

    def condition(self, images: Sequence[Tensor], *, state: Tensor, env_state: Tensor | None) -> Tensor:
        """What the observations say, (B, G), from views (B, O, 3, H, W), joints (B, O, J), environment."""
        parts = [state]
        if images:
            parts.append(self.look(images))
        if env_state is not None:
            parts.append(env_state)
        return torch.cat(parts, dim=-1).flatten(1)  # (B, O * sizes)

    def look(self, images: Sequence[Tensor]) -> Tensor:
        """Keypoints (B, O, V * 2K) of views (B, O, 3, H, W); those of one encoder go through it together."""
        num_batch, num_steps = images[0].shape[:2]
        pictures = [image.flatten(0, 1) for image in images]  # (B*O, 3, H, W)
        if self.config.use_separate_rgb_encoder_per_camera:
            features = [encode(one) for encode, one in zip(self.encoders, pictures, strict=True)]
        else:
            encode = self.encoders[0]
            together = pictures[0] if len(pictures) == 1 else torch.cat(pictures)  # (V*B*O, 3, H, W)
            features = list(encode(together).chunk(len(pictures)))
        return torch.cat(features, dim=-1).unflatten(0, (num_batch, num_steps))  # (B, O, V*2K)

    def predict(self, x: Tensor, *, levels: Tensor, condition: Tensor) -> Tensor:
        """What the U-Net says, (B, T, A), about noisy trajectories (B, T, A) of noise levels (B,)."""
        return self.unet(x, self.unet.modulations(levels, condition))

    def sample(self, condition: Tensor, *, draws: Draws, noise: Tensor | None = None) -> Tensor:
        """Trajectories (B, T, A) under conditions (B, G), begun from `noise` (B, T, A) if that is given."""
        size = (len(condition), self.config.horizon, self.config.action_feature.shape[0])  # type: ignore[union-attr]
        x = draws.normal(*size, like=condition) if noise is None else noise
        tables = self.unet.modulation_tables(self.sampler.levels, condition)
        with packed(self.unet, num_runs=self.sampler.num_steps, num_rows=x.shape[0] * x.shape[1]):
            for index in range(self.sampler.num_steps):
                modulations = [of_level[index] + of_condition for of_level, of_condition in tables]
                x = self.sampler.step(x, self.unet(x, modulations), index=index, draws=draws)
        return x


def image_encoder(config: DiffusionConfig) -> KeypointEncoder:
    """A new encoder of the cameras' images."""
    _, height, width = next(iter(config.image_features.values())).shape
    return KeypointEncoder(
        (height, width),
        num_keypoints=config.spatial_softmax_num_keypoints,
        resnet=config.vision_backbone,
        norm="group" if config.use_group_norm else "batch",
        resize=config.resize_shape,
        crop=config.crop_shape,
        crop_is_random=config.crop_is_random,
    )
