"""The embedded face backend: models that travel in Python packages, and may be used commercially.

CenterFace finds faces, MediaPipe's mesh gives landmarks and pose, dlib's network says who it is.
"""

import numpy as np

from data_pipeline.config import FacesConfig
from data_pipeline.models import centerface, dlib_identity, face_mesh
from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.detections import Detections
from data_pipeline.models.dlib_identity import SAME_PERSON_DISTANCE, DlibIdentity
from data_pipeline.models.face_mesh import FaceMesh, Mesh
from data_pipeline.models.face_models import MIN_PRESENCE, FittedFace
from data_pipeline.models.head_pose import pose_of_mesh, pose_of_points

WEIGHTS = centerface.WEIGHTS + face_mesh.WEIGHTS + dlib_identity.WEIGHTS


class EmbeddedFaces:
    """FaceModels on one CPU thread; embeddings of 128 dimensions, 468 landmarks."""

    name = "+".join(WEIGHTS)
    same_person_distance = SAME_PERSON_DISTANCE

    def __init__(self, config: FacesConfig):
        self._detector = CenterFace(config.detector_px, config.detector_threshold)
        self._mesh = FaceMesh()
        self._identity = DlibIdentity()

    def detect(self, image: np.ndarray) -> Detections:
        return self._detector.detect(image)

    def fit(self, image: np.ndarray, box: np.ndarray, points: np.ndarray) -> FittedFace:
        """Where the mesh is not on a face, the pose is that of the detector's points."""
        mesh = self._mesh.fit(image, box, points[:2])
        pose = pose_of_mesh(mesh) if mesh.presence >= MIN_PRESENCE else pose_of_points(points)
        return FittedFace(points, mesh.points, pose, mesh.presence)

    def embed(self, image: np.ndarray, face: FittedFace) -> np.ndarray:
        return self._identity.embed(image, Mesh(face.landmarks, face.presence))

    def confidence(self, image: np.ndarray, box: np.ndarray) -> float:
        return self._detector.confidence(image, box)
