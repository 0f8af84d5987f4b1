"""From what was found in clips to figures: states are built one clip after the other, in bounded memory.

names of clips, found stores -> a state a metric, of generated and of real clips -> figures
  a metric that compares sets (FID, FVD): generated against real; beside it, as a scale to read it by,
  one half of the real clips against the other: how far apart are so many clips of other moments?
  Such distances depend on how many clips there are, so subgroups have none
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, runtime_checkable

from evaluation.config import MetricsConfig
from evaluation.found_store import FoundStore
from evaluation.metrics.metric import Figure
from evaluation.registry import make_metric
from evaluation.results import Beside


@runtime_checkable
class Comparing(Protocol):
    """A metric whose figures are distances between two sets of clips."""

    def compute_against(self, real: Self) -> list[Figure]:
        """The figures of this state's clips, held against those of `real`."""


def figures_of(
    metrics: Sequence[str],
    config: MetricsConfig,
    clips: Sequence[str],
    generated: FoundStore,
    real: FoundStore,
    of_sets: bool = True,
) -> Beside:
    """The figures of some clips, over those of them that each metric could score.

    Args:
        metrics: names.
        config: of which they are made.
        of_sets: also those that compare sets.
    """
    made: list[Figure] = []
    true: list[Figure] = []
    for name in metrics:
        state = _state(name, config, clips, generated)
        if not isinstance(state, Comparing):
            made += state.compute()
            true += _state(name, config, clips, real).compute()
        elif of_sets:
            made += state.compute_against(_state(name, config, clips, real))
            true += _halves(name, config, clips, real)
    return Beside(made, true)


def _halves(name: str, config: MetricsConfig, clips: Sequence[str], real: FoundStore) -> list[Figure]:
    """Every other clip against the rest. An interval would suppose that both are of the same items."""
    there = [clip for clip in sorted(clips) if real.has(clip, name)]
    first = _state(name, config, there[::2], real)
    figures: list[Figure] = first.compute_against(_state(name, config, there[1::2], real))
    return [replace(figure, low=math.nan, high=math.nan) for figure in figures]


def _state(name: str, config: MetricsConfig, clips: Sequence[str], store: FoundStore) -> Any:
    """A metric of its own class, which alone it can be compared with."""
    metric = make_metric(name, config)
    for clip in clips:
        found = store.found(clip, name)
        if found is not None:
            metric.update(clip, found)
    return metric
