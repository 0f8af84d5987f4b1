"""The backbone of both networks: CogVideoX's image-to-video transformer (Yang et al. 2024).

latents (B, T, C, H, W), text (B, L, text_dim), timesteps (B,)
  -> text tokens (B, L, D), video tokens (B, T, n, D), each plus its learned position
  -> blocks, which know the time and where each token is
  -> norm, modulation, linear -> velocity (B, T, out_channels, H, W)
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from training.model import positions
from training.model.block import NORM_EPS, Block, BlockConditions, Layout
from training.model.config import ModelConfig
from training.model.rotary import RotaryTables
from training.model.sequence_parallel import SequenceParallel
from training.model.step_cache import StepCache

HEAD_NORM_EPS = 1e-6

Recompute = Literal["nothing", "all_but_attention", "blocks"]


class Backbone(nn.Module):
    """See the head of this file. `Denoiser` and `ReferenceNetwork` are made of it."""

    unused_position_embeddings: Tensor

    def __init__(self, config: ModelConfig, face: bool = False, audio: bool = False):
        super().__init__()
        self.config = config
        size, patch = config.hidden_size, config.patch_size
        tokens = config.text_length + config.latent_frames * config.patches_per_frame
        self.positions = nn.Parameter(torch.zeros(1, tokens, size))
        self.rotary = RotaryTables(config.patch_grid, config.head_dim)
        self.patch_embed = nn.Conv2d(config.in_channels, size, patch, stride=patch)
        self.text_embed = nn.Linear(config.text_dim, size)
        self.time_embed = nn.Sequential(
            nn.Linear(size, config.time_embed_dim),
            nn.SiLU(),
            nn.Linear(config.time_embed_dim, config.time_embed_dim),
        )
        blocks = nn.ModuleList(Block(config, face, audio) for _ in range(config.num_layers))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_norm = nn.LayerNorm(size, eps=NORM_EPS)
        self.head = Head(config)
        # Upstream's checkpoints carry 64 rows that nothing reads; kept so that a round trip loses nothing.
        self.register_buffer("unused_position_embeddings", torch.zeros(64, size))
        self.recompute: Recompute = "nothing"
        self.parallel: SequenceParallel | None = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A checkpoint that comes from elsewhere need not have the rows that nothing reads."""
        state_dict.setdefault(f"{prefix}unused_position_embeddings", self.unused_position_embeddings)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text_tokens: Tensor,
        conditions: Sequence[BlockConditions] | None = None,
        cache: StepCache | None = None,
    ) -> Tensor:
        """The velocity of latents (B, T, in_channels, H, W); text tokens from `embed_text`.

        With a cache most blocks are left out where it says so."""
        grid = positions.checked_grid(self.config, latents)
        text, video, layout = self.shared_out(text_tokens, self.embed_video(latents, grid), grid)
        time = self.embed_time(timesteps)
        each = conditions or [BlockConditions()] * len(self.blocks)
        silu = nn.functional.silu(time)
        blocks = [
            partial(self.run_block, block, time=silu, layout=layout, given=given)
            for block, given in zip(self.blocks, each, strict=True)
        ]
        if cache:
            video = cache.run(blocks, text, video, self.parallel)
        else:
            for block in blocks:
                text, video = block(text, video)
        patches = self.head(self.final_norm(video), time)
        if self.parallel:
            patches = self.parallel.gather(patches, dim=2, total=grid[1] * grid[2])
        return self.unpatchify(patches, grid)

    def embed_text(self, text: Tensor) -> Tensor:
        """Text embeddings (B, L, text_dim) -> text tokens (B, L, D) with their positions."""
        rows, _ = positions.learned_rows(self.config, self.positions, (1, *self.config.patch_grid[1:]))
        return self.text_embed(text) + rows

    def embed_video(self, latents: Tensor, grid: positions.Grid) -> Tensor:
        """Latents (B, T, C, H, W) -> video tokens (B, T, n, D) with their positions."""
        _, rows = positions.learned_rows(self.config, self.positions, grid)
        patches = self.patch_embed(latents.flatten(0, 1)).flatten(2).transpose(1, 2)
        return patches.unflatten(0, latents.shape[:2]) + rows

    def embed_time(self, timesteps: Tensor) -> Tensor:
        """Timesteps (B,) of 0 ... 999 -> (B, time_embed_dim)."""
        sinusoid = timestep_sinusoid(timesteps, self.config.hidden_size)
        return self.time_embed(sinusoid.to(self.positions.dtype))

    def shared_out(self, text: Tensor, video: Tensor, grid: positions.Grid) -> tuple[Tensor, Tensor, Layout]:
        """Text and video tokens, and where they are; where ranks share a sample, this rank's."""
        if self.parallel:
            text, video = self.parallel.share(text, 1), self.parallel.share(video, 2)
        return text, video, positions.layout(self.config, self.rotary, grid, self.parallel)

    def unpatchify(self, patches: Tensor, grid: positions.Grid) -> Tensor:
        """Patches (B, T, n, channels * p * p) -> (B, T, channels, H, W)."""
        channels, size = self.config.out_channels, self.config.patch_size
        placed = patches.flatten(1, 2).unflatten(-1, (channels, size, size)).unflatten(1, grid)
        # B, T, rows, columns, C, p, q -> B, T, C, rows, p, columns, q
        return placed.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)

    def run_block(
        self,
        block: nn.Module,
        text: Tensor,
        video: Tensor,
        time: Tensor,
        layout: Layout,
        given: BlockConditions,
    ) -> tuple[Tensor, Tensor]:
        """A block's text and video; what `recompute` names is computed again in the backward pass."""
        if self.recompute == "nothing" or not torch.is_grad_enabled():
            return block(text, video, time, layout, given)
        kept: dict[str, Any] = (
            {"context_fn": _keep_attention} if self.recompute == "all_but_attention" else {}
        )
        return checkpoint(block, text, video, time, layout, given, use_reentrant=False, **kept)


class Head(nn.Module):
    """Video tokens -> the velocity of each patch: norm, scale and shift by time, linear."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        size = config.hidden_size
        self.norm = nn.LayerNorm(size, eps=HEAD_NORM_EPS)
        self.modulation = nn.Linear(config.time_embed_dim, 2 * size)
        self.linear = nn.Linear(size, config.out_channels * config.patch_size**2)

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        """Tokens (B, T, n, D), time embedding (B, E) -> (B, T, n, out_channels * p * p)."""
        shift, scale = self.modulation(nn.functional.silu(time))[:, None, None].chunk(2, dim=-1)
        return self.linear(self.norm(tokens) * (1 + scale) + shift)


def timestep_sinusoid(timesteps: Tensor, channels: int) -> Tensor:
    """(B, channels) float32: cosines, then sines, of t * 10000 ** (-2k / channels) (Vaswani et al. 2017)."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000.0) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _is_attention(operation: object) -> bool:
    return "scaled_dot_product" in str(operation)


def _policy(_: object, operation: object, *args: object, **kwargs: object) -> CheckpointPolicy:
    """Attention's outputs are kept: computing them again costs the most, holding them the least."""
    return CheckpointPolicy.MUST_SAVE if _is_attention(operation) else CheckpointPolicy.PREFER_RECOMPUTE


_keep_attention = partial(create_selective_checkpoint_contexts, _policy)
