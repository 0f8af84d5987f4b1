"""The models of a face backend: what the faces stage asks of them, whichever they are.

picture -> detect: boxes, scores, five points
        -> fit, for one of them: landmarks, pose, whether there is a face at all
        -> embed: a vector that is near those of the same person
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_pipeline.config import FacesConfig
from data_pipeline.models.detections import Detections
from data_pipeline.models.head_pose import Pose

MIN_PRESENCE = 0.5  # below it the landmarks are not on a face


class NotOneFace(ValueError):
    """A picture that should show one person shows nobody, or several people."""


@dataclass(frozen=True, slots=True)
class FittedFace:
    """One face looked at closely."""

    points: np.ndarray
    """(5, 2) float32: the detector's, in the picture's pixels."""
    landmarks: np.ndarray
    """(K, 2) or (K, 3) float32: x and y in the picture's pixels and, where the model tells it, the depth."""
    pose: Pose
    presence: float
    """Probability, in [0, 1], that there is a face; 1 where the backend has no such output."""

    @property
    def fits(self) -> bool:
        """Whether the landmarks are on a face."""
        return self.presence >= MIN_PRESENCE


class FaceModels(Protocol):
    """One backend. Every picture is (H, W, 3) uint8 RGB, every box x0 y0 x1 y1 in its pixels."""

    name: str
    """What rows call it: embeddings may be compared only under one name."""
    same_person_distance: float
    """Two embeddings nearer than this, by Euclidean distance, are the same person's."""

    def detect(self, image: np.ndarray) -> Detections:
        """The faces of the picture, surest first."""

    def fit(self, image: np.ndarray, box: np.ndarray, points: np.ndarray) -> FittedFace:
        """The details of the face that was detected in `box` with `points` (5, 2)."""

    def embed(self, image: np.ndarray, face: FittedFace) -> np.ndarray:
        """(D,) float32: who it is."""

    def confidence(self, image: np.ndarray, box: np.ndarray) -> float:
        """In [0, 1]: the detector's score of the face at a standard size; low where it is covered."""


def face_models(config: FacesConfig) -> FaceModels:
    """The configured backend's models, loaded.

    Raises WeightsUnavailable, in words, where their files are not here."""
    if config.backend == "insightface":
        from data_pipeline.models.insightface import InsightFace

        return InsightFace(config)
    from data_pipeline.models.embedded_faces import EmbeddedFaces

    return EmbeddedFaces(config)


def identity_of_picture(image: np.ndarray, config: FacesConfig) -> np.ndarray:
    """(D,) float32: who the one person in `image` (H, W, 3) uint8 RGB is, as the clips' rows have it.

    Raises NotOneFace where there is no face, more than one, or none that is clear enough."""
    models = face_models(config)
    found = models.detect(image)
    height, width = image.shape[:2]
    if len(found) != 1:
        seen = f"{len(found)} faces" if len(found) else "no face"
        raise NotOneFace(f"{seen} in the picture of {width} x {height} px; give one that shows one person")
    face = models.fit(image, found.boxes[0], found.points[0])
    if not face.fits:
        raise NotOneFace(
            f"the only face in the picture of {width} x {height} px is not clear enough to tell who it is; "
            "give one that shows the face larger, and from the front"
        )
    return models.embed(image, face)
