"""Random numbers that follow from what they are for, not from who drew how many before.

    purpose and key, such as ("noise", seed, step, position) -> seed -> a stream of its own

A batch is then the same on one worker and on eight, after a resume and without one; and a sampled clip
does not depend on the clips beside it in the batch.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def seed_of(purpose: str, *key: int) -> int:
    """A seed of 63 bits that follows from what it is for. Streams of differing keys do not relate."""
    digest = hashlib.sha256(" ".join([purpose, *map(str, key)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class SeededNoise:
    """Normal numbers, each row of the batch from its own stream; called with a shape (B, ...).

    Drawn on the CPU in float32, so a seed gives the same noise whatever device the network is on. With one
    seed the draws are those of torch.randn with a generator of that seed."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """The next draw. Raises ValueError where the batch has not one row a seed."""
        if shape[0] != len(self._streams):
            raise ValueError(f"seeds: expected one for each of the {shape[0]} rows, got {len(self._streams)}")
        return torch.stack([torch.randn(*shape[1:], generator=stream) for stream in self._streams])
