"""The state of a metric whose figures are means over clips: what each clip's row says, by the clip's name.

update: clip, values -> kept        merge: the clips of another worker        compute -> mean and interval

Nothing is added up before the end, and then in the order of the clips' names: floating-point sums depend on
their order, and the figures may not depend on who measured which clip, or when.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Self

from evaluation.metrics.interval import mean_interval
from evaluation.metrics.metric import Figure, Found


class MeanOfClips:
    """What the metrics of single clips have in common; they add `protocol`, `setup` and `measure`."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: of the figures, and of the values that they are means of."""
        self.names: Sequence[str] = tuple(names)
        self._values: dict[str, dict[str, float]] = {}

    def update(self, clip: str, found: Found) -> None:
        """A clip need not have every value: its figure is the mean over those that have it.

        Raises ValueError for a clip that is in the state already, and for a value that is not finite."""
        if clip in self._values:
            raise ValueError(f"clip {clip!r}: it is in the state already, and would count twice")
        self._values[clip] = self._of_interest(clip, found.values)

    def merge(self, other: Self) -> None:
        """Raises ValueError where a clip is in both, or the figures are not the same."""
        if self.names != other.names:
            raise ValueError(f"states of {self.names} and of {other.names} do not add up")
        if twice := sorted(self._values.keys() & other._values.keys()):
            raise ValueError(
                f"clip {twice[0]!r}: it is in both states ({len(twice)} are), and would count twice"
            )
        self._values |= other._values

    def compute(self) -> list[Figure]:
        """The mean over the clips; its interval is NaN of one clip, and all is NaN of none."""
        return [self._figure(name) for name in self.names]

    def _of_interest(self, clip: str, values: Mapping[str, float]) -> dict[str, float]:
        kept = {name: float(values[name]) for name in self.names if name in values}
        for name, value in kept.items():
            if not math.isfinite(value):
                raise ValueError(f"clip {clip!r}: {name} is {value}; leave out what could not be measured")
        return kept

    def _figure(self, name: str) -> Figure:
        values = [row[name] for _, row in sorted(self._values.items()) if name in row]
        if len(values) < 2:
            return Figure(name, values[0] if values else math.nan, math.nan, math.nan, len(values))
        mean = mean_interval(values)
        return Figure(name, mean.value, mean.low, mean.high, mean.n)
