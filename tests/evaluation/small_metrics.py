"""Small real metrics, for tests of what is around metrics: brightness, and a distance between two sets."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from data_pipeline.weights import WeightsUnavailable
from evaluation.metrics.face import mean_figure
from evaluation.metrics.metric import CannotScore, Figure, Found, SeenClip

DARK = 8.0
KILL_ONCE = "HALLO3_TEST_KILL_ONCE"
"""Environment: a file; the metric `Dying` takes it away and kills its process."""


class Luminance:
    """`luminance`: the mean of all pixels, 0 to 255; a black clip cannot be scored."""

    names: Sequence[str] = ("luminance",)
    protocol: Mapping[str, object] = {"of": "all pixels"}

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def setup(self) -> None:
        """Nothing to load."""

    def measure(self, clip: SeenClip) -> Found:
        means = clip.frames.mean(axis=(1, 2, 3))
        if means.mean() < DARK:
            raise CannotScore(f"{clip.name}: is black")
        return Found({"luminance": float(means.mean())}, {"luminance_curve": means.astype(np.float32)})

    def update(self, clip: str, found: Found) -> None:
        self.values[clip] = found.values["luminance"]

    def merge(self, other: Self) -> None:
        self.values |= other.values

    def compute(self) -> list[Figure]:
        return [mean_figure("luminance", self.values)]


class LuminanceDistance(Luminance):
    """`luminance_distance`: between the means of two sets of frames; needs what frames gave."""

    names: Sequence[str] = ("luminance_distance",)

    def measure(self, clip: SeenClip) -> Found:
        return Found({}, {"means": clip.frames.mean(axis=(1, 2, 3)).astype(np.float32)})

    def update(self, clip: str, found: Found) -> None:
        self.values[clip] = float(found.arrays["means"].mean())

    def compute_against(self, real: Self) -> list[Figure]:
        nan = float("nan")
        both = [np.mean(list(side.values.values())) if side.values else nan for side in (self, real)]
        return [Figure("luminance_distance", abs(float(both[0] - both[1])), nan, nan, len(self.values))]


class Dying(Luminance):
    """Kills its process once, while the file exists that the environment names."""

    names: Sequence[str] = ("dying",)

    def measure(self, clip: SeenClip) -> Found:
        file = Path(os.environ[KILL_ONCE])
        if file.exists():
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return Found({"luminance": float(clip.frames.mean())})

    def compute(self) -> list[Figure]:
        return [mean_figure("dying", self.values)]


class Weightless(Luminance):
    """Its network is nowhere."""

    def setup(self) -> None:
        raise WeightsUnavailable("weightless: its file has sha256 0123, and should have 4567")


class Faulty(Luminance):
    """Has a bug."""

    names: Sequence[str] = ("faulty",)

    def measure(self, clip: SeenClip) -> Found:
        raise ZeroDivisionError("of frames by nothing")
