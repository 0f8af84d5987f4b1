"""Small real metrics, for tests of what is around metrics: brightness, and a distance between two sets."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np

from data_pipeline.weights import WeightsUnavailable
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Figure, Found, SeenClip

DARK = 8.0
KILL_ONCE = "HALLO3_TEST_KILL_ONCE"
"""Environment: a file; the metric `Dying` takes it away and kills its process."""


class Luminance(MeanOfClips):
    """`luminance`: the mean of all pixels, 0 to 255; a black clip cannot be scored."""

    protocol: Mapping[str, object] = {"of": "all pixels"}

    def __init__(self, name: str = "luminance") -> None:
        super().__init__([name])

    def setup(self) -> None:
        """Nothing to load."""

    def measure(self, clip: SeenClip) -> Found:
        means = clip.frames.mean(axis=(1, 2, 3))
        if means.mean() < DARK:
            raise CannotScore(f"{clip.name}: is black")
        return Found({"luminance": float(means.mean())}, {"luminance_curve": means.astype(np.float32)})


class LuminanceDistance(Luminance):
    """`luminance_distance`: between the means of two sets of frames; needs what frames gave."""

    def __init__(self) -> None:
        super().__init__("luminance_distance")

    def measure(self, clip: SeenClip) -> Found:
        return Found({}, {"means": clip.frames.mean(axis=(1, 2, 3)).astype(np.float32)})

    def update(self, clip: str, found: Found) -> None:
        super().update(clip, Found({"luminance_distance": float(found.arrays["means"].mean())}))

    def compute_against(self, real: Self) -> list[Figure]:
        (mine,), (theirs,) = self.compute(), real.compute()
        return [Figure(mine.name, abs(mine.value - theirs.value), float("nan"), float("nan"), mine.n)]


class Dying(Luminance):
    """Kills its process once, while the file exists that the environment names."""

    def __init__(self) -> None:
        super().__init__("dying")

    def measure(self, clip: SeenClip) -> Found:
        file = Path(os.environ[KILL_ONCE])
        if file.exists():
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return Found({"dying": float(clip.frames.mean())})


class Weightless(Luminance):
    """Its network is nowhere."""

    def setup(self) -> None:
        raise WeightsUnavailable("weightless: its file has sha256 0123, and should have 4567")


class Faulty(Luminance):
    """Has a bug."""

    def __init__(self) -> None:
        super().__init__("faulty")

    def measure(self, clip: SeenClip) -> Found:
        raise ZeroDivisionError("of frames by nothing")
