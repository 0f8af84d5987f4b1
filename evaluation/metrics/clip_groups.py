"""Features of clips in ten groups: what a Fréchet distance and its interval need, in bounded memory.

    clip's name -> hash -> one of ten groups -> that group's FeatureStatistics
    all groups               -> the distance
    all but one, ten times   -> ten distances, and from how they differ, an interval

The bootstrap would need every feature again and again. The jackknife that leaves out a group at a time
needs ten states, which add up like one: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 11. Groups by hash are not all of one size: Busing, Meijer & van der Leeden, "Delete-m jackknife for
unequal m", Statistics and Computing 9, 1999.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np
from scipy.special import stdtrit

from evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from evaluation.metrics.interval import CONFIDENCE, Interval
from evaluation.metrics.stored_state import read_state, write_state

GROUPS = 10


class ClipGroups:
    """Features of clips, which add up in any order: a clip's name says which group it is in."""

    def __init__(self, dim: int):
        self.dim = dim
        self.statistics: dict[int, FeatureStatistics] = {}
        """Of every group that has a clip."""
        self.clips: dict[int, int] = {}
        """How many each of them has."""

    @property
    def n_clips(self) -> int:
        return sum(self.clips.values())

    def update(self, clip: str, features: np.ndarray) -> None:
        """Take in the features (N, dim) of the clip of this name. Raises as FeatureStatistics does."""
        group = group_of(clip)
        self.statistics.setdefault(group, FeatureStatistics(self.dim)).update(features)
        self.clips[group] = self.clips.get(group, 0) + 1

    def merge(self, other: Self) -> None:
        """Take in the clips of `other`."""
        for group, statistics in other.statistics.items():
            self.statistics.setdefault(group, FeatureStatistics(self.dim)).merge(statistics)
            self.clips[group] = self.clips.get(group, 0) + other.clips[group]

    def total(self, without: int | None = None) -> FeatureStatistics:
        """Of all clips, or of all but one group's."""
        total = FeatureStatistics(self.dim)
        for group in sorted(self.statistics):
            if group != without:
                total.merge(self.statistics[group])
        return total

    def save(self, path: Path, protocol: str) -> None:
        """Keep it in a file; `protocol`: a hash of what the features depend on."""
        groups = sorted(self.statistics)
        found = [self.statistics[group] for group in groups]
        arrays = {
            "groups": np.array(groups, int),
            "clips": np.array([self.clips[group] for group in groups], int),
            "count": np.array([statistics.count for statistics in found], int),
            "sum": np.array([statistics.sum for statistics in found]).reshape(-1, self.dim),
            "outer": np.array([statistics.outer for statistics in found]).reshape(-1, self.dim, self.dim),
        }
        write_state(path, protocol, arrays)

    @classmethod
    def load(cls, path: Path, protocol: str) -> Self:
        """What `save` kept. Raises ValueError where it is of another protocol, or no such file."""
        state = read_state(path, protocol, ("groups", "clips", "count", "sum", "outer"))
        groups = cls(state["sum"].shape[1])
        for index, group in enumerate(state["groups"].tolist()):
            statistics = groups.statistics[group] = FeatureStatistics(groups.dim)
            statistics.count = int(state["count"][index])
            statistics.sum, statistics.outer = state["sum"][index], state["outer"][index]
            groups.clips[group] = int(state["clips"][index])
        return groups


def group_of(clip: str) -> int:
    """0 ... 9, the same for a generated clip and the real one of that name."""
    return int.from_bytes(hashlib.sha256(clip.encode()).digest()[:8], "little") % GROUPS


def distance_between(generated: ClipGroups, real: ClipGroups) -> Interval:
    """The Fréchet distance, its interval over clips, and the number of generated clips.

    A group is left out of both sides, as a generated clip and its real one stand or fall together. All is NaN
    where a side has fewer than two features; the interval, where without some group it has.
    """
    value = _distance(generated.total(), real.total())
    groups = sorted(generated.statistics)
    half = float("nan")
    if len(groups) > 1:
        without = [_distance(generated.total(group), real.total(group)) for group in groups]
        half = half_width(value, without, [generated.clips[group] for group in groups])
    low = float(np.maximum(value - half, 0))  # NaN stays NaN
    return Interval(value, low, value + half, generated.n_clips)


def _distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    return frechet_distance(a, b) if min(a.count, b.count) > 1 else float("nan")


def half_width(value: float, without: Iterable[float], clips: Iterable[int]) -> float:
    """Of the 95 % interval of a figure, by the delete-m jackknife.

    value: of all clips. without: of all but one group, for every group. clips: in each of them.

    The interval is about the value itself and not about the jackknife's estimate of it, which has
    less bias but is not what others report."""
    left_out, sizes = np.array(list(without)), np.array(list(clips))
    n_groups, share = len(sizes), sizes / sizes.sum()
    pseudo = value / share - (1 / share - 1) * left_out
    estimate = n_groups * value - ((1 - share) * left_out).sum()
    variance = (np.square(pseudo - estimate) / (1 / share - 1)).mean()
    return float(stdtrit(n_groups - 1, (1 + CONFIDENCE) / 2) * np.sqrt(variance))
