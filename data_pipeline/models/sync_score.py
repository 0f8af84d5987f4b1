"""What every measure of lip sync answers, and what the sync stage asks of one.

faces (F, 224, 224, 3) at 25 fps, audio (S,) at 16 kHz of the same time, decoys -> SyncScore
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


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

    def score(self, faces: np.ndarray, audio: np.ndarray, decoys: Sequence[np.ndarray]) -> SyncScore:
        """
        faces: (F, 224, 224, 3) uint8 RGB at 25 fps, cropped as syncnet_python crops.
        audio: (S,) int16 mono at 16 kHz, of the same time as the faces.
        decoys: other speech, like `audio` and at least as long.
        """
        ...
