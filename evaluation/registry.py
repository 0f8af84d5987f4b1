"""The metrics by name: the one table into which a new one is written. Nothing heavy is imported here.

name -> what makes it of the configuration's `metrics` section (metrics/metric.py says what it is)
MODULE:CLASS -> a metric of the user's own, made without arguments
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.config import MetricsConfig
    from evaluation.metrics.metric import Metric

Make = Callable[["MetricsConfig"], "Metric"]


def _face(_: "MetricsConfig") -> "Metric":
    from evaluation.metrics.face import FaceMetric

    return FaceMetric()


def _fid(config: "MetricsConfig") -> "Metric":
    from evaluation.metrics.fid import Fid

    return Fid(config.network)


def _fvd(config: "MetricsConfig") -> "Metric":
    from evaluation.metrics.fvd import Fvd

    return Fvd(config.network)


def _e_fid(_: "MetricsConfig") -> "Metric":
    from evaluation.metrics.e_fid import EFid

    return EFid()


def _sync(config: "MetricsConfig") -> "Metric":
    from evaluation.metrics.sync import sync_metric

    return sync_metric(config.sync)


def _csim(config: "MetricsConfig") -> "Metric":
    from evaluation.metrics.csim import Csim

    return Csim(config.faces)


def _dynamics(_: "MetricsConfig") -> "Metric":
    from evaluation.metrics.dynamics import Dynamics

    return Dynamics()


def _sharpness(_: "MetricsConfig") -> "Metric":
    from evaluation.metrics.sharpness import Sharpness

    return Sharpness()


def _quality(_: "MetricsConfig") -> "Metric":
    from evaluation.metrics.quality import Quality

    return Quality()


def _flicker(_: "MetricsConfig") -> "Metric":
    from evaluation.metrics.flicker import Flicker

    return Flicker()


METRICS: dict[str, Make] = {
    "fid": _fid,
    "fvd": _fvd,
    "sync": _sync,
    "csim": _csim,
    "e_fid": _e_fid,
    "dynamics": _dynamics,
    "sharpness": _sharpness,
    "quality": _quality,
    "flicker": _flicker,
    "face": _face,
}


class MetricsError(ValueError):
    """Metrics that cannot be made; the message names them."""


def check_metrics(names: Sequence[str]) -> None:
    """Raises MetricsError for a name that neither is in the table nor says a module and a class."""
    for name in names:
        if name not in METRICS and ":" not in name:
            raise MetricsError(
                f"no metric is called {name!r}; there are {', '.join(METRICS)}, or MODULE:CLASS of your own"
            )


def make_metric(name: str, config: "MetricsConfig") -> "Metric":
    """A new metric, not set up.

    Raises MetricsError: a user's own module or class is not there; WeightsUnavailable: a file that the
    configuration names is not."""
    if name in METRICS:
        return METRICS[name](config)
    module, _, attribute = name.partition(":")
    try:
        metric: Metric = getattr(import_module(module), attribute)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise MetricsError(f"metrics: {name} cannot be imported: {error}") from None
    return metric


def make_metrics(config: "MetricsConfig") -> "dict[str, Metric]":
    """All that the configuration asks for, by name; as `make_metric`."""
    return {name: make_metric(name, config) for name in config.names or METRICS}
