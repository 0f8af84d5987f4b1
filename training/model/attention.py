"""Attention as the blocks use it. Shapes inside: queries, keys and values (B, heads, tokens, head_dim)."""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.model.rotary import rotate

if TYPE_CHECKING:
    from training.model.sequence_parallel import SequenceShares

QK_NORM_EPS = 1e-6

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


class KeyValue(NamedTuple):
    """Keys and values of tokens that do not change from step to step, computed once for a video."""

    key: Tensor
    value: Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, kernel: str = "auto") -> Tensor:
    """softmax(q k' / sqrt(head_dim)) v: the one place that chooses the kernel. "auto" leaves it to torch."""
    if kernel == "auto":
        return F.scaled_dot_product_attention(query, key, value)
    with sdpa_kernel(KERNELS[kernel]):
        return F.scaled_dot_product_attention(query, key, value)


class QueryKeyValue(nn.Linear):
    """One matrix whose rows are query, key and value, as upstream has it.

    Three products, not one: attention reads keys and values that lie close together faster.
    """

    def forward(  # type: ignore[override]
        self, tokens: Tensor, with_query: bool = True
    ) -> tuple[Tensor, ...]:
        """(B, S, D) -> query, key and value, or key and value alone, each (B, S, D)."""
        parts = list(zip(self.weight.chunk(3), self.bias.chunk(3), strict=True))
        return tuple(F.linear(tokens, *part) for part in (parts if with_query else parts[1:]))


class JointAttention(nn.Module):
    """Self-attention of text and video tokens, which also look at the reference network's tokens.

    Reference tokens give keys and values only: nobody reads what they would attend to. They are not
    rotated, as text is not. Query and key are normalised a head (QK-norm).
    """

    def __init__(self, hidden_size: int, num_heads: int, kernel: str = "auto"):
        super().__init__()
        self.num_heads, self.kernel = num_heads, kernel
        head_dim = hidden_size // num_heads
        self.qkv = QueryKeyValue(hidden_size, 3 * hidden_size)
        self.query_norm = nn.LayerNorm(head_dim, eps=QK_NORM_EPS)
        self.key_norm = nn.LayerNorm(head_dim, eps=QK_NORM_EPS)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        tokens: Tensor,
        cos: Tensor,
        sin: Tensor,
        reference: Tensor | KeyValue | None = None,
        shares: "SequenceShares | None" = None,
    ) -> Tensor:
        """Tokens (B, S, D), text first; tables (S, head_dim); reference (B or 1, n, D). Returns (B, S, D).

        With `shares` these are the tokens of this rank, and they attend to those of all.
        """
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)) for part in self.qkv(tokens))
        cos, sin = cos[:, None], sin[:, None]  # the same for all heads
        query = rotate(self.query_norm(query), cos, sin).transpose(1, 2)
        key = rotate(self.key_norm(key), cos, sin).transpose(1, 2)
        value = value.transpose(1, 2)
        if reference is not None:
            more = self.keys_values(reference) if isinstance(reference, Tensor) else reference
            batch = len(tokens)
            key = torch.cat([key, more.key.expand(batch, -1, -1, -1)], dim=2)
            value = torch.cat([value, more.value.expand(batch, -1, -1, -1)], dim=2)
        attended = (shares.attend if shares else attend)(query, key, value, self.kernel)
        return self.out(attended.transpose(1, 2).flatten(2))

    def keys_values(self, reference: Tensor) -> KeyValue:
        """Reference tokens (B, n, D) -> keys and values, each (B, heads, n, head_dim)."""
        parts = self.qkv(reference, with_query=False)
        key, value = (part.unflatten(-1, (self.num_heads, -1)) for part in parts)
        return KeyValue(self.key_norm(key).transpose(1, 2), value.transpose(1, 2))


class CrossAttention(nn.Module):
    """Each latent frame's patches look at condition tokens: the same for all frames, or that frame's own.

    Upstream normalises query and key by the norms of the block's self-attention and turns the query, always
    by the first frame's angles; the key is not turned. Published weights depend on both.
    """

    def __init__(self, hidden_size: int, num_heads: int, token_dim: int, kernel: str = "auto"):
        super().__init__()
        self.num_heads, self.kernel = num_heads, kernel
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(token_dim, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, video: Tensor, tokens: Tensor | KeyValue, norms: JointAttention, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """Video (B, T, n, D) -> (B, T, n, D).

        Args:
            tokens: (B or 1, G, k, token_dim); G is 1 (the same for all frames) or T.
            norms: whose query and key norms are used.
            cos, sin: the first frame's tables (n, head_dim).
        """
        batch, frames, patches, _ = video.shape
        known = self.keys_values(tokens, norms) if isinstance(tokens, Tensor) else tokens
        groups = known.key.shape[1]
        query = norms.query_norm(self.query(video).unflatten(-1, (self.num_heads, -1)))
        query = rotate(query, cos[:, None], sin[:, None])  # B, T, n, heads, head_dim
        query = query.reshape(batch * groups, frames // groups * patches, self.num_heads, -1).transpose(1, 2)
        key, value = (part.expand(batch, -1, -1, -1, -1).flatten(0, 1) for part in (known.key, known.value))
        attended = attend(query, key, value, self.kernel)
        return self.out(attended.transpose(1, 2).reshape(batch, frames, patches, -1))

    def keys_values(self, tokens: Tensor, norms: JointAttention) -> KeyValue:
        """Tokens (B, G, k, token_dim) -> keys and values, each (B, G, heads, k, head_dim)."""
        key, value = self.key_value(tokens).unflatten(-1, (2, self.num_heads, -1)).unbind(3)
        return KeyValue(norms.key_norm(key).transpose(2, 3), value.transpose(2, 3))
