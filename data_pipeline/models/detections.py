"""Detections: the faces that a detector found in one picture, and what is done with their boxes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces in one picture, surest first; coordinates in the picture's pixels."""

    boxes: np.ndarray
    """(N, 4) float32, x0 y0 x1 y1."""
    scores: np.ndarray
    """(N,) float32, in [0, 1]."""
    points: np.ndarray
    """(N, 5, 2) float32: left eye, right eye, nose, left and right of the mouth, as the picture has it."""

    def __len__(self) -> int:
        return len(self.boxes)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1; 0 where either is empty."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    total = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / total if total > 0 else 0.0


def crop_around(image: np.ndarray, box: np.ndarray, margin: float, side_px: int) -> np.ndarray:
    """(side_px, side_px, 3): the square around the middle of `box`, `margin` of its longer sides wide.

    What lies outside of `image` (H, W, 3) is black."""
    import cv2

    scale = side_px / (max(float((box[2:] - box[:2]).max()), 1.0) * margin)
    shift = side_px / 2 - (box[:2] + box[2:]) / 2 * scale
    to_crop = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, to_crop, (side_px, side_px), flags=resampling)
