"""The metrics by name: the one table into which a new one is written. Nothing heavy is imported here.

name -> module:class (metrics/metric.py); a user's own metric is named as module:class in its place
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.metrics.metric import Metric

METRICS = {
    "face": "evaluation.metrics.face:FaceMetric",
}
"""Made without arguments."""


def check_metrics(names: Sequence[str]) -> None:
    """Raises ValueError for a name that neither is in the table nor says a module and a class."""
    for name in names:
        if name not in METRICS and ":" not in name:
            raise ValueError(
                f"no metric is called {name!r}; there are {', '.join(METRICS)}, or MODULE:CLASS of your own"
            )


def make_metrics(names: Sequence[str]) -> "dict[str, Metric]":
    """New metrics by name, none of them set up; all of the table where no names are given.

    Raises ValueError: a user's own module or class is not there."""
    return {name: _made(name) for name in (names or METRICS)}


def _made(name: str) -> "Metric":
    module, _, attribute = METRICS.get(name, name).partition(":")
    try:
        metric: Metric = getattr(import_module(module), attribute)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"metrics: {name} cannot be imported: {error}") from None
    return metric
