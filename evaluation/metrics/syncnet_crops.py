"""The speaker's face as SyncNet is shown it, with the sound of the same time.

    frames at any rate -> the one on screen at every 1/25 s -> the longest track of the face
    boxes, on a straight line where none is seen -> middle and half of the longer side, medians of 13 frames
    square of 1.4 sides, lower by a fifth of one -> (F, 224, 224, 3); grey where it leaves the picture

What run_pipeline.py of https://github.com/joonson/syncnet_python does with the boxes of its detector: those
up to 25 frames apart belong to a track, medians see zeros beyond a track's ends, edges are cut to whole
pixels, and the square is resized bilinearly. The boxes alone are another detector's.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.models.sync_score import SAMPLES_PER_FRAME
from data_pipeline.stages.face_crops import BEYOND, CROP_FPS, CROP_PX, CROP_SCALE, SMOOTHED_FRAMES
from evaluation.metrics.metric import CannotScore, SeenClip

MAX_APART_FRAMES = 25
MIN_FRAMES = 25
PROTOCOL = {"fps": CROP_FPS, "crop_px": CROP_PX, "margin": CROP_SCALE, "smoothed_frames": SMOOTHED_FRAMES}


@dataclass(frozen=True)
class FaceAndSound:
    """What belongs together."""

    faces: np.ndarray
    """(F, 224, 224, 3) uint8 RGB at 25 fps, F >= MIN_FRAMES."""
    sound: np.ndarray
    """(S,) int16 mono at 16 kHz, S >= 640 F."""


def face_and_sound(clip: SeenClip) -> FaceAndSound:
    """Raises CannotScore for a clip without sound, or that shows the face for less than a second."""
    if not len(clip.sound):
        raise CannotScore(f"{clip.name}: has no sound that lips could be compared with")
    count = int(len(clip.frames) / clip.fps * CROP_FPS + 1e-6)
    shown = np.minimum((np.arange(count) * clip.fps / CROP_FPS + 1e-6).astype(int), len(clip.frames) - 1)
    track = _longest_track(np.flatnonzero(clip.seen[shown]))
    if len(track) < MIN_FRAMES:
        raise CannotScore(
            f"{clip.name}: a face is seen for {len(track) / CROP_FPS:.2f} s on end; lips can be compared "
            f"with a sound from {MIN_FRAMES / CROP_FPS:g} s on"
        )
    squares = _squares(clip.boxes[shown[track]], track)
    faces = [_cropped(clip.frames[shown[k]], *square) for k, square in zip(track, squares, strict=True)]
    heard = clip.sound[track[0] * SAMPLES_PER_FRAME : (track[-1] + 1) * SAMPLES_PER_FRAME]
    if len(heard) < MIN_FRAMES * SAMPLES_PER_FRAME:
        raise CannotScore(f"{clip.name}: {len(heard) / ANALYSIS_RATE:.2f} s of its sound belong to the face")
    return FaceAndSound(np.stack(faces), np.pad(heard, (0, len(faces) * SAMPLES_PER_FRAME - len(heard))))


def _longest_track(seen: np.ndarray) -> np.ndarray:
    """Numbers of the frames that show the face -> all numbers from a track's first to its last."""
    tracks = np.split(seen, np.flatnonzero(np.diff(seen) > MAX_APART_FRAMES) + 1)
    longest = max(tracks, key=lambda track: np.ptp(track) if len(track) else -1)
    return np.arange(longest[0], longest[-1] + 1) if len(longest) else longest


def _squares(boxes: np.ndarray, track: np.ndarray) -> np.ndarray:
    """(F, 4) boxes, NaN where none is seen -> (F, 3): x and y of the middle, half of the longer side."""
    from scipy.signal import medfilt

    seen = np.isfinite(boxes).all(axis=1)
    between = [np.interp(track, track[seen], side[seen]) for side in boxes.astype(np.float64).T]
    x0, y0, x1, y1 = between
    series = ((x0 + x1) / 2, (y0 + y1) / 2, np.maximum(x1 - x0, y1 - y0) / 2)
    return np.column_stack([medfilt(one, SMOOTHED_FRAMES) for one in series])


def _cropped(frame: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    import cv2

    below, beside = half * (1 + 2 * CROP_SCALE), half * (1 + CROP_SCALE)
    pad = int(below)
    padded = cv2.copyMakeBorder(frame, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=BEYOND)
    x, y = x + pad, y + pad
    square = padded[int(y - half) : int(y + below), int(x - beside) : int(x + beside)]
    return cv2.resize(square, (CROP_PX, CROP_PX))
