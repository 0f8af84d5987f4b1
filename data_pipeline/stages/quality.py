"""Quality: what a picture says of itself, measured while a source streams by.

    each frame, small         -> FrameLook: brightness, change since the frame before, whether it is a repeat
    each analysis frame       -> sharpness;  one full-size frame a second -> blockiness
    the looks of one clip     -> Quality: its luminance, sharpness, motion, blockiness, repeated_frame_ratio

All on luma of 0..255, so that no value depends on what a model was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOOK_PX = 128  # longer side of the small frames
SHARPNESS_PX = 320  # longer side at which sharpness is measured, at most: what is finer is noise and encoding
SHARPNESS_GRID = 8  # tiles across and down
SHARPNESS_PERCENTILE = 90.0  # of the tiles: a blurred background does not make a sharp face blurry
# Two showings of one picture differ by what an encoder does in between: it refines all of the picture
# by a level, or a few places by more. A mouth that moves is a place that differs by many levels.
REPEAT_REFINED = 1.0  # luma levels, over any 4 x 4 small pixels
REPEAT_PLACES, REPEAT_PLACES_MEAN = 2.0, 0.1  # levels over any 4 x 4, while the whole differs by less than
MOTION_FPS = 25.0  # motion is told per 1/25 s


@dataclass(frozen=True, slots=True)
class FrameLook:
    """One frame. `change` is the mean absolute difference in luma from the frame before, 0..255."""

    time_s: float
    luminance: float
    change: float
    repeated: bool
    """Shows the same picture as the frame before."""
    sharpness: float | None = None
    blockiness: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """One clip's values, rounded; the names are the record's."""

    luminance: float
    """Mean luma, 0..255: the median over the frames."""
    sharpness: float | None
    """See `sharpness_of`: the median over the analysis frames."""
    motion: float
    """Luma levels per 1/25 s: the sum of all changes that are not repeats, over the time that passed."""
    blockiness: float | None
    """See `blockiness_of`: the median over the frames."""
    repeated_frame_ratio: float
    """Share of the frames that repeat the one before: 0.6 for 24 fps shown at 60, about 1 for a still."""


def change_between(before: np.ndarray, after: np.ndarray) -> tuple[float, bool]:
    """(H, W) uint8 luma of two frames in a row -> (mean absolute difference, whether it is a repeat)."""
    import cv2

    difference = cv2.absdiff(before, after)
    change = float(cv2.mean(difference)[0])
    local = float(cv2.blur(difference, (4, 4)).max())
    repeated = local <= (REPEAT_PLACES if change < REPEAT_PLACES_MEAN else REPEAT_REFINED)
    return change, repeated


def sharpness_of(luma: np.ndarray) -> float:
    """(H, W) uint8 -> standard deviation of the Laplacian in the sharp parts of the picture, 0 (flat) up.

    The variance of the Laplacian (Pech-Pacheco et al. 2000) in each of 8 x 8 tiles, at a longer side of
    at most SHARPNESS_PX; the root of the tiles' 90th percentile."""
    import cv2

    scale = min(1.0, SHARPNESS_PX / max(luma.shape))
    if scale < 1:
        luma = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    laplacian = cv2.Laplacian(luma, cv2.CV_32F)
    tiles = (SHARPNESS_GRID, SHARPNESS_GRID)
    mean = cv2.resize(laplacian, tiles, interpolation=cv2.INTER_AREA)
    mean_of_squares = cv2.resize(laplacian * laplacian, tiles, interpolation=cv2.INTER_AREA)
    variance = np.maximum(mean_of_squares - mean * mean, 0.0)
    return float(np.sqrt(np.percentile(variance, SHARPNESS_PERCENTILE)))


def blockiness_of(luma: np.ndarray) -> float:
    """(H, W) uint8 of a full-size picture -> how much more neighbours differ across the borders of 8 x 8
    blocks than elsewhere: about 1 for a clean picture, more for one compressed hard.

    The blocking measure of Wang, Sheikh and Bovik (2002), as a ratio to the picture's own activity, so
    that texture does not count. Seen only where the blocks still lie on the grid: not after scaling."""
    across = _border_ratio(np.abs(np.diff(luma.astype(np.int16), axis=1)).mean(axis=0))
    down = _border_ratio(np.abs(np.diff(luma.astype(np.int16), axis=0)).mean(axis=1))
    return (across + down) / 2


def _border_ratio(differences: np.ndarray) -> float:
    """(N - 1,) mean differences between neighbouring columns (or rows)."""
    at_border = np.arange(len(differences)) % 8 == 7
    if not at_border.any():
        return 1.0
    # Half a level keeps a flat picture, where both are almost 0, at 1.
    return float((differences[at_border].mean() + 0.5) / (differences[~at_border].mean() + 0.5))


def quality_of(looks: Sequence[FrameLook], duration_s: float) -> Quality:
    """The frames of one clip -> its quality. The first frame's change belongs to what came before."""
    changes = looks[1:]
    moved = sum(look.change for look in changes if not look.repeated)
    sharpness = [look.sharpness for look in looks if look.sharpness is not None]
    blockiness = [look.blockiness for look in looks if look.blockiness is not None]
    return Quality(
        luminance=round(float(np.median([look.luminance for look in looks])), 2),
        sharpness=round(float(np.median(sharpness)), 3) if sharpness else None,
        motion=round(moved / (duration_s * MOTION_FPS), 4),
        blockiness=round(float(np.median(blockiness)), 3) if blockiness else None,
        repeated_frame_ratio=round(sum(look.repeated for look in changes) / max(len(changes), 1), 4),
    )
