"""Clips for metrics, as the runner gives them."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.models.face_mesh import Mesh
from evaluation.metrics.metric import SeenClip


def seen_clip(name: str, frames: np.ndarray, meshes: Sequence[Mesh | None] = ()) -> SeenClip:
    """A clip without sound; faces are nowhere, but for the meshes."""
    return SeenClip(
        name=name,
        frames=frames,
        fps=25.0,
        sound=np.zeros(0, np.int16),
        boxes=np.full((len(frames), 4), np.nan, np.float32),
        meshes=meshes or [None] * len(frames),
        reference=frames[0],
    )


def portrait_clip(name: str, n_frames: int, seed: int, size: int = 96) -> SeenClip:
    """A portrait that drifts over a plain wall of its own colour."""
    import cv2

    from tests.data_pipeline.face_media import astronaut

    rng = np.random.default_rng(seed)
    face = cv2.resize(astronaut()[:256, 96:352], (size // 2, size // 2))
    frames = np.empty((n_frames, size, size, 3), np.uint8)
    frames[:] = rng.integers(0, 255, 3)
    left, top = rng.integers(0, size // 4, 2)
    for index, frame in enumerate(frames):
        at = left + index % (size // 4)
        frame[top : top + size // 2, at : at + size // 2] = face
    return seen_clip(name, frames)
