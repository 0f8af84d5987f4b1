"""Sampling steps that are computed by their first block alone: "First Block Cache" (ParaAttention, 2024).

    first block -> what it adds to the video tokens, against what it added in the last whole step
        sum |added - added then| < threshold sum |added then|  -> the other blocks add what they added then
        else, and in the first and the last step               -> the other blocks; what they add is kept

It follows TeaCache (Liu et al. 2024), which looks at what goes into the first block, with a calibration for
each model. Nothing is trained, and nothing bounds the error: it is measured (docs/performance.md).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.model.sequence_parallel import SequenceParallel

RunBlock = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A block with its conditions filled in: text, video -> text, video."""


class StepCache:
    """The steps of one window, from the first to the last.

    The first sample of a step decides for all: of guidance's halves the unconditional one, in one batch and
    in two passes alike (to rounding, which the size of a batch changes). One half computed and the other
    taken over would not do: guidance multiplies their difference. Held from step to step is one tensor of
    the video tokens' size, and one of a single sample's.

    Args:
        threshold: 0 skips nothing.
        steps: that the sampler makes.
        passes: of the network in each step, always in the same order.
    """

    def __init__(self, threshold: float, steps: int, passes: int = 1) -> None:
        self.skipped = 0
        self._threshold, self._last_step = threshold, steps - 1
        self._calls = 0
        self._skips = False
        self._added: Tensor | None = None
        self._others_added: list[Tensor | None] = [None] * passes

    def run(
        self,
        blocks: Sequence[RunBlock],
        text: Tensor,
        video: Tensor,
        parallel: SequenceParallel | None,
    ) -> Tensor:
        """What the blocks make of the video tokens (B, T, n, D): the next pass. Collective where ranks share
        a sample: all decide alike."""
        step, which = divmod(self._calls, len(self._others_added))
        self._calls += 1
        text, begun = blocks[0](text, video)
        if which == 0:
            self._skips = self._decide(step, begun[:1] - video[:1], parallel)
        others_added = self._others_added[which]
        if self._skips and others_added is not None:
            return begun + others_added
        self._others_added[which] = None  # not held while the blocks need memory
        ended = begun
        for block in blocks[1:]:
            text, ended = block(text, ended)
        if step < self._last_step:
            self._others_added[which] = ended - begun
        return ended

    def _decide(self, step: int, added: Tensor, parallel: SequenceParallel | None) -> bool:
        """Whether a step is skipped; if not, the next ones are compared with it."""
        if step == self._last_step:
            self._added = None
            return False
        if self._added is not None:
            sums = torch.stack([_absolute(added - self._added), _absolute(self._added)])
            changed, before = (parallel.total(sums) if parallel else sums).tolist()
            if changed < self._threshold * before:
                self.skipped += 1
                return True
        self._added = added
        return False


def _absolute(tensor: Tensor) -> Tensor:
    """The sum of absolute values, in float32 at least."""
    return torch.linalg.vector_norm(tensor, ord=1, dtype=torch.promote_types(tensor.dtype, torch.float32))
