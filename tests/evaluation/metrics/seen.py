"""Clips whose truth is known, as if they had been seen: pictures with a face that is where one says."""

from collections.abc import Sequence

import numpy as np

from evaluation.metrics.metric import SeenClip

Box = tuple[float, float, float, float]
EVERYWHERE_NONE = (np.nan,) * 4


def seen_clip(
    frames: Sequence[np.ndarray] | np.ndarray,
    box: Box | Sequence[Box] = EVERYWHERE_NONE,
    *,
    fps: float = 25.0,
    sound: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    decoys: Sequence[np.ndarray] = (),
) -> SeenClip:
    """`box`: x0 y0 x1 y1 of the face, in all frames or one a frame; without it there is none."""
    pictures = np.asarray(frames)
    boxes = np.broadcast_to(np.asarray(box, np.float32), (len(pictures), 4)).copy()
    silence = np.zeros(0, np.int16)
    return SeenClip(
        name="a clip",
        frames=pictures,
        fps=fps,
        sound=silence if sound is None else sound,
        boxes=boxes,
        meshes=[None] * len(pictures),
        reference=pictures[0] if reference is None else reference,
        decoys=decoys,
    )


def texture(height: int, width: int, seed: int = 0, smooth_px: float = 2.0) -> np.ndarray:
    """(height, width, 3) uint8: smooth noise of full contrast, grey."""
    import cv2

    noise = np.random.default_rng(seed).normal(size=(height, width))
    noise = cv2.GaussianBlur(noise, (0, 0), smooth_px)
    levels = np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2)


def drifting(picture: np.ndarray, step_px: int, n_frames: int, side: int) -> np.ndarray:
    """(n_frames, side, side, 3): a window over `picture` goes to the left, what it shows to the right."""
    begin = n_frames * step_px
    return np.stack([picture[:side, begin - k * step_px :][:, :side] for k in range(n_frames)])
