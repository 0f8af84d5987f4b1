"""Curves over a run's steps as a page draws them: paths in a box, ticks beside it, whatever their number.

steps and values, up to hundreds of thousands -> at most POINTS places along the axis
  raw values: from the lowest to the highest at each place, so that no outlier is averaged away
  smoothed: a mean with Gaussian weights, its width a share of the run
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

POINTS = 400
WIDTH, HEIGHT = 1000, 100
"""Of the box; the page stretches it."""
SMOOTHED_FROM = 12
"""Values; fewer are shown as they are."""
SMOOTH_SHARE = 0.01
LOG_FROM = 12.0
"""Highest to lowest, from which the axis is logarithmic."""


@dataclass(frozen=True)
class Line:
    """One series of a chart."""

    name: str
    steps: np.ndarray
    """(N,) int64, rising."""
    values: np.ndarray
    """(N,) float64; NaN where nothing is known."""
    look: str = "main"
    """A class of the page's style: main, second, raw, quantile."""
    colour: float = 0.0
    """0..1, of looks that have a range of colours."""

    @property
    def is_raw(self) -> bool:
        return self.look == "raw"

    @cached_property
    def last(self) -> float | None:
        known = self.values[np.isfinite(self.values)]
        return float(known[-1]) if len(known) else None

    @cached_property
    def extent(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps, lowest and highest values, (P,) each with P <= POINTS."""
        known = np.isfinite(self.values)
        steps, values = self.steps[known], self.values[known]
        if len(steps) <= POINTS:
            return steps, values, values
        first = np.unique(np.linspace(0, len(steps), POINTS, endpoint=False).astype(int))
        return steps[first], np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)

    @property
    def points(self) -> list[tuple[int, float]]:
        """What a reader that points at the chart is told."""
        steps, low, high = self.extent
        return [
            (int(step), float(f"{value:.4g}")) for step, value in zip(steps, (low + high) / 2, strict=True)
        ]


@dataclass(frozen=True)
class Chart:
    """Lines over the same steps, with one axis of values."""

    title: str
    lines: list[Line]
    unit: str = ""
    from_zero: bool = False
    percent: bool = False

    @property
    def is_empty(self) -> bool:
        return all(line.last is None for line in self.lines)

    @cached_property
    def steps(self) -> tuple[int, int]:
        """The first and the last."""
        known = [line.steps for line in self.lines if len(line.steps)]
        return min(int(steps[0]) for steps in known), max(int(steps[-1]) for steps in known)

    @cached_property
    def log(self) -> bool:
        low, high = self._span
        return not self.from_zero and not self.percent and low > 0 and high / low > LOG_FROM

    @cached_property
    def range(self) -> tuple[float, float]:
        """Of the axis: all of smoothed lines, and all but the outermost hundredths of raw ones."""
        low, high = self._span
        if self.percent:
            return 0.0, max(0.1, min(1.0, high * 1.05))
        if self.from_zero:
            return 0.0, high * 1.05 or 1.0
        if self.log:
            return low / 1.08, high * 1.08
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        return low - margin, high + margin

    def x(self, step: float) -> float:
        """Percent from the left."""
        first, last = self.steps
        return round(100 * (step - first) / (last - first), 3) if last > first else 50.0

    def y(self, value: float) -> float:
        """Percent from the top."""
        low, high = self.range
        if self.log:
            value, low, high = math.log(max(value, 1e-300)), math.log(low), math.log(high)
        return round(100 - 100 * (value - low) / (high - low), 3)

    def path(self, line: Line) -> str:
        """As SVG draws it in the box."""
        steps, lows, highs = line.extent
        places = [
            (10 * self.x(step), self.y(low), self.y(high))
            for step, low, high in zip(steps, lows, highs, strict=True)
        ]
        if len(places) == 1:  # a short dash
            x, y, _ = places[0]
            return f"M{x - 4:.4g} {y:.4g}H{x + 4:.4g}"
        if line.is_raw:
            return "M" + "L".join(
                f"{x:.4g} {low:.4g}" + (f"V{high:.4g}" if high != low else "") for x, low, high in places
            )
        return "M" + "L".join(f"{x:.4g} {(low + high) / 2:.4g}" for x, low, high in places)

    @property
    def x_ticks(self) -> list[float]:
        first, last = self.steps
        return [tick for tick in _ticks(first, last, 6) if tick == round(tick)]

    @property
    def y_ticks(self) -> list[float]:
        low, high = self.range
        if not self.log:
            return _ticks(low, high, 5)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        wide = high / low > 1e3
        ticks = [nice * 10.0**power for power in powers for nice in ((1,) if wide else (1, 2, 5))]
        inside = [tick for tick in ticks if low <= tick <= high]
        return inside[:: math.ceil(len(inside) / 6)] if inside else []

    @cached_property
    def _span(self) -> tuple[float, float]:
        ends = []
        for line in self.lines:
            known = line.values[np.isfinite(line.values)]
            if len(known):
                ends.append(np.quantile(known, [0.01, 0.99] if line.is_raw else [0.0, 1.0]))
        return float(np.min(ends)), float(np.max(ends))


def smoothed(values: np.ndarray) -> np.ndarray:
    """(N,) with every value the mean of those around it, those that are not finite left out."""
    known = np.isfinite(values)
    if known.sum() < SMOOTHED_FROM:
        return values
    sigma = max(1.0, SMOOTH_SHARE * len(values))
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    total = _convolved(np.where(known, values, 0.0), kernel)
    weight = _convolved(known.astype(float), kernel)
    return np.where(known, total / np.maximum(weight, 1e-12), np.nan)


def _convolved(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    from scipy.signal import fftconvolve

    return np.asarray(fftconvolve(values, kernel, mode="full")[len(kernel) // 2 :][: len(values)])


def _ticks(low: float, high: float, about: int) -> list[float]:
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step = next(step * nice for nice in (1, 2, 5, 10) if (high - low) / (step * nice) <= about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(tick * step, 12) for tick in range(first, last + 1)]
