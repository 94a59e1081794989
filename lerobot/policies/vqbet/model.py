"""The networks of VQ-BeT: a residual VQ-VAE that makes codes of chunks of actions, and a GPT that picks some.

Paper: Lee et al. 2024, "Behavior Generation with Latent Actions".

    phase 1:  chunk -> VQVAE.encoder -> nearest codes -> VQVAE.decoder -> chunk
    phase 2:  [eye, state, ?] of each observation, [?] of each later prediction -> GPT -> feature of each ?
              feature -> logits -> drawn codes -> VQVAE.decoder -> chunk;   + feature -> offset of these codes

Shapes: B batch, O observations, W chunks of an item, c actions of a chunk, A action size, J state size,
D width of a token, F of a feature, G layers of codes, K entries of a codebook. The eye is a camera, or an
environment state.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.errors import FeatureMismatchError
from lerobot.nn.draws import Draws
from lerobot.nn.gpt import GPT
from lerobot.nn.keypoints import KeypointEncoder
from lerobot.nn.resnet import NumberedResNet
from lerobot.nn.vq import Quantised, ResidualVQ
from lerobot.policies.vqbet.config import TOKENS_PER_LOOK, VQBeTConfig

NUM_LAYERS = 2  # of codes: a primary and a secondary one


class VQBeT(nn.Module):
    """Features of the chunks to predict from what was seen; the head below makes actions of them."""

    select_target_actions_indices: Tensor  # (W, c) int64, which actions of an item are each chunk's
    question_positions: Tensor  # (W,) int64, the tokens whose outputs are features of chunks

    def __init__(self, config: VQBeTConfig) -> None:
        super().__init__()
        self.config = config
        width, env, state = config.gpt_input_dim, config.env_state_feature, config.robot_state_feature
        assert state is not None
        self.action_token = nn.Parameter(torch.randn(1, 1, width))  # the question: which actions?
        starts, steps = torch.arange(config.num_chunks), torch.arange(config.action_chunk_size)
        self.register_buffer("select_target_actions_indices", starts[:, None] + steps)
        asked = TOKENS_PER_LOOK * torch.arange(1, config.n_obs_steps + 1) - 1
        later = torch.arange(TOKENS_PER_LOOK * config.n_obs_steps, config.num_tokens)
        self.register_buffer("question_positions", torch.cat([asked, later]), persistent=False)
        if config.image_features:
            self.rgb_encoder = keypoint_encoder(config)
        self.state_projector = nn.Sequential(nn.Linear(state.shape[0], width))
        if config.image_features:
            self.rgb_feature_projector = nn.Sequential(nn.Linear(self.rgb_encoder.feature_size, width))
        else:  # ours: no published file has it
            assert env is not None
            self.env_state_projector = nn.Sequential(nn.Linear(env.shape[0], width))
        self.policy = GPT(
            num_layers=config.gpt_n_layer,
            num_heads=config.gpt_n_head,
            width=config.gpt_hidden_dim,
            width_in=width,
            width_out=config.gpt_output_dim,
            num_positions=config.gpt_block_size,
            dropout=config.dropout,
        )
        self.action_head = ActionHead(config)

    @property
    def vision_backbone(self) -> NumberedResNet:
        """The network that reads the camera; freeze it through its parameters."""
        return self.rgb_encoder.backbone

    def chunks(self, actions: Tensor) -> Tensor:
        """The chunks (B, W, c, A) of an item's actions (B, W+c-1, A), each a step later than the one before.

        Raises:
            FeatureMismatchError: there are more or fewer actions.
        """
        wanted = len(self.config.action_delta_indices)
        if actions.dim() != 3 or actions.shape[1] != wanted:
            raise FeatureMismatchError(
                f"{keys.ACTION} has shape {tuple(actions.shape)}; expected (B, {wanted}, A): the actions of "
                f"{self.config.n_obs_steps} observations, {self.config.n_action_pred_token} predictions and "
                f"a chunk of {self.config.action_chunk_size}. Read the dataset with this policy's deltas."
            )
        return actions[:, self.select_target_actions_indices]  # (B, W, c, A)

    def forward(self, eye: Tensor, state: Tensor) -> Tensor:
        """Features (B, W, F) of all chunks; `eye` is (B, O, 3, H, W) or (B, O, E), the state (B, O, J)."""
        num_batch, num_looks = state.shape[:2]
        if self.config.image_features:
            places = self.rgb_encoder(eye.flatten(0, 1)).unflatten(0, (num_batch, num_looks))  # (B, O, 2K)
            seen = self.rgb_feature_projector(places)
        else:
            seen = self.env_state_projector(eye)  # (B, O, D)
        questions = self.action_token.expand(num_batch, self.config.num_chunks, -1)  # (B, W, D)
        looks = torch.stack([seen, self.state_projector(state), questions[:, :num_looks]], dim=2)
        tokens = torch.cat([looks.flatten(1, 2), questions[:, num_looks:]], dim=1)  # (B, S, D)
        return self.policy(tokens, at=self.question_positions)  # (B, W, F)


def keypoint_encoder(config: VQBeTConfig) -> KeypointEncoder:
    """The encoder of the one camera."""
    (camera,) = config.image_features.values()
    _, height, width = camera.shape
    return KeypointEncoder(
        (height, width),
        num_keypoints=config.spatial_softmax_num_keypoints,
        resnet=config.vision_backbone,
        norm="group" if config.use_group_norm else "batch",
        crop=config.crop_shape,
        crop_is_random=config.crop_is_random,
    )


class Choice(NamedTuple):
    """Codes that were drawn for chunks, and what becomes of them."""

    logits: Tensor  # (B, W, G, K)
    codes: Tensor  # (B, W, G) int64
    rough: Tensor  # (B, W, c, A) the codes' own actions, without gradient
    actions: Tensor  # (B, W, c, A) with the offset


class ActionHead(nn.Module):
    """Features of chunks -> codes, and offsets from the actions that the codes stand for."""

    def __init__(self, config: VQBeTConfig) -> None:
        super().__init__()
        assert config.action_feature is not None
        self.config, width, num_codes = config, config.gpt_output_dim, config.vqvae_n_embed
        self.chunk_shape = (config.action_chunk_size, config.action_feature.shape[0])  # c, A
        size = config.action_chunk_size * config.action_feature.shape[0]
        self.vqvae_model = VQVAE(config, size=size)
        if config.sequentially_select:
            self.map_to_cbet_preds_primary_bin = nn.Sequential(nn.Linear(width, num_codes))
            self.map_to_cbet_preds_secondary_bin = nn.Sequential(nn.Linear(width + num_codes, num_codes))
        else:
            self.map_to_cbet_preds_bin = nn.Sequential(nn.Linear(width, NUM_LAYERS * num_codes))
        self.map_to_cbet_preds_offset = nn.Sequential(nn.Linear(width, NUM_LAYERS * num_codes * size))

    def forward(self, features: Tensor, draws: Draws) -> Choice:
        """Draw codes for features (B, W, F) and make actions of them."""
        logits, codes = self._codes(features, draws)
        offsets = self.map_to_cbet_preds_offset(features)  # (B, W, G*K*c*A)
        table = rearrange(
            offsets, "b w (g k c a) -> b w g k c a", g=NUM_LAYERS, k=logits.shape[-1], c=self.chunk_shape[0]
        )
        rows = codes[..., None, None, None].expand(-1, -1, -1, 1, *self.chunk_shape)
        offset = table.gather(3, rows).squeeze(3).sum(2)  # (B, W, c, A)
        rough = self.vqvae_model.decode(codes).unflatten(-1, self.chunk_shape)
        return Choice(logits, codes, rough, rough + offset)

    def _codes(self, features: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Logits (B, W, G, K) and drawn codes (B, W, G)."""
        if not self.config.sequentially_select:
            logits = self.map_to_cbet_preds_bin(features).unflatten(-1, (NUM_LAYERS, -1))  # (B, W, G, K)
            return logits, self._draw(logits, draws)
        first = self.map_to_cbet_preds_primary_bin(features)  # (B, W, K)
        primary = self._draw(first, draws)  # (B, W)
        chosen = nn.functional.one_hot(primary, first.shape[-1]).to(features)  # (B, W, K)
        second = self.map_to_cbet_preds_secondary_bin(torch.cat([features, chosen], dim=-1))  # (B, W, K)
        codes = [primary, self._draw(second, draws)]
        return torch.stack([first, second], dim=2), torch.stack(codes, dim=2)

    def _draw(self, logits: Tensor, draws: Draws) -> Tensor:
        """A code (...) of each distribution (..., K)."""
        with torch.no_grad():
            return draws.categories((logits.float() / self.config.bet_softmax_temperature).softmax(-1))


