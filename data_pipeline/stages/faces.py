"""Faces: who is in the clip, how large, how often, and which way the head points.

    analysis frames -> boxes in each -> tracks -> the main face -> landmarks, pose, identity -> numbers

What is counted: only faces seen for half a second (see face_tracks.py). What is measured of the main
face: medians and 95th percentiles over the frames that show it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipeline import face_tracks
from data_pipeline.clip import AnalysisFrames, Clip, FaceTrack
from data_pipeline.config import FacesConfig
from data_pipeline.face_tracks import Track
from data_pipeline.models.face_models import FittedFace, face_models
from data_pipeline.models.head_pose import Pose


@dataclass(frozen=True, slots=True)
class Look:
    """The main face in one frame."""

    frame: int
    box: np.ndarray
    score: float
    face: FittedFace


class Faces:
    """The stage, with the models of the configured backend."""

    def __init__(self, config: FacesConfig):
        self._config = config

    def setup(self) -> None:
        self._models = face_models(self._config)

    def __call__(self, clip: Clip) -> Clip:
        if clip.frames is None or not len(clip.frames):
            return clip
        frames = clip.frames
        clip.face_backend = self._models.name
        tracks = face_tracks.link([self._models.detect(image) for image in _images(frames)], frames.times_s)
        clip.n_faces_max = face_tracks.faces_at_once(tracks, len(frames))
        if not tracks:
            clip.face_detected_ratio = 0.0
            clip.face_gap_s = len(frames) * face_tracks.period_s(frames.times_s)
            return clip
        main = tracks[0]
        clip.other_face_ratio = face_tracks.widest_other(tracks)
        _measure_presence(clip, frames, main)
        looks = self._look(frames, main)
        _measure_pose(clip, [look.face.pose for look in looks])
        clip.track = _track(frames, main, looks)
        slots = self._slots(frames, looks)
        clip.face_confidence = float(
            np.median([self._models.confidence(frames.decode(slot[0].frame), slot[0].box) for slot in slots])
        )
        surest = [max(slot, key=lambda look: look.score) for slot in slots]
        self._identify(clip, frames, [look for look in surest if look.face.fits])
        return clip

    def _look(self, frames: AnalysisFrames, main: Track) -> list[Look]:
        looks = []
        for frame, box, points, score in zip(main.frames, main.boxes, main.points, main.scores, strict=True):
            face = self._models.fit(frames.decode(frame), box, points)
            looks.append(Look(frame, box, score, face))
        return looks

    def _slots(self, frames: AnalysisFrames, looks: list[Look]) -> list[list[Look]]:
        """The looks of each 1 / identity_fps seconds; what is costly is done once in each."""
        slots: dict[int, list[Look]] = {}
        for look in looks:
            slots.setdefault(int(frames.times_s[look.frame] * self._config.identity_fps), []).append(look)
        return list(slots.values())

    def _identify(self, clip: Clip, frames: AnalysisFrames, looks: list[Look]) -> None:
        if not looks or clip.track is None:
            return
        embeddings = np.array([self._models.embed(frames.decode(look.frame), look.face) for look in looks])
        distances = np.linalg.norm(embeddings - embeddings[:, None], axis=2)
        medoid = int(distances.sum(axis=1).argmin())
        same = distances[medoid] <= self._models.same_person_distance
        clip.identity_consistency = float(same.mean())
        clip.track.identity = embeddings[medoid]
        clip.identity_embedding = [float(value) for value in embeddings[medoid]]


def _images(frames: AnalysisFrames) -> Iterator[np.ndarray]:
    return (frames.decode(index) for index in range(len(frames)))


def _measure_presence(clip: Clip, frames: AnalysisFrames, main: Track) -> None:
    height = float(np.median(main.heights))
    clip.face_fraction = height / frames.height
    if clip.source_width and clip.source_height:
        # Longer sides, so that a picture which is stored on its side counts alike.
        scale = max(clip.source_width, clip.source_height) / max(frames.width, frames.height)
        clip.face_height_px = height * scale
    clip.face_detected_ratio = len(main) / len(frames)
    clip.face_gap_s = face_tracks.longest_gap_s(main, frames.times_s)


def _measure_pose(clip: Clip, poses: list[Pose]) -> None:
    clip.yaw_deg_p95 = _percentile_95([pose.yaw_deg for pose in poses])
    clip.pitch_deg_p95 = _percentile_95([pose.pitch_deg for pose in poses])
    clip.roll_deg_p95 = _percentile_95([pose.roll_deg for pose in poses])


def _percentile_95(degrees: list[float]) -> float | None:
    """Of the magnitudes; None where none is known."""
    known = np.abs([value for value in degrees if not np.isnan(value)])
    return float(np.percentile(known, 95)) if len(known) else None


def _track(frames: AnalysisFrames, main: Track, looks: list[Look]) -> FaceTrack:
    boxes = np.full((len(frames), 4), np.nan, np.float32)
    landmarks = np.full((len(frames), len(looks[0].face.landmarks), 2), np.nan, np.float32)
    size = np.array([frames.width, frames.height], np.float32)
    boxes[main.frames] = np.array(main.boxes) / np.tile(size, 2)
    for look in looks:
        if look.face.fits:
            landmarks[look.frame] = look.face.landmarks[:, :2] / size
    return FaceTrack(frames.times_s, boxes, landmarks)
