"""Damage: how much of a stretch was lost or decoded with errors, and when that is too much.

A packet that cannot be decoded, or a frame that its decoder marks as damaged, spoils every frame up to
the next key frame, because each is predicted from the one before.
"""

import math
from typing import Any

from data_pipeline.clip import Reason
from data_pipeline.media.info import MediaError
from data_pipeline.storage import Location

MAX_DAMAGED = 0.05
"""Share of a stretch's frames, or of the announced duration, that may be damaged or missing."""


class Damage:
    """Counts the frames whose time is at least `start_s`; earlier ones only hand on what spoils them."""

    def __init__(self, path: Location, start_s: float) -> None:
        self._path = path
        self._start_s = start_s
        self._n_frames = 0
        self._n_damaged = 0
        self._spoiled = False
        self._first_failure = "damaged pictures"

    def lost(self, time_s: float | None, failure: Exception) -> None:
        """A packet of that time (None: unknown) could not be decoded."""
        if self._n_damaged == 0:
            self._first_failure = str(failure)
        self._spoiled = True
        self._count(math.inf if time_s is None else time_s)

    def decoded(self, time_s: float, frame: Any) -> None:
        """A frame came out of the decoder."""
        self._spoiled = frame.is_corrupt or (self._spoiled and not frame.key_frame)
        self._count(time_s)

    def _count(self, time_s: float) -> None:
        if time_s >= self._start_s:
            self._n_frames += 1
            self._n_damaged += self._spoiled

    def check(self) -> None:
        """Raises MediaError(CORRUPT) where more than MAX_DAMAGED of the frames are damaged."""
        if self._n_damaged > MAX_DAMAGED * self._n_frames:
            share = f"{self._n_damaged} of {self._n_frames} frames are damaged"
            raise MediaError(Reason.CORRUPT, f"{self._path}: {share} ({self._first_failure})")
