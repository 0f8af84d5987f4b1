"""What metrics have in common that compare the features of generated clips with those of real ones.

Two objects of one metric: the generated clips update one, the real ones the other, and

    generated.compute_against(real) -> the figure

Real ones are the same at every evaluation of a benchmark, so they can be kept: save, load.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from evaluation.metrics.clip_groups import GROUPS, ClipGroups, distance_between
from evaluation.metrics.metric import Figure, Found

FEATURES = "features"
"""The array of `Found` that the state takes: (N, dim) float32."""


class FrechetMetric:
    """State and figures of a Metric; what is left to it are `setup` and `measure`, which finds FEATURES."""

    def __init__(self, name: str, dim: int, protocol: Mapping[str, object]):
        """name: of the figure. dim: of a feature. protocol: what features depend on."""
        self.names: Sequence[str] = (name,)
        self.protocol: Mapping[str, object] = {
            **protocol,
            "feature_size": dim,
            "covariance": "over n - 1",
            "interval": f"delete-m jackknife over {GROUPS} groups of clips, 95 %",
        }
        self._clips = ClipGroups(dim)

    @property
    def protocol_sha256(self) -> str:
        """Of the name and the protocol: two metrics of one hash have comparable states."""
        words = json.dumps([self.names, self.protocol], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()

    def update(self, clip: str, found: Found) -> None:
        self._clips.update(clip, found.arrays[FEATURES])

    def merge(self, other: Self) -> None:
        """Raises ValueError for a state of another protocol."""
        self._must_be_of_one_protocol(other)
        self._clips.merge(other._clips)

    def compute(self) -> list[Figure]:
        """NaN and the number of clips: a distance needs two sets, see `compute_against`."""
        nan = float("nan")
        return [Figure(self.names[0], nan, nan, nan, self._clips.n_clips)]

    def compute_against(self, real: Self) -> list[Figure]:
        """The distance between these clips and the real ones; NaN where either has fewer than two features.

        n is the number of clips here. Both should be of the same items, which the intervals suppose.
        Raises ValueError for real clips that another protocol measured."""
        self._must_be_of_one_protocol(real)
        found = distance_between(self._clips, real._clips)
        return [Figure(self.names[0], found.value, found.low, found.high, found.n)]

    def save(self, path: Path, clips: str) -> None:
        """Keep the state in a file; `clips`: what says which clips are in it, such as a benchmark's hash."""
        self._clips.save(path, self._hash_with(clips))

    def load(self, path: Path, clips: str) -> None:
        """Take what `save` kept as the state.

        Raises ValueError where it is of other clips or another protocol; FileNotFoundError."""
        self._clips = ClipGroups.load(path, self._hash_with(clips))

    def _hash_with(self, clips: str) -> str:
        return hashlib.sha256(f"{self.protocol_sha256} {clips}".encode()).hexdigest()

    def _must_be_of_one_protocol(self, other: Self) -> None:
        if self.protocol_sha256 == other.protocol_sha256:
            return
        ours, theirs = ({"name": metric.names[0], **metric.protocol} for metric in (self, other))
        odd = sorted(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
        differences = ", ".join(f"{key}: {ours.get(key)} and {theirs.get(key)}" for key in odd)
        raise ValueError(f"{self.names[0]} of two protocols cannot be put together ({differences})")
