"""The network of ACT: a conditional VAE whose decoder is a transformer over camera pixels and joints.

Paper: Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware".

    training only: [cls, joints, actions] -> vae_encoder -> mean, log variance -> style z     (otherwise z =
    0) [z, joints, environment, pixels of every camera] -> encoder -> memory T learned queries over the memory
    -> decoder -> T actions

Shapes: B batch, T actions of a chunk, A action size, J joints, C H W image, S tokens, D model width, L style
size. Inside the transformer tensors are sequence first, (S, B, D).
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from lerobot.nn.linear import is_large
from lerobot.nn.position import sinusoid_plane, sinusoid_table
from lerobot.nn.resnet import ResNet
from lerobot.nn.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer
from lerobot.policies.act.config import ACTConfig


class ACT(nn.Module):
    """Plans T actions from cameras, joint positions and a style."""

    zero_style: Tensor
    zero_queries: Tensor
    vae_encoder_pos_enc: Tensor

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.config = config
        width, state, env = config.dim_model, config.robot_state_feature, config.env_state_feature
        if config.use_vae:
            self._build_vae(config)
        if config.image_features:
            self.backbone = ResNet(
                config.vision_backbone, norm="frozen", dilate_last=config.replace_final_stride_with_dilation
            )
        self.encoder = Encoder(
            [
                EncoderLayer(width, config.n_heads, **layer_options(config))
                for _ in range(config.n_encoder_layers)
            ],
            width=width,
            pre_norm=config.pre_norm,
        )
        self.decoder = Decoder(
            [
                DecoderLayer(width, config.n_heads, **layer_options(config))
                for _ in range(config.n_decoder_layers)
            ],
            width=width,
        )
        if state is not None:
            self.encoder_robot_state_input_proj = nn.Linear(state.shape[0], width)
        if env is not None:
            self.encoder_env_state_input_proj = nn.Linear(env.shape[0], width)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, width)
        if config.image_features:
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.out_channels, width, 1)
        num_vectors = 1 + (state is not None) + (env is not None)
        self.encoder_1d_feature_pos_embed = nn.Embedding(num_vectors, width)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, width)
        self.action_head = nn.Linear(width, config.action_feature.shape[0])  # type: ignore[union-attr]
        self.register_buffer("zero_style", torch.zeros(1, config.latent_dim), persistent=False)
        self.register_buffer("zero_queries", torch.zeros(config.chunk_size, 1, width), persistent=False)
        self._planes: dict[tuple, Tensor] = {}
        for stack in (self.encoder, self.decoder):
            for parameter in stack.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def _build_vae(self, config: ACTConfig) -> None:
        width, state = config.dim_model, config.robot_state_feature
        self.vae_encoder = Encoder(
            [
                EncoderLayer(width, config.n_heads, **layer_options(config))
                for _ in range(config.n_vae_encoder_layers)
            ],
            width=width,
            pre_norm=config.pre_norm,
        )
        self.vae_encoder_cls_embed = nn.Embedding(1, width)
        if state is not None:
            self.vae_encoder_robot_state_input_proj = nn.Linear(state.shape[0], width)
        self.vae_encoder_action_input_proj = nn.Linear(config.action_feature.shape[0], width)  # type: ignore[union-attr]
        self.vae_encoder_latent_output_proj = nn.Linear(width, 2 * config.latent_dim)
        num_tokens = 1 + (state is not None) + config.chunk_size
        self.register_buffer("vae_encoder_pos_enc", sinusoid_table(num_tokens, width)[None])  # (1, S, D)

    @property
    def vision_backbone(self) -> ResNet:
        """The network that reads the cameras; freeze it through its parameters."""
        return self.backbone

    def encode_style(
        self, actions: Tensor, action_is_pad: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (B, L) each, of the style in which actions (B, T, A) were demonstrated."""
        num_batch = actions.shape[0]
        tokens = [self.vae_encoder_cls_embed.weight.expand(num_batch, 1, -1)]  # (B, 1, D)
        if state is not None:
            tokens.append(self.vae_encoder_robot_state_input_proj(state)[:, None])  # (B, 1, D)
        tokens.append(self.vae_encoder_action_input_proj(actions))  # (B, T, D)
        is_pad = torch.cat(
            [action_is_pad.new_zeros(num_batch, len(tokens) - 1), action_is_pad], dim=1
        )  # (B, S)
        sequence = torch.cat(tokens, dim=1).transpose(0, 1)  # (S, B, D)
        position = self.vae_encoder_pos_enc.transpose(0, 1)  # (S, 1, D)
        # Only the first token is read. Small recorded runs repeat bit for bit with all of them computed.
        num_out = 1 if is_large(sequence, self.config.dim_feedforward) else None
        tokens_out = self.vae_encoder(sequence, position=position, key_is_pad=is_pad, num_out=num_out)
        summary = tokens_out[0]  # (B, D)
        mean, log_variance = self.vae_encoder_latent_output_proj(summary).chunk(2, dim=-1)  # (B, L)
        return mean, log_variance

    def forward(
        self,
        images: list[Tensor],
        *,
        state: Tensor | None,
        env_state: Tensor | None,
        style: Tensor | None = None,
    ) -> Tensor:
        """T actions (B, T, A) from views (B, 3, H, W), joints (B, J), environment (B, J'), style (B, L).

        `images` are in the order of the input features and may differ in size.
        """
        vectors, pixels = [state, env_state], self.look(images)
        num_batch = next(x.shape[0] for x in [*vectors, *images] if x is not None)
        style = self.zero_style.expand(num_batch, -1) if style is None else style
        tokens = [self.encoder_latent_input_proj(style)]  # (B, D)
        if state is not None:
            tokens.append(self.encoder_robot_state_input_proj(state))
        if env_state is not None:
            tokens.append(self.encoder_env_state_input_proj(env_state))
        planes = [self.plane(grid.shape[2], grid.shape[3]) for grid in pixels]  # (H/32*W/32, 1, D)
        grids = [rearrange(grid, "b d h w -> (h w) b d") for grid in pixels]
        position = torch.cat([self.encoder_1d_feature_pos_embed.weight[:, None], *planes])  # (S, 1, D)
        memory = self.encoder(torch.cat([torch.stack(tokens), *grids]), position=position)  # (S, B, D)
        plan = self.decoder(
            self.zero_queries.expand(-1, num_batch, -1),
            memory,
            position=self.decoder_pos_embed.weight[:, None],
            memory_position=position,
        )  # (T, B, D)
        return self.action_head(plan.transpose(0, 1))  # (B, T, A)

    def look(self, images: list[Tensor]) -> list[Tensor]:
        """Feature maps (B, D, H/32, W/32) of views (B, 3, H, W); views of one size share one pass."""
        maps: list[Tensor | None] = [None] * len(images)
        for size in dict.fromkeys(image.shape[-2:] for image in images):
            members = [i for i, image in enumerate(images) if image.shape[-2:] == size]
            views = images[members[0]] if len(members) == 1 else torch.cat([images[i] for i in members])
            grids = self.encoder_img_feat_input_proj(self.backbone(views))  # (V*B, D, H/32, W/32)
            for i, grid in zip(
                members, grids.chunk(len(members)) if len(members) > 1 else [grids], strict=True
            ):
                maps[i] = grid
        return [grid for grid in maps if grid is not None]

    def plane(self, height: int, width: int) -> Tensor:
        """Positions (H*W, 1, D) of a feature map's cells, computed once per size."""
        weight = self.decoder_pos_embed.weight
        key = (height, width, weight.device, weight.dtype)
        if key in self._planes:
            return self._planes[key]
        plane = sinusoid_plane(height, width, channels=self.config.dim_model, device=weight.device)
        plane = rearrange(plane, "d h w -> (h w) 1 d").to(weight.dtype)
        if not torch.compiler.is_compiling():  # code that changes what it was compiled for is compiled again
            self._planes[key] = plane
        return plane


def layer_options(config: ACTConfig) -> dict:
    """What all transformer layers have in common."""
    return {
        "hidden": config.dim_feedforward,
        "dropout": config.dropout,
        "activation": config.feedforward_activation,
        "pre_norm": config.pre_norm,
    }
