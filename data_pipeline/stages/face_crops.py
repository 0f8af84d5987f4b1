"""Face crops: the mouth and what is around it, at the rate and size that measures of lip sync want.

    track (5 boxes a second)  ->  one square a frame of 25 fps, smoothed over half a second
    source, squares           ->  chunks of (n, 224, 224, 3) RGB; one full-size picture at a time

The squares are those of syncnet_python's run_pipeline.py (crop_video), which the published network was
scored with: 1.4 times the box's longer side, the box's middle above the square's by 0.2 of that side,
centre and size median-filtered over 13 frames, grey beyond the picture's edge. Its detector (S3FD) and
ours (CenterFace, SCRFD) all learned their boxes from WIDER FACE, from forehead to chin and ear to ear,
so boxes are taken as they are.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import Clip, FaceTrack
from data_pipeline.stages.encode import Box, at_times, picture_region

if TYPE_CHECKING:
    from data_pipeline.media import VideoFrame

CROP_FPS = 25
CROP_PX = 224
CROP_SCALE = 0.40
SMOOTHED_FRAMES = 13
BEYOND = (110, 110, 110)  # grey, outside the picture
CHUNK = 25  # crops: 3.8 MB


def n_crops(clip: Clip) -> int:
    """How many frames of 25 fps the clip has."""
    if clip.start_s is None or clip.end_s is None:
        raise ValueError(f"{clip.source_uri}: a clip without times has no frames")
    return int((clip.end_s - clip.start_s) * CROP_FPS + 1e-6)


def face_crops(clip: Clip, source: Path, max_pixels: int) -> Iterator[np.ndarray]:
    """The clip's main face from `start_s` to `end_s`, in chunks of (n, 224, 224, 3) uint8 RGB, n <= CHUNK.

    Frame k is what is on screen at start_s + k / 25. Raises media.MediaError, and ValueError for a clip
    whose track is empty."""
    from data_pipeline import media

    count = n_crops(clip)
    if clip.track is None or not np.isfinite(clip.track.boxes).any():
        raise ValueError(f"{source}: no face was tracked, so none can be cropped")
    squares = crop_squares(clip.track, picture_region(clip), np.arange(count) / CROP_FPS)
    # Shrunk until the smallest square has just the crop's size: no detail is lost, none is made up.
    shrink = min(CROP_PX / float(squares[:, 2].min()), 1.0)
    chunk: list[np.ndarray] = []
    frames = media.read_constant_rate(
        source, float(clip.start_s or 0.0), count, Fraction(CROP_FPS), max_pixels=max_pixels
    )
    for frame, square in zip(frames, squares, strict=True):
        chunk.append(_cropped(frame, square, shrink))
        if len(chunk) == CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def crop_squares(track: FaceTrack, region: Box, times_s: np.ndarray) -> np.ndarray:
    """(F, 3): x and y of each square's middle, and its side, in pixels of the source as displayed."""
    from scipy.ndimage import median_filter

    corners = track.boxes.reshape(-1, 2, 2).astype(np.float64)
    corners = corners * [region.width, region.height] + [region.x0, region.y0]
    seen = np.isfinite(corners).all(axis=(1, 2))
    boxes = at_times(corners[seen], track.times_s[seen], times_s)
    centres = boxes.mean(axis=1)
    half = (boxes[:, 1] - boxes[:, 0]).max(axis=1) / 2
    # Beyond the ends the first and last box stay; syncnet_python's filter sees zeros there.
    smooth = median_filter(np.column_stack([centres, half]), (SMOOTHED_FRAMES, 1), mode="nearest")
    x, y, half = smooth.T
    return np.column_stack([x, y + CROP_SCALE * half, 2 * (1 + CROP_SCALE) * half])


def _cropped(frame: "VideoFrame", square: np.ndarray, shrink: float) -> np.ndarray:
    import cv2

    picture = frame.rgb(max(round(max(frame.width, frame.height) * shrink), 1))
    x, y, side = square * (picture.shape[1] / frame.width)
    scale = CROP_PX / side
    # Pixels have their middles at whole numbers plus a half in `square`, and at whole numbers in OpenCV.
    shift = CROP_PX / 2 - np.array([x, y]) * scale + (scale - 1) / 2
    to_crop = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(
        picture,
        to_crop,
        (CROP_PX, CROP_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=BEYOND,
    )
