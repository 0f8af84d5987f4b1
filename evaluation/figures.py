"""From what was found in clips to figures: states are built one clip after the other, in bounded memory.

names of clips, found stores -> a state a metric, of generated and of real clips -> figures
  a metric that compares sets (FID, FVD): generated against real; and as what cannot be beaten,
  one half of the real clips against the other
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

from evaluation.found_store import FoundStore
from evaluation.metrics.metric import Figure
from evaluation.registry import make_metrics
from evaluation.results import Beside


@runtime_checkable
class Comparing(Protocol):
    """A metric whose figures are distances between two sets of clips."""

    def compute_against(self, real: Self) -> list[Figure]:
        """The figures of this state's clips, held against those of `real`."""


def figures_of(
    metrics: Sequence[str], clips: Sequence[str], generated: FoundStore, real: FoundStore, halves: bool = True
) -> Beside:
    """The figures of some clips, over those of them that each metric could score.

    Args:
        metrics: names.
        halves: whether half of the real clips is held against the other, for metrics that compare sets.
    """
    made: list[Figure] = []
    true: list[Figure] = []
    for name in metrics:
        state = _state(name, clips, generated)
        if isinstance(state, Comparing):
            made += state.compute_against(_state(name, clips, real))
            if halves:
                true += _halves(name, clips, real)
        else:
            made += state.compute()
            true += _state(name, clips, real).compute()
    return Beside(made, true)


def _halves(name: str, clips: Sequence[str], real: FoundStore) -> list[Figure]:
    """Every other clip against the rest."""
    there = [clip for clip in sorted(clips) if real.found(clip, name) is not None]
    first = _state(name, there[::2], real)
    figures: list[Figure] = first.compute_against(_state(name, there[1::2], real))
    return figures


def _state(name: str, clips: Sequence[str], store: FoundStore) -> Any:
    """A metric of its own class, which alone it can be compared with."""
    metric = make_metrics([name])[name]
    for clip in clips:
        found = store.found(clip, name)
        if found is not None:
            metric.update(clip, found)
    return metric
