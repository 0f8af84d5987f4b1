"""Does a mouth open when the speech has it open? Own speech against other speech, at a lag fixed beforehand.

    frames -> face mesh at the portrait's face -> (F,) gap between the outer lips, seen or not
    gap, the opening that the speech asks for -> correlation over a clip, a frame without a face counts as 0
    value of a clip: correlation with its own speech - mean correlation with other speech

A correlation at the best of many lags is positive on noise, so one lag holds for all clips: that of the real
ones. What wrong speech gives is not zero either (mouths open at some rate, whatever is said), so it is taken
off and shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.models.detections import Detections
from data_pipeline.models.face_mesh import FaceMesh
from data_pipeline.models.face_models import MIN_PRESENCE
from data_pipeline.models.lip_shape import OUTER_GAP, lips_of

LOOKED_AT_PX = 256
"""Smaller pictures are enlarged to it: the mesh wants a face of some size."""
MAX_LAG = 3
"""Frames, either way, among which the real clips choose."""
LEAST_SEEN = 12
"""Frames; a correlation of fewer means nothing."""


@dataclass(frozen=True)
class Mouth:
    """One clip's mouth."""

    gap: np.ndarray
    """(F,) between the outer lips, in distances between the eyes' outer corners; anything where unseen."""
    seen: np.ndarray
    """(F,) bool: a face is there."""


@dataclass(frozen=True)
class Followed:
    """How one clip's mouth follows speech."""

    own: float
    """Correlation with its own speech, -1 ... 1."""
    decoy: float
    """Mean correlation with other speech."""
    seen: float
    """Share of the frames that have a face."""

    @property
    def value(self) -> float:
        return self.own - self.decoy


class MouthReader:
    """Reads mouths; one at a time, on one CPU thread."""

    def __init__(self) -> None:
        from data_pipeline.models.centerface import CenterFace

        self._detector = CenterFace(longer_side_px=LOOKED_AT_PX)
        self._mesh = FaceMesh()

    def read(self, frames: np.ndarray, portrait: np.ndarray) -> Mouth:
        """
        Args:
            frames: (F, H, W, 3) uint8 RGB.
            portrait: (H', W', 3) uint8 RGB, framed as the frames are: theirs is looked for where its face is.

        Raises:
            ValueError: the portrait shows no face.
        """
        found = self._face_of(_enlarged(portrait))
        meshes = [self._mesh.fit(_enlarged(frame), found.boxes[0], found.points[0, :2]) for frame in frames]
        seen = np.array([mesh.presence >= MIN_PRESENCE for mesh in meshes])
        return Mouth(lips_of(np.array([mesh.points for mesh in meshes]))[:, OUTER_GAP], seen)

    def _face_of(self, portrait: np.ndarray) -> Detections:
        found = self._detector.detect(portrait)
        if not len(found):
            raise ValueError("portrait: no face is seen in it, so none can be looked for in the frames")
        return found


def correlation(mouth: Mouth, opening: np.ndarray, lag: int) -> float:
    """Pearson's, times the share of frames with a face: each of the others adds nothing to the sum.

    Args:
        opening: (F',) what the speech asks for, F' >= F; the mouth shows it `lag` frames later.
    """
    places = np.arange(len(mouth.gap))
    asked = places - lag
    used = mouth.seen & (asked >= 0) & (asked < len(opening))
    if used.sum() < LEAST_SEEN:
        return 0.0
    gap, heard = mouth.gap[used], opening[asked[used]].astype(float)
    gap, heard = gap - gap.mean(), heard - heard.mean()
    scale = np.sqrt((gap @ gap) * (heard @ heard))
    return float(gap @ heard / scale) * float(mouth.seen.mean()) if scale > 1e-12 else 0.0


def followed(mouth: Mouth, own: np.ndarray, others: Sequence[np.ndarray], lag: int) -> Followed:
    """How a clip's mouth follows its `own` speech, and `others`: openings (F',), repeated where shorter.

    Raises ValueError for no other speech."""
    if not others:
        raise ValueError("others: expected at least one other speech to compare with, got none")
    decoys = [correlation(mouth, np.resize(other, len(mouth.gap)), lag) for other in others]
    return Followed(correlation(mouth, own, lag), float(np.mean(decoys)), float(mouth.seen.mean()))


def lag_of(mouths: Sequence[Mouth], openings: Sequence[np.ndarray]) -> int:
    """The lag, in frames, at which real clips follow their own speech best, on the mean."""
    lags = range(-MAX_LAG, MAX_LAG + 1)
    means = [
        np.mean([correlation(mouth, own, lag) for mouth, own in zip(mouths, openings, strict=True)])
        for lag in lags
    ]
    return lags[int(np.argmax(means))]


def _enlarged(picture: np.ndarray) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    scale = LOOKED_AT_PX / max(height, width)
    if scale <= 1:
        return picture
    size = (round(width * scale), round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
