"""Dense optical flow between two pictures, at one size whatever the video's.

DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, OpenCV's medium preset.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

FLOW_PX = 256
"""Longer side of the pictures between which it is sought; smaller ones stay as they are."""
METHOD = "DIS, medium"


class OpticalFlow:
    """The algorithm, on one CPU thread."""

    def __init__(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(H, W) uint8 luma each -> (H, W, 2) float32: to the right and down, in pixels, where what `first`
        shows at each pixel lies in `second`."""
        return self._dis.calc(first, second, None)


def at_flow_size(frames: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
    """(F, H, W, 3) uint8 RGB -> pictures whose longer side is at most FLOW_PX, aspect kept."""
    import cv2

    height, width = frames[0].shape[:2]
    scale = min(1.0, FLOW_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame for frame in frames]


def luma_of(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 (ITU-R BT.601)."""
    import cv2

    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
