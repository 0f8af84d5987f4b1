"""Takes that no model of the demo was trained on: its people say what none of its sources says.

excerpt, person -> performance -> the crop that curation would make -> FOLDER/{n}-{person}.mp4, with sound
                                  its first frame                   -> FOLDER/{n}-{person}.png
                   phones      -> how far the mouth is open in each frame, 0..1
"""

import os
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.clip import FaceTrack
from data_pipeline.config import EncodeConfig, load_config
from data_pipeline.demo.performance import Performance, perform
from data_pipeline.demo.speech import ENDGAME, RATE, Excerpt, say
from data_pipeline.demo.video import write_video

PEOPLE = ("astronaut", "guest_1", "guest_3", "guest_4", "guest_6")
APART = 2
"""Places in PEOPLE between the two that say the same, so that all say something."""
SIZE_PX = 256
LOOKED_AT = 5  # every so many frames, for the face's place
FPS = 25


@dataclass(frozen=True)
class HeldOutTake:
    """One person who says one thing."""

    name: str
    person: str
    words: str
    """Which another person says, too."""
    video: Path
    """SIZE_PX x SIZE_PX, 25 frames a second, with the voice."""
    portrait: Path
    """Its first frame."""
    opening: np.ndarray
    """(F,) float32 in 0..1: how far the phones open the mouth in each frame."""


def make_held_out(folder: Path, seed: int = 0, *, only: Collection[str] | None = None) -> list[HeldOutTake]:
    """Each excerpt of ENDGAME by two people; files that are there are left as they are.

    `only`: the names of the wanted takes; all where None. Raises WeightsUnavailable where portraits or speech
    cannot be fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    every = {
        f"{number + 1}-{person}": (excerpt, person)
        for number, excerpt in enumerate(ENDGAME)
        for person in (PEOPLE[(number + apart) % len(PEOPLE)] for apart in (0, APART))
    }
    return [_take(folder, name, *every[name], seed) for name in (every if only is None else only)]


def _take(folder: Path, name: str, excerpt: Excerpt, person: str, seed: int) -> HeldOutTake:
    import cv2

    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    performance = perform(person, say([excerpt]), rng, fps=FPS)
    video, portrait = folder / f"{name}.mp4", folder / f"{name}.png"
    if not (video.exists() and portrait.exists()):
        frames = _cropped(list(performance.frames()))
        partial = video.with_name(f".{os.getpid()}.{video.name}")
        sound = performance.utterance.sound[: round(len(frames) * RATE / FPS)]
        write_video(partial, frames, FPS, sound, RATE)
        cv2.imwrite(str(portrait), frames[0][..., ::-1])
        os.replace(partial, video)
    return HeldOutTake(name, person, excerpt.words, video, portrait, _opening(performance))


def _opening(performance: Performance) -> np.ndarray:
    return np.array([pose.opening for pose in performance.poses], np.float32)


def _cropped(frames: list[np.ndarray]) -> np.ndarray:
    """(F, SIZE_PX, SIZE_PX, 3): the face where it is in the clips that curation makes."""
    import cv2

    from data_pipeline.stages.encode import Box, face_crop

    height, width = frames[0].shape[:2]
    track = _track(frames[::LOOKED_AT])
    crop = face_crop(track, Box(0, 0, width, height), _as_curated())
    x0, y0, x1, y1 = (int(side) for side in (crop.x0, crop.y0, crop.x1, crop.y1))
    size = (SIZE_PX, SIZE_PX)
    return np.stack([cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA) for frame in frames])


def _as_curated() -> EncodeConfig:
    """How the demo's sources are cropped."""
    return load_config("demo", ["sources=none", "output=none"]).encode


def _track(frames: list[np.ndarray]) -> FaceTrack:
    """Where the surest face is, in fractions of the picture."""
    from data_pipeline.models.centerface import CenterFace

    detector = CenterFace(longer_side_px=320)
    height, width = frames[0].shape[:2]
    boxes = np.full((len(frames), 4), np.nan, np.float32)
    for row, frame in zip(boxes, frames, strict=True):
        found = detector.detect(frame)
        if len(found):
            row[:] = found.boxes[0] / [width, height, width, height]
    return FaceTrack(
        np.arange(len(frames)) * LOOKED_AT / FPS, boxes, np.empty((len(frames), 0, 2), np.float32)
    )
