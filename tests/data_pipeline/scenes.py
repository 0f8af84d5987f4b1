"""Made scenes: textures that move a little, so that two of them make a cut and one of them does not."""

from collections.abc import Callable
from functools import cache

import numpy as np

Pixels = Callable[[int, int, int], np.ndarray]


@cache
def _texture(seed: int, grey: bool, contrast: float) -> np.ndarray:
    """(256, 256, 3) float: smooth blobs of a few colours."""
    import cv2

    noise = np.random.default_rng(seed).uniform(0, 255, (16, 16, 1 if grey else 3)).astype(np.float32)
    texture = cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC).reshape(256, 256, -1)
    return 128 + (np.repeat(texture, 3 // texture.shape[2], axis=2) - 128) * contrast


def scene(seed: int, *, grey: bool = False, speed_px: float = 0.5, contrast: float = 1.0) -> Pixels:
    """A texture that glides by, `speed_px` pixels a frame."""

    def pixels(k: int, width: int, height: int) -> np.ndarray:
        shift = round(k * speed_px)
        rows, columns = np.arange(height) % 256, (np.arange(width) + shift) % 256
        texture = _texture(seed, grey, contrast)
        return np.clip(texture[rows[:, None], columns[None, :]], 0, 255).astype(np.uint8)

    return pixels


def joined(*parts: tuple[Pixels, int]) -> Pixels:
    """(scene, frames) one after the other, with hard cuts between."""

    def pixels(k: int, width: int, height: int) -> np.ndarray:
        first = 0
        for shown, n_frames in parts:
            if k < first + n_frames:
                return shown(k - first, width, height)
            first += n_frames
        raise IndexError(f"frame {k} of {first}")

    return pixels


def dissolved(before: Pixels, after: Pixels, start: int, n_frames: int) -> Pixels:
    """One scene fades into another over frames start..start + n_frames."""

    def pixels(k: int, width: int, height: int) -> np.ndarray:
        share = min(max((k - start) / n_frames, 0.0), 1.0)
        mixed = (1 - share) * before(k, width, height) + share * after(k, width, height)
        return mixed.astype(np.uint8)

    return pixels
