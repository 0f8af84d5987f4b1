"""Where the mouth is, on the latents' grid: what a loss that heeds lips weighs more.

landmarks of a window's frames, in fractions of its pictures -> outer lips -> their box, with a margin
  -> of each latent frame, the union over its video frames -> (T, 1, h, w) of 0 and 1
"""

import numpy as np
import torch
from torch import Tensor

from data_pipeline.models.lip_shape import LEFT_CORNER, OUTER_LOWER, OUTER_UPPER, RIGHT_CORNER
from training.model.autoencoder import TEMPORAL_STRIDE

LIPS = {
    468: (LEFT_CORNER, RIGHT_CORNER, *OUTER_UPPER, *OUTER_LOWER),
    106: tuple(range(52, 72)),
    68: tuple(range(48, 60)),
    5: (3, 4),
}
"""The outer lips' points, by how many points the face backend gives: MediaPipe's mesh; insightface's 2D and
3D landmarks; its detector's five, of which two are the corners of the mouth."""
MARGIN = 0.25
"""Of the mouth's width, on all sides."""


def mouth_map(boxes: np.ndarray, height: int, width: int) -> Tensor:
    """(F, 4) boxes of a window's frames, in fractions, NaN where unseen -> (T, 1, height, width) float32.

    1 where a box touches a latent of its frame. The first latent frame shows the first frame, each other
    one four: F = 4 (T - 1) + 1."""
    groups = [boxes[:1], *boxes[1:].reshape(-1, TEMPORAL_STRIDE, 4)]
    shown = torch.zeros(len(groups), 1, height, width)
    for number, group in enumerate(groups):
        seen = group[np.isfinite(group).all(axis=1)]
        if not len(seen):
            continue
        x0, y0 = np.floor(seen[:, :2].min(axis=0) * [width, height]).astype(int).clip(0)
        x1, y1 = np.ceil(seen[:, 2:].max(axis=0) * [width, height]).astype(int).clip(0)
        shown[number, 0, y0:y1, x0:x1] = 1
    return shown


def mouth_boxes(landmarks: np.ndarray) -> np.ndarray:
    """(F, points, 2) landmarks -> (F, 4) x0 y0 x1 y1 of the mouth with its margin.

    Raises:
        ValueError: no backend that we know gives so many points.
    """
    points = LIPS.get(landmarks.shape[1])
    if points is None:
        known = ", ".join(str(count) for count in LIPS)
        raise ValueError(
            f"landmarks: a face of {landmarks.shape[1]} points; the mouth is known among {known}"
        )
    lips = landmarks[:, points]
    low, high = lips.min(axis=1), lips.max(axis=1)
    margin = MARGIN * (high[:, :1] - low[:, :1])
    if len(points) == 2:  # corners lie on a line: lips are about half as high as wide
        margin = np.concatenate([margin, 2 * margin], axis=1)
    return np.concatenate([low - margin, high + margin], axis=1)
