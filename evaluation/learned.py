"""Did training teach the mouth to follow the voice? A model, the same one untrained, and the real takes.

    held-out takes: portrait, voice, the opening that the voice asks for, the real video
      real videos, at the made ones' size -> mouths -> the lag at which they follow (lip_correlation.py)
      trained's and untrained's videos    -> mouths -> at that lag: own speech, other speech, difference
      -> a mean with its interval for each, and for trained - untrained, take by take

Takes that share their words are drawn together for intervals, as they are no independent witnesses.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from data_pipeline.media import read_frames
from evaluation.metrics.interval import Interval, mean_interval
from evaluation.metrics.lip_correlation import Followed, Mouth, MouthReader, followed, lag_of
from evaluation.picture import read_picture

Source = Literal["untrained", "trained", "real"]
SOURCES: tuple[Source, ...] = ("untrained", "trained", "real")
LEAST_TAKES = 12

Made = dict[Literal["untrained", "trained"], Path]
"""A folder with {name}.mp4 of every take, of the untrained and of the trained model."""


@dataclass(frozen=True)
class HeldOut:
    """A take that no model was trained on."""

    name: str
    words: str
    portrait: Path
    video: Path
    """The real one, framed as the portrait."""
    opening: np.ndarray
    """(F,) what its voice asks of the mouth, 25 a second."""


@dataclass(frozen=True)
class Learned:
    """The figures; a value is the correlation with own speech less that with other speech."""

    lag: int
    """Frames by which mouths follow, of the real takes."""
    takes: dict[Source, list[Followed]]
    values: dict[Source, Interval]
    decoys: dict[Source, Interval]
    """Correlations with other speech alone."""
    gain: Interval
    """trained - untrained, take by take."""

    @property
    def share(self) -> float:
        """Of the way from untrained to real."""
        untrained = self.values["untrained"].value
        return self.gain.value / (self.values["real"].value - untrained)


def judge(takes: Sequence[HeldOut], made: Made, workers: int = 2) -> Learned:
    """The figures of videos that are there.

    Raises:
        ValueError: too few takes, or a portrait without a face.
        FileNotFoundError, MediaError: of a video.
    """
    if len(takes) < LEAST_TAKES:
        raise ValueError(f"takes: expected at least {LEAST_TAKES}, got {len(takes)}")
    videos = {"real": [take.video for take in takes]}
    videos |= {source: [folder / f"{take.name}.mp4" for take in takes] for source, folder in made.items()}
    jobs = [job for source in SOURCES for job in zip(takes, videos[source], videos["trained"], strict=True)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        read = list(pool.map(_mouth, *zip(*jobs, strict=True)))
    mouths = {source: read[place * len(takes) :][: len(takes)] for place, source in enumerate(SOURCES)}
    return figures(takes, mouths)


def figures(takes: Sequence[HeldOut], mouths: Mapping[Source, Sequence[Mouth]]) -> Learned:
    """What the mouths of all takes come to."""
    lag = lag_of(mouths["real"], [take.opening for take in takes])
    follows = {source: _followed(takes, mouths[source], lag) for source in SOURCES}
    words = [take.words for take in takes]
    values = {source: mean_interval([one.value for one in follows[source]], words) for source in SOURCES}
    decoys = {source: mean_interval([one.decoy for one in follows[source]], words) for source in SOURCES}
    pairs = zip(follows["trained"], follows["untrained"], strict=True)
    gain = mean_interval([trained.value - untrained.value for trained, untrained in pairs], words)
    return Learned(lag, follows, values, decoys, gain)


def _followed(takes: Sequence[HeldOut], mouths: Sequence[Mouth], lag: int) -> list[Followed]:
    openings = {take.words: take.opening for take in takes}
    return [
        followed(mouth, take.opening, [one for words, one in openings.items() if words != take.words], lag)
        for take, mouth in zip(takes, mouths, strict=True)
    ]


def _mouth(take: HeldOut, video: Path, sized_as: Path) -> Mouth:
    """Of a take's video, at the size of another one: real mouths are seen no sharper than made ones."""
    import cv2

    like = next(read_frames(sized_as)).rgb()
    size = (like.shape[1], like.shape[0])
    frames = [cv2.resize(frame.rgb(), size, interpolation=cv2.INTER_AREA) for frame in read_frames(video)]
    return MouthReader().read(np.stack(frames), read_picture(take.portrait))
