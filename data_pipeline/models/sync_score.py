"""What every measure of lip sync answers, and what the sync stage asks of one.

faces (F, 224, 224, 3) at 25 fps, audio (S,) at 16 kHz of the same time, decoys -> SyncScore

A decoy is a stretch of other speech, as long as the clip's: what a mouth and a sound have in common that
have nothing to do with one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE

N_DECOYS = 5
SAMPLES_PER_FRAME = ANALYSIS_RATE // 25


@dataclass(frozen=True, slots=True)
class SyncScore:
    """How well the mouth of one clip fits a sound."""

    offset_frames: float
    """Video frames by which the sound is early (SyncNet's sign): delaying it by so much puts it in sync."""
    confidence: float
    """How much better that offset is than the others, in the measure's own unit; higher is better."""
    distance: float | None
    """How far mouth and sound are apart at that offset (SyncNet: Sync-D); None where nothing says it."""
    margin: float | None
    """`confidence` less the best decoy's; None where there was no decoy to compare with."""


class SyncBackend(Protocol):
    """A measure of lip sync, loaded and ready."""

    name: str
    """What a row's `sync_backend` says."""

    def score(self, faces: np.ndarray, audio: np.ndarray, decoys: Sequence[int]) -> SyncScore:
        """
        faces: (F, 224, 224, 3) uint8 RGB at 25 fps, cropped as syncnet_python crops.
        audio: (S,) int16 mono at 16 kHz, of the same time as the faces.
        decoys: frames of the other speech that it was made with, where those begin that are compared.
        """
        ...


def decoy_frames(clip_id: str, n_samples: int) -> list[int]:
    """N_DECOYS video frames of `n_samples` of other speech. They follow from the clip's name, so that a clip
    always has the same ones; whole frames, so that what is known of a frame serves every clip."""
    first = int(clip_id, 16) % n_samples
    starts = (first + number * n_samples // N_DECOYS for number in range(N_DECOYS))
    return [start % n_samples // SAMPLES_PER_FRAME for start in starts]


def whole_frames(speech: np.ndarray) -> np.ndarray:
    """The sound without what is left of a frame at its end."""
    return speech[: len(speech) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]


def stretch(rows: np.ndarray, start: int, count: int) -> np.ndarray:
    """`count` rows (or samples) from `start` on, round the end."""
    return np.take(rows, np.arange(start, start + count), axis=0, mode="wrap")
