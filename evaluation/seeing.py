"""A video file -> SeenClip: its pictures, its sound and the speaker's face, looked for once for all metrics.

    file  -> pictures at one constant rate, the first MAX_S of them      (F, H, W, 3)
          -> sound of the same time, 16 kHz mono                         (S,)
    every fifth of a second -> faces -> tracks -> the one that is largest and longest there: the speaker's
    between two of these    -> its box on a straight line -> the mesh of every frame

One CPU thread looks; the result does not depend on how many there are.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipeline import face_tracks, media
from data_pipeline.clip import ANALYSIS_RATE, Reason
from data_pipeline.face_tracks import Track
from data_pipeline.media import MediaError, MediaInfo
from data_pipeline.models.centerface import WEIGHTS as DETECTOR
from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.face_mesh import WEIGHTS as MESH
from data_pipeline.models.face_mesh import FaceMesh, Mesh
from data_pipeline.models.face_models import MIN_PRESENCE
from evaluation.metrics.metric import SeenClip

MAX_S = 20.0
"""Of a longer video the first `MAX_S` seconds are seen and heard, and the rest is not."""
MAX_PX = 1024
"""Longer side of the pictures: larger ones are shrunk to it. 20 s at 25 fps are then at most 1.6 GB."""
MIN_FRAMES = 2
DETECTIONS_FPS = 5
DETECTOR_PX = 320


class CannotSee(ValueError):
    """No metric can be measured of this file: missing, damaged, no video or too short; its words say."""


class ClipReader:
    """Reads videos with the models of one worker; one at a time."""

    def __init__(self, max_s: float = MAX_S, max_px: int = MAX_PX) -> None:
        """Raises WeightsUnavailable where the models are not here."""
        self._max_s, self._max_px = max_s, max_px
        self._detector = CenterFace(DETECTOR_PX)  # also: OpenCV on one thread
        self._mesh = FaceMesh()

    @property
    def protocol(self) -> Mapping[str, object]:
        """What every metric of a clip depends on besides its own protocol."""
        return {
            "max_s": self._max_s,
            "max_px": self._max_px,
            "detections_fps": DETECTIONS_FPS,
            "detector_px": DETECTOR_PX,
            "models": [*DETECTOR, *MESH],
        }

    def read(
        self, path: Path, name: str, reference: np.ndarray, decoys: Sequence[np.ndarray] = ()
    ) -> SeenClip:
        """
        Args:
            path: of a video with or without sound. Pictures of a changing rate are taken at the mean one.
            name: of its item.
            reference: (H', W', 3) uint8 RGB, the portrait that the video was made from.
            decoys: other speech, (S',) int16 mono at 16 kHz each.

        Raises:
            CannotSee: the file cannot be read, or has fewer than two pictures.
        """
        try:
            info = media.probe(path)
            rate, frames = self._pictures(path, info)
            sound = _sound(path, info, len(frames) / float(rate))
        except MediaError as error:
            raise CannotSee(str(error)) from error
        boxes, meshes = self._face(frames, float(rate))
        return SeenClip(name, frames, float(rate), sound, boxes, meshes, reference, decoys)

    def _pictures(self, path: Path, info: MediaInfo) -> tuple[Fraction, np.ndarray]:
        if info.video is None:
            raise MediaError(Reason.NO_VIDEO, f"{path}: has no video stream")
        rate = Fraction(info.video.fps).limit_denominator(1001)
        count = round(min(info.duration_s, self._max_s) * rate)
        if count < MIN_FRAMES:
            raise CannotSee(
                f"{path}: {info.duration_s:.2f} s at {info.video.fps:.4g} fps are too short to be measured; "
                f"give at least {MIN_FRAMES} pictures"
            )
        shown = media.read_constant_rate(path, 0.0, count, rate)
        first = next(shown).rgb(self._max_px)
        frames = np.empty(
            (count, *first.shape), np.uint8
        )  # filled in place: twice as much would not be needed
        frames[0] = first
        for number, frame in enumerate(shown, start=1):
            frames[number] = frame.rgb(self._max_px)
        return rate, frames

    def _face(self, frames: np.ndarray, fps: float) -> tuple[np.ndarray, list[Mesh | None]]:
        """(F, 4) boxes and (F,) meshes of the speaker.

        A frame shows the face where the nearest one that was searched shows it, or where the mesh sees it."""
        boxes: np.ndarray = np.full((len(frames), 4), np.nan, np.float32)
        meshes: list[Mesh | None] = [None] * len(frames)
        step = max(1, round(fps / DETECTIONS_FPS))
        searched = np.arange(0, len(frames), step)
        tracks = face_tracks.link(
            [self._detector.detect(frames[number]) for number in searched], searched / fps
        )
        if not tracks:
            return boxes, meshes
        found = searched[tracks[0].frames]
        for number, (box, eyes) in enumerate(_between(tracks[0], found, len(frames))):
            mesh = self._mesh.fit(frames[number], box, eyes)
            meshes[number] = mesh if mesh.presence >= MIN_PRESENCE else None
            if meshes[number] is not None or np.abs(found - number).min() <= step // 2:
                boxes[number] = box
        return boxes, meshes


def _between(track: Track, found: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The box (4,) and the eyes (2, 2) in each of `count` frames, of a track that was seen in `found`."""
    places = np.column_stack([track.boxes, np.array(track.points)[:, :2].reshape(-1, 4)])
    at = np.column_stack([np.interp(np.arange(count), found, column) for column in places.T])
    return [(place[:4].astype(np.float32), place[4:].reshape(2, 2)) for place in at]


def _sound(path: Path, info: MediaInfo, duration_s: float) -> np.ndarray:
    """(S,) int16 of just that time, silence where the file has less; empty where it has no sound."""
    if info.audio is None:
        return np.zeros(0, np.int16)
    return media.read_audio(path, 0.0, duration_s, ANALYSIS_RATE)
