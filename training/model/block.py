"""One block of the transformer: joint attention, face and audio cross-attention, feed-forward.

    text (B, L, D), video (B, T, n, D)
      norm, modulate -> attention over text, video and reference tokens -> gate, add
      video: norm -> face cross-attention -> add;  norm -> audio cross-attention -> add
      norm, modulate -> feed-forward -> gate, add

Scale, shift and gate of both modulations come from the timestep (adaLN-Zero, Peebles & Xie 2023), apart for
text and video (CogVideoX's expert adaptive layer norm). The two cross-attentions are Hallo3's.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.model.attention import CrossAttention, JointAttention, KeyValue
from training.model.config import ModelConfig
from training.model.sequence_parallel import SequenceShares

NORM_EPS = 1e-5


class BlockConditions(NamedTuple):
    """What one block looks at: tokens, or their keys and values where those were computed beforehand."""

    reference: Tensor | KeyValue | None = None
    """(B or 1, n, D) the reference network's feature for this block."""
    face: Tensor | KeyValue | None = None
    """(B or 1, 1, tokens, dim)"""
    audio: Tensor | KeyValue | None = None
    """(B or 1, T, tokens, dim)"""


class Layout(NamedTuple):
    """Where the tokens are: rotary tables, (tokens, head_dim) float32, and on which ranks."""

    cos: Tensor
    """of text and video together"""
    sin: Tensor
    frame_cos: Tensor
    """of the first latent frame"""
    frame_sin: Tensor
    shares: SequenceShares | None = None
    """None: every token is here."""


class Block(nn.Module):
    """See the head of this file. Without `face` in its making it is CogVideoX's block."""

    def __init__(self, config: ModelConfig, face: bool, audio: bool):
        super().__init__()
        size, heads, kernel = config.hidden_size, config.num_heads, config.attention_kernel
        self.modulation = nn.Linear(config.time_embed_dim, 12 * size)
        self.attention_norm = nn.LayerNorm(size, eps=NORM_EPS)
        self.attention = JointAttention(size, heads, kernel)
        if face:
            self.face_norm = nn.LayerNorm(size, eps=NORM_EPS)
            self.face_attention = CrossAttention(size, heads, config.face.dim, kernel)
        if audio and config.audio:
            self.audio_norm = nn.LayerNorm(size, eps=NORM_EPS)
            self.audio_attention = CrossAttention(size, heads, config.audio.dim, kernel)
        self.feed_forward_norm = nn.LayerNorm(size, eps=NORM_EPS)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, 4 * size), nn.GELU(approximate="tanh"), nn.Linear(4 * size, size)
        )

    def forward(
        self, text: Tensor, video: Tensor, time: Tensor, layout: Layout, conditions: BlockConditions
    ) -> tuple[Tensor, Tensor]:
        """Text (B, L, D), video (B, T, n, D), SiLU of the time embedding (B, E) -> text, video."""
        pieces = self.modulation(time)[:, None].chunk(12, dim=-1)
        video_attention, video_feed, text_attention, text_feed = (pieces[i : i + 3] for i in (0, 3, 6, 9))

        tokens = self._modulated(self.attention_norm, text, video, text_attention, video_attention)
        looks_at = (layout.cos, layout.sin, conditions.reference, layout.shares)
        # No name for what attention gives: it would be held until the feed-forward is done.
        text, video = _add_gated(
            text, video, self.attention(tokens, *looks_at), text_attention, video_attention
        )

        first_frame = (self.attention, layout.frame_cos, layout.frame_sin)
        if conditions.face is not None:
            video = video + self.face_attention(self.face_norm(video), conditions.face, *first_frame)
        if conditions.audio is not None:
            video = video + self.audio_attention(self.audio_norm(video), conditions.audio, *first_frame)

        tokens = self._modulated(self.feed_forward_norm, text, video, text_feed, video_feed)
        return _add_gated(text, video, self.feed_forward(tokens), text_feed, video_feed)

    def reference_feature(self, video: Tensor, time: Tensor) -> Tensor:
        """What this block of the reference network hands over: its modulated attention input (B, n, D)."""
        shift, scale, _ = self.modulation(time)[:, None].chunk(12, dim=-1)[:3]
        return _modulate(self.attention_norm(video.flatten(1, 2)), shift, scale)

    def prepared(self, conditions: BlockConditions) -> BlockConditions:
        """The conditions with tokens turned into this block's keys and values, once for all steps."""
        reference, face, audio = conditions
        if isinstance(reference, Tensor):
            reference = self.attention.keys_values(reference)
        if isinstance(face, Tensor):
            face = self.face_attention.keys_values(face, self.attention)
        if isinstance(audio, Tensor):
            audio = self.audio_attention.keys_values(audio, self.attention)
        return BlockConditions(reference, face, audio)

    @staticmethod
    def _modulated(
        norm: nn.LayerNorm, text: Tensor, video: Tensor, of_text: list[Tensor], of_video: list[Tensor]
    ) -> Tensor:
        """Text and video (B, L + T * n, D) after the shared norm, each scaled and shifted in its own way."""
        return torch.cat(
            [_modulate(norm(text), *of_text[:2]), _modulate(norm(video.flatten(1, 2)), *of_video[:2])], dim=1
        )


def _modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, tokens, 1 + scale)  # tokens * (1 + scale) + shift in one pass


def _add_gated(
    text: Tensor, video: Tensor, update: Tensor, of_text: list[Tensor], of_video: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Residual connections: what attention or feed-forward gave, times the gate."""
    text_update, video_update = update.split([text.shape[1], update.shape[1] - text.shape[1]], dim=1)
    video_update = video_update.unflatten(1, video.shape[1:3])
    return torch.addcmul(text, of_text[2], text_update), torch.addcmul(
        video, of_video[2][:, None], video_update
    )