class VQVAE(nn.Module):
    """Chunks (..., c*A) as codes (..., G) and back; learns in phase 1 and is a constant in phase 2."""

    discretized: Tensor  # () bool, whether phase 1 is over

    def __init__(self, config: VQBeTConfig, *, size: int) -> None:
        super().__init__()
        hidden, width = config.vqvae_enc_hidden_dim, config.vqvae_embedding_dim
        self.num_training_steps = config.n_vqvae_training_steps
        self.num_steps = 0  # of phase 1, taken so far
        self.register_buffer("discretized", torch.tensor(False))
        self.vq_layer = ResidualVQ(width, num_codes=config.vqvae_n_embed, num_layers=NUM_LAYERS)
        self.encoder = three_layers(size, hidden, width)
        self.decoder = three_layers(width, hidden, size)
        self._is_discretized, self._flag_as_read = False, (0, -1)
        if self.num_training_steps == 0:
            self.finish()

    @property
    def is_discretized(self) -> bool:
        """Whether phase 1 is over; a device is asked only after the flag was written to."""
        flag = self.discretized
        if torch.compiler.is_compiling():
            return self._is_discretized
        if flag.is_inference() or self._flag_as_read != state_of(flag):
            self._is_discretized, self._flag_as_read = bool(flag), state_of(flag)
        return self._is_discretized

    def forward(self, chunks: Tensor, *, weight: Tensor | None = None) -> tuple[Tensor, Quantised]:
        """Chunks (N, c*A) as their codes have them, and the codes; in training mode these learn from it."""
        quantised = self.vq_layer(self.encoder(chunks), weight=weight)
        return self.decoder(quantised.vectors), quantised

    @torch.no_grad()
    def encode(self, chunks: Tensor) -> Tensor:
        """Codes (..., G) of chunks (..., c*A)."""
        return self.vq_layer.encode(self.encoder(chunks))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Chunks (..., c*A) of codes (..., G)."""
        return self.decoder(self.vq_layer.decode(codes))

    def advance(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """End a step of phase 1: move the codebooks by what it showed them; the last one ends the phase."""
        if self.vq_layer.collected is None:
            return
        self.vq_layer.advance(add_up)
        self.num_steps += 1
        if self.num_steps >= self.num_training_steps:
            self.finish()

    def finish(self) -> None:
        """Begin phase 2: from now on codes mean what they mean."""
        self.discretized.fill_(True)
        self.vq_layer.freeze_codebook.fill_(True)
        self._is_discretized, self._flag_as_read = True, state_of(self.discretized)


def state_of(flag: Tensor) -> tuple[int, int]:
    """What differs once a flag was written to, or replaced; of inference mode's tensors nothing tells."""
    return id(flag), -1 if flag.is_inference() else flag._version


def three_layers(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    """A small net: (..., width_in) -> (..., width_out)."""
    return nn.Sequential(
        nn.Linear(width_in, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, width_out),
    )
