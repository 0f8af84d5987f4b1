"""A mean over items, and how sure it is: the percentile bootstrap (Efron & Tibshirani 1993, chapter 13)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the interval in which it lies with a confidence of 95 %."""

    value: float
    low: float
    high: float
    n: int
    """Items."""

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def mean_interval(values: Sequence[float], groups: Sequence[str] | None = None, seed: int = 0) -> Interval:
    """The mean of one value an item.

    Args:
        values: finite; at least two.
        groups: of each item, what it shares with others (the same speech, say). Whole groups are drawn
            then: items that share it are no independent witnesses. None: each item is its own.

    Raises:
        ValueError: fewer than two values or groups, or one that is not finite.
    """
    given = np.asarray(values, float)
    names = list(groups) if groups is not None else [str(place) for place in range(len(given))]
    if len(names) != len(given):
        raise ValueError(f"groups: expected one an item, got {len(names)} for {len(given)} items")
    if not np.isfinite(given).all():
        raise ValueError(f"values: expected finite numbers, got {given[~np.isfinite(given)][0]}")
    distinct = sorted(set(names))
    if len(distinct) < 2:
        raise ValueError(f"values: expected at least two independent ones, got {len(distinct)}")
    sums, counts = (np.zeros(len(distinct)) for _ in range(2))
    for name, value in zip(names, given, strict=True):
        place = distinct.index(name)
        sums[place] += value
        counts[place] += 1
    drawn = np.random.default_rng(seed).integers(0, len(distinct), (RESAMPLES, len(distinct)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(given.mean()), float(low), float(high), len(given))
