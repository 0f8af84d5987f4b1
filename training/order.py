"""Which sample comes when: a pure function of seed and position, whoever asks and however many ask.

    position p of an endless stream -> of which dataset it is -> its n-th sample -> epoch and place in it
      -> the window that this epoch's permutation has there

Step s of batch size G takes positions s G ... s G + G - 1; worker r of W those of places r, r + W, ... So one
worker and several see the same batches, and a resumed run sees the samples it would have seen: the whole
state is the step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from training.diffusion.noise import seed_of

BLOCK = 1000
"""Positions over which several datasets have exactly their shares; a weight counts to a thousandth."""
EPOCHS_KEPT = 2


@dataclass(frozen=True)
class EpochOrder:
    """The order of one dataset's windows in every epoch.

    full     every window anywhere: for a local disk, or where requests are cheap
    shards   shard after shard in random order, through a buffer from which the next window is drawn: what
             is read next lies close to what was read last
    """

    shard_sizes: tuple[int, ...]
    """Windows of each shard; they are numbered shard after shard."""
    seed: int
    kind: Literal["full", "shards"] = "full"
    buffer: int = 1024
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.windows:
            raise ValueError("shard_sizes: expected at least one window, got none")

    @property
    def windows(self) -> int:
        """Windows an epoch."""
        return sum(self.shard_sizes)

    def window_at(self, position: int) -> int:
        """The window (0 ... windows - 1) at a position of the endless stream of epochs."""
        epoch, place = divmod(position, self.windows)
        if epoch not in self._kept:
            if len(self._kept) >= EPOCHS_KEPT:
                del self._kept[min(self._kept)]
            self._kept[epoch] = self.permutation(epoch)
        return int(self._kept[epoch][place])

    def permutation(self, epoch: int) -> np.ndarray:
        """All windows in this epoch's order, (windows,) int64."""
        random = np.random.Generator(np.random.PCG64(seed_of("order", self.seed, epoch)))
        if self.kind == "full":
            return random.permutation(self.windows)
        firsts = np.cumsum([0, *self.shard_sizes[:-1]])
        shards = random.permutation(len(self.shard_sizes))
        in_turn = np.concatenate([firsts[i] + np.arange(self.shard_sizes[i]) for i in shards])
        return np.fromiter(_through_buffer(in_turn, self.buffer, random), np.int64, len(in_turn))


def _through_buffer(windows: np.ndarray, size: int, random: np.random.Generator) -> Iterator[int]:
    """The windows as they leave a buffer of `size` from which one is drawn whenever another comes in."""
    held = list(windows[:size])
    draws = random.integers(0, len(held), len(windows) - len(held))
    for window, draw in zip(windows[size:], draws, strict=True):
        yield held[draw]
        held[draw] = window
    yield from random.permutation(held)


@dataclass(frozen=True)
class Mixture:
    """The endless stream of several datasets, each with its share of every BLOCK positions."""

    orders: tuple[EpochOrder, ...]
    weights: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        if len(self.orders) != len(self.weights) or not self.orders:
            raise ValueError(f"weights: expected one for each of {len(self.orders)} datasets")
        if 0 in self._counts:
            smallest = min(self.weights) / sum(self.weights)
            raise ValueError(f"weights: a share of {smallest:.2g} is below one sample in {BLOCK}; raise it")

    def at(self, position: int) -> tuple[int, int]:
        """(dataset, window) at a position."""
        block, place = divmod(position, BLOCK)
        datasets, earlier = _block(self._counts, self.seed, block)
        dataset = int(datasets[place])
        nth = block * self._counts[dataset] + int(earlier[place])
        return dataset, self.orders[dataset].window_at(nth)

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        """Positions of each dataset in a block, by largest remainders."""
        shares = BLOCK * np.array(self.weights) / sum(self.weights)
        counts = np.floor(shares).astype(int)
        for index in np.argsort(counts - shares, kind="stable")[: BLOCK - counts.sum()]:
            counts[index] += 1
        return tuple(int(count) for count in counts)


@lru_cache(maxsize=4)
def _block(counts: Sequence[int], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each place in a block: whose it is, and how many of the same were before it; each (BLOCK,)."""
    random = np.random.Generator(np.random.PCG64(seed_of("mixture", seed, block)))
    datasets = random.permutation(np.repeat(np.arange(len(counts)), counts))
    earlier = np.empty(BLOCK, np.int64)
    for dataset, count in enumerate(counts):
        earlier[datasets == dataset] = np.arange(count)
    return datasets, earlier


def places_of(worker: int, workers: int, batch: int) -> range:
    """The places of a step's batch that a worker takes: every `workers`-th, from its own on.

    Raises:
        ValueError: no such worker, or the workers cannot have the same number each.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker: expected 0 to workers - 1 = {workers - 1}, got {worker}")
    if batch % workers:
        raise ValueError(f"batch: expected a multiple of the {workers} workers, got {batch}")
    return range(worker, batch, workers)
