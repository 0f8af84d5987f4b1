"""One sample over several ranks: DeepSpeed-Ulysses (Jacobs et al. 2023) for text, video and reference tokens.

    every rank holds a share of the text tokens, and of the patches of every frame and of the portrait
      queries, keys, values (B, heads, own tokens, head_dim)
        -> all-to-all -> (B, own heads, all tokens, head_dim) -> attention -> all-to-all back
    everything else in a block concerns a token and its frame's conditions alone: nothing to exchange

Shares may differ by one token, so nothing is padded and no mask is needed; attention does not ask in which
order keys come. Each rank computes the same loss on the gathered output; the gradients of the weights,
**averaged** over the ranks as data-parallel engines do it, are those of one rank with the whole sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.model.attention import attend


@dataclass(frozen=True)
class SequenceParallel:
    """The ranks of `group` (None: all) share each sample."""

    group: dist.ProcessGroup | None = None

    @property
    def ranks(self) -> int:
        """Number of ranks that share a sample."""
        return dist.get_world_size(self.group)

    def sizes(self, total: int) -> list[int]:
        """How many of `total` tokens each rank has: the first ranks one more where it does not divide."""
        each, more = divmod(total, self.ranks)
        return [each + (rank < more) for rank in range(self.ranks)]

    def own_size(self, total: int) -> int:
        """How many of `total` tokens this rank has."""
        return self.sizes(total)[dist.get_rank(self.group)]

    def share(self, tokens: Tensor, dim: int) -> Tensor:
        """This rank's part of tokens along a dimension."""
        return tokens.split(self.sizes(tokens.shape[dim]), dim)[dist.get_rank(self.group)]

    def gather(self, share: Tensor, dim: int, total: int) -> Tensor:
        """The parts of all ranks along a dimension, whole on every rank."""
        shapes = [_with_size(share.shape, dim, size) for size in self.sizes(total)]
        return torch.cat(_Gather.apply(self.group, shapes, share), dim)

    def total(self, numbers: Tensor) -> Tensor:
        """Numbers summed over the ranks, to the same bits on each; without a gradient."""
        summed = numbers.detach().clone()
        dist.all_reduce(summed, group=self.group)
        return summed

    def exchanging(self, text: int, frames: int, patches: int) -> "SequenceShares":
        """How attention is shared, given the whole numbers of text tokens, frames and patches a frame."""
        of_patches = self.sizes(patches)
        own = [words + frames * part for words, part in zip(self.sizes(text), of_patches, strict=True)]
        return SequenceShares(self.group, own, of_patches)


@dataclass(frozen=True)
class SequenceShares:
    """Attention of tokens that lie on several ranks."""

    group: dist.ProcessGroup | None
    own: list[int]
    """text and video tokens, a rank"""
    reference: list[int]
    """reference tokens, a rank"""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, kernel: str) -> Tensor:
        """Attention over all tokens; in and out (B, heads, this rank's tokens, head_dim)."""
        keys = self.own
        if key.shape[2] > query.shape[2]:
            keys = [own + more for own, more in zip(self.own, self.reference, strict=True)]
        attended = attend(
            self._own_heads(query, self.own), self._own_heads(key, keys), self._own_heads(value, keys), kernel
        )
        return self._own_tokens(attended)

    def _own_heads(self, part: Tensor, tokens: list[int]) -> Tensor:
        """(B, heads, own tokens, head_dim) -> (B, heads / ranks, all tokens, head_dim)."""
        by_rank = part.chunk(len(tokens), dim=1)
        shapes = [_with_size(by_rank[0].shape, 2, size) for size in tokens]
        return torch.cat(_Exchange.apply(self.group, shapes, *by_rank), dim=2)

    def _own_tokens(self, part: Tensor) -> Tensor:
        """(B, heads / ranks, all tokens, head_dim) -> (B, heads, own tokens, head_dim)."""
        by_rank = part.split(self.own, dim=2)
        mine = by_rank[dist.get_rank(self.group)].shape
        return torch.cat(_Exchange.apply(self.group, [mine] * len(by_rank), *by_rank), dim=1)


class _Exchange(torch.autograd.Function):
    """Part p goes to rank p; what comes from rank p has shape p. The gradient takes the way back."""

    @staticmethod
    def forward(ctx: Any, group: Any, shapes: list[torch.Size], *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.group, ctx.shapes = group, [part.shape for part in parts]
        return _exchanged(group, shapes, parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return None, None, *_exchanged(ctx.group, ctx.shapes, gradients)


class _Gather(torch.autograd.Function):
    """Every rank's part on every rank. Each rank has the same loss, so the gradient of the own part is at
    hand; times the number of ranks, so that averaging the weights' gradients sums the parts."""

    @staticmethod
    def forward(ctx: Any, group: Any, shapes: list[torch.Size], part: Tensor) -> tuple[Tensor, ...]:
        ctx.rank, ctx.ranks = dist.get_rank(group), len(shapes)
        return _exchanged(group, shapes, [part] * len(shapes))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return None, None, gradients[ctx.rank] * ctx.ranks


def _exchanged(group: Any, shapes: Sequence[torch.Size], parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    sent = torch.cat([part.reshape(-1) for part in parts])
    sizes = [shape.numel() for shape in shapes]
    received = sent.new_empty(sum(sizes))
    dist.all_to_all_single(received, sent, sizes, [part.numel() for part in parts], group=group)
    return tuple(part.view(shape) for part, shape in zip(received.split(sizes), shapes, strict=True))


def _with_size(shape: torch.Size, dim: int, size: int) -> torch.Size:
    changed = list(shape)
    changed[dim] = size
    return torch.Size(changed)
