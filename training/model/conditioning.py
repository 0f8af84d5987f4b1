"""Speech features and a face embedding become the tokens that the blocks look at."""

import torch
from torch import Tensor, nn

from training.model.block import NORM_EPS
from training.model.config import AudioConditionConfig, FaceConditionConfig


class FaceProjector(nn.Module):
    """One identity embedding -> a few tokens, the same for every frame."""

    def __init__(self, config: FaceConditionConfig):
        super().__init__()
        self.tokens = config.tokens
        self.proj = nn.Linear(config.embedding_dim, config.tokens * config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, embedding_dim) -> (B, 1, tokens, dim)."""
        return self.norm(self.proj(embedding).unflatten(-1, (1, self.tokens, -1)))


class AudioProjector(nn.Module):
    """Windows of speech features, one a video frame -> audio tokens, `tokens` a latent frame.

    Three linear layers a frame, then time is halved twice as the autoencoder does it: 49 -> 25 -> 13, the
    first frame on its own. Upstream uses one convolution for both halvings; published weights depend on it.
    Silence (zeros) does not give zero tokens.
    """

    def __init__(self, config: AudioConditionConfig):
        super().__init__()
        self.config = config
        width = config.tokens * config.dim
        self.proj1 = nn.Linear(config.window * config.layers * config.channels, config.hidden)
        self.proj2 = nn.Linear(config.hidden, config.hidden)
        self.proj3 = nn.Linear(config.hidden, width)
        channels = width if config.halving == "joint" else config.dim
        self.halving = nn.Conv1d(channels, channels, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, window, layers, channels), F = 4 (T - 1) + 1 video frames -> (B, T, tokens, dim)."""
        hidden = torch.relu(self.proj1(features.flatten(2)))
        frames = self.proj3(torch.relu(self.proj2(hidden))).unflatten(-1, (self.config.tokens, -1))
        return self.norm(self._halve(self._halve(frames)))

    def _halve(self, frames: Tensor) -> Tensor:
        """(B, F, tokens, dim) -> half of the frames; of an odd number the first passes untouched."""
        odd = frames.shape[1] % 2
        first, rest = frames[:, :odd], frames[:, odd:]
        if not rest.shape[1]:
            return first
        return torch.cat([first, self._convolved(rest)], dim=1)

    def _convolved(self, frames: Tensor) -> Tensor:
        if self.config.halving == "joint":
            halved = self.halving(frames.flatten(2).transpose(1, 2)).transpose(1, 2)
            return halved.unflatten(-1, (self.config.tokens, -1))
        each = frames.transpose(1, 2)  # B, tokens, F, dim
        halved = self.halving(each.flatten(0, 1).transpose(1, 2)).transpose(1, 2)
        return halved.unflatten(0, each.shape[:2]).transpose(1, 2)
