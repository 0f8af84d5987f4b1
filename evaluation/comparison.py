"""A candidate beside a baseline: how much every figure changed on the clips that both could score.

two evaluations of one protocol -> common clips -> figures of both on them -> change
  a figure that is a mean of clips' values -> the interval of the differences, clip by clip
  one that is not (FID, FVD)               -> the root sum of squares of both intervals: too wide rather
                                              than too narrow, as both see the same clips
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.config import MetricsConfig
from evaluation.figures import figures_of
from evaluation.found_store import FoundStore
from evaluation.metrics.interval import mean_interval
from evaluation.metrics.metric import Figure
from evaluation.protocol import check_same
from evaluation.results import BenchmarkResult, Evaluation


@dataclass(frozen=True)
class Change:
    """Of one figure of one benchmark."""

    benchmark: str
    figure: str
    baseline: float
    candidate: float
    low: float
    """Of the change's interval at a confidence of 95 %; NaN where there are too few clips."""
    high: float
    n: int
    """Clips that both could score."""
    paired: bool
    """Whether the interval is of differences clip by clip."""

    @property
    def absolute(self) -> float:
        return self.candidate - self.baseline

    @property
    def percent(self) -> float:
        """Of the baseline."""
        if self.baseline == 0:
            return 0.0 if self.absolute == 0 else math.copysign(math.inf, self.absolute)
        return 100 * self.absolute / abs(self.baseline)


def changes(
    candidate: Evaluation,
    output: Path,
    baseline: Evaluation,
    baseline_output: Path,
    config: MetricsConfig,
) -> list[Change]:
    """What changed, of all benchmarks and figures that both have.

    Args:
        config: of which the metrics are made.

    Raises:
        ProtocolsDiffer: a benchmark's figures may not be compared.
    """
    found: list[Change] = []
    for mine in candidate.benchmarks:
        theirs = baseline.of(mine.name)
        if theirs is None:
            continue
        check_same(theirs.protocol, mine.protocol, ("baseline", "candidate"))
        sides = _Side(baseline_output, theirs, config), _Side(output, mine, config)
        rows = baseline.rows_of(mine.name), candidate.rows_of(mine.name)
        for metric in candidate.metrics:
            found += _of_metric(metric, mine.name, sides, rows)
    return found


class _Side:
    """One of the two, on one benchmark."""

    def __init__(self, output: Path, result: BenchmarkResult, config: MetricsConfig) -> None:
        self._config = config
        self.generated = FoundStore(output / result.generated_store)
        self.real = FoundStore(output / result.real_store)

    def clips(self, metric: str) -> set[str]:
        """That this metric could score."""
        names = {path.stem for path in self.generated.folder.glob("*.json")}
        return {name for name in names if self.generated.has(name, metric)}

    def figures(self, metric: str, clips: Sequence[str]) -> list[Figure]:
        return figures_of([metric], self._config, clips, self.generated, self.real).generated


def _of_metric(
    metric: str,
    benchmark: str,
    sides: tuple[_Side, _Side],
    rows: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> list[Change]:
    common = sorted(sides[0].clips(metric) & sides[1].clips(metric))
    before, after = (side.figures(metric, common) for side in sides)
    found = []
    for old, new in zip(before, after, strict=True):
        values = [_values(side, common, new.name) for side in rows]
        low, high, paired = _interval(old, new, *values)
        found.append(Change(benchmark, new.name, old.value, new.value, low, high, new.n, paired))
    return found


def _values(rows: Sequence[dict[str, Any]], clips: Sequence[str], name: str) -> dict[str, float]:
    """Of clips that have one, the value that a figure is a mean of."""
    wanted = set(clips)
    return {
        row["name"]: value
        for row in rows
        if row["name"] in wanted and (value := row.get(f"generated.{name}")) is not None
    }


def _interval(
    old: Figure, new: Figure, before: dict[str, float], after: dict[str, float]
) -> tuple[float, float, bool]:
    both = sorted(before.keys() & after.keys())
    if len(both) >= 2 and len(both) == new.n:
        found = mean_interval([after[clip] - before[clip] for clip in both])
        return found.low, found.high, True
    change = new.value - old.value
    below = math.hypot(new.value - new.low, old.high - old.value)
    above = math.hypot(new.high - new.value, old.value - old.low)
    return change - below, change + above, False
