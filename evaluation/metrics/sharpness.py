"""Sharpness: how much fine detail the face has, at one size.

    face's box -> 256 px high -> Laplacian -> its variance in 8 x 8 tiles -> root of their 90th percentile
    value of a clip: mean over the frames that show the face

Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000; by tiles as the curation has
it (data_pipeline.stages.quality). A face that is smaller is enlarged, and so less sharp: there is less of it.
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline.stages.quality import SHARPNESS_GRID, SHARPNESS_PERCENTILE, sharpness_of
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip
from evaluation.metrics.optical_flow import luma_of

NAME = "sharpness"
FACE_PX = 256


class Sharpness(MeanOfClips):
    """`sharpness`, in luma levels of 0..255, 0 (flat) up."""

    protocol: Mapping[str, object] = {
        "face_px": FACE_PX,
        "tiles": SHARPNESS_GRID,
        "percentile": SHARPNESS_PERCENTILE,
    }

    def __init__(self) -> None:
        super().__init__([NAME])

    def setup(self) -> None:
        """Nothing is to be loaded."""

    def measure(self, clip: SeenClip) -> Found:
        """Raises CannotScore where no frame shows a face."""
        if not clip.seen.any():
            raise CannotScore(f"{clip.name}: no frame shows a face, whose sharpness could be told")
        faces = (_face(clip.frames[number], clip.boxes[number]) for number in np.flatnonzero(clip.seen))
        return Found({NAME: float(np.mean([sharpness_of(face) for face in faces]))})


def _face(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(FACE_PX, W) uint8 luma of what lies in `box` of `frame` (H, W, 3)."""
    import cv2

    height, width = frame.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, [width - 1, height - 1])
    x1, y1 = np.maximum(np.ceil(box[2:]).astype(int), [x0 + 1, y0 + 1])
    luma = luma_of(np.ascontiguousarray(frame[y0:y1, x0:x1]))
    scale = FACE_PX / len(luma)
    resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(luma, (max(1, round(luma.shape[1] * scale)), FACE_PX), interpolation=resampling)
