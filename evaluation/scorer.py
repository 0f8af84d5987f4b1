"""One process that holds all metrics' networks and scores one video after the other, in a Ray actor.

    look -> the video's sha256 -> known already: its words and values
         -> seen once (look.py) -> every metric measures -> on the disk (found_store.py)

Only names, words and values go through Ray.
"""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.shards import file_sha256
from data_pipeline.weights import WeightsUnavailable
from evaluation.config import ClipConfig, MetricsConfig
from evaluation.found_store import FoundStore, Scored
from evaluation.look import NOT_SEEN, Look, reader_of, see
from evaluation.metrics.metric import CannotScore, Metric, SeenClip
from evaluation.registry import make_metric, make_metrics

log = logging.getLogger(__name__)


class MetricUnusable(RuntimeError):
    """A metric that cannot be set up; the message names it, and says why."""


@dataclass(frozen=True)
class Shot:
    """A video to be scored, and where what is found is kept."""

    look: Look
    store: Path


class Scorer:
    """Asked to `prepare`, then to `score`."""

    def __init__(
        self, metrics: MetricsConfig, clip: ClipConfig, agreed: Mapping[str, Mapping[str, object]]
    ) -> None:
        """`agreed`: every metric's protocol where the evaluation was planned."""
        self._config, self._clip, self._agreed = metrics, clip, agreed
        self._metrics: dict[str, Metric] = {}

    def prepare(self) -> None:
        """Load all networks. Raises MetricUnusable."""
        self._reader = reader_of(self._clip)
        self._metrics = make_metrics(self._config)
        for name, metric in self._metrics.items():
            self._check_agreed(name, metric)
            try:
                metric.setup()
            except (OSError, ValueError, WeightsUnavailable) as error:
                raise MetricUnusable(f"metric {name} cannot be used: {error}; or leave it out") from None

    def _check_agreed(self, name: str, metric: Metric) -> None:
        """A machine on which a metric would take another network must not mix its figures in."""
        if dict(metric.protocol) != dict(self._agreed[name]):
            raise MetricUnusable(
                f"metric {name}: {platform.node()} would measure it by {dict(metric.protocol)}, and the "
                f"evaluation is by {dict(self._agreed[name])}; put the same weights on all machines"
            )

    def score(self, shot: Shot) -> Scored:
        """What there is to know of a video. What may go well the next time is not kept."""
        video, name = shot.look.video, shot.look.item.name
        store = FoundStore(shot.store)
        try:
            sha256 = file_sha256(video)
        except OSError as error:
            return Scored("", error=f"{video}: {error.strerror}")
        known = store.scored(name)
        if known is not None and known.video_sha256 == sha256:
            return known
        try:
            clip = see(shot.look, self._clip, self._reader)
        except NOT_SEEN as error:
            scored = Scored(sha256, error=str(error))
            store.write(name, scored, {})
            return scored
        return self._measured(clip, sha256, store)

    def _measured(self, clip: SeenClip, sha256: str, store: FoundStore) -> Scored:
        values: dict[str, Mapping[str, float]] = {}
        arrays: dict[str, Mapping[str, np.ndarray]] = {}
        errors: dict[str, str] = {}
        lasting = True
        for name, metric in self._metrics.items():
            try:
                found = metric.measure(clip)
                make_metric(name, self._config).update(clip.name, found)  # what no state takes is an error
                values[name] = {key: float(value) for key, value in found.values.items()}
                arrays[name] = found.arrays
            except CannotScore as error:
                errors[name] = str(error)
            except Exception as error:  # a metric's fault costs its own figure, of this clip
                log.exception("%s: %s", clip.name, name)
                errors[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                lasting = False
        scored = Scored(sha256, values, errors)
        if lasting:
            store.write(clip.name, scored, arrays)
        return scored
