"""Which way a head points: yaw, pitch and roll from the face mesh's own axes.

The mesh under-reads a strong turn, because it still draws the eye that it cannot see. `calibrated_yaw`
stretches what it reads; docs/faces.md says what that was fitted to.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.models.face_mesh import (
    CHIN,
    FOREHEAD,
    LEFT_EYE_INNER,
    LEFT_EYE_OUTER,
    RIGHT_EYE_INNER,
    RIGHT_EYE_OUTER,
    Mesh,
)

TRUSTED_YAW_DEG = 20.0  # up to here the mesh and the projection of the nose agree
STRETCH = 1.5  # degrees of head for a degree of mesh beyond
NOSE_LENGTH = 0.59  # of the nose's tip before the eyes, in distances between the eyes


@dataclass(frozen=True, slots=True)
class Pose:
    """Degrees. A face that looks into the camera has 0, 0, 0."""

    yaw_deg: float
    """Positive towards the picture's left, [-90, 90]."""
    pitch_deg: float
    """Positive upwards; the zero varies by some 10 degrees between people."""
    roll_deg: float
    """Positive clockwise."""


def pose_of_mesh(mesh: Mesh) -> Pose:
    """The pose of the frame spanned by the eyes' corners and the line from forehead to chin."""
    points = mesh.points.astype(np.float64)
    across = (
        points[RIGHT_EYE_OUTER] - points[LEFT_EYE_OUTER] + points[RIGHT_EYE_INNER] - points[LEFT_EYE_INNER]
    )
    across /= np.linalg.norm(across)
    down = points[CHIN] - points[FOREHEAD]
    down -= across * (across @ down)
    down /= np.linalg.norm(down)
    away = np.cross(across, down)  # from the face into the head, as x points right and y down
    yaw = np.degrees(np.arcsin(np.clip(-across[2], -1, 1)))
    pitch = np.degrees(np.arctan2(away[1], away[2]))
    roll = np.degrees(np.arctan2(across[1], across[0]))
    return Pose(calibrated_yaw(float(yaw)), float(pitch), float(roll))


def pose_of_points(points: np.ndarray) -> Pose:
    """A rough pose from five points (5, 2), for faces that the mesh does not fit; pitch is not known: NaN.

    Under weak perspective the nose's tip is shifted from the eyes' middle by NOSE_LENGTH * tan(yaw)
    distances between the eyes."""
    eyes, mouth = points[:2].astype(np.float64), points[3:].astype(np.float64)
    across = eyes[1] - eyes[0]
    down = mouth.mean(axis=0) - eyes.mean(axis=0)
    sideways = np.array([down[1], -down[0]]) / max(float(np.linalg.norm(down)), 1e-6)
    shift = sideways @ (points[2] - eyes.mean(axis=0))
    yaw = np.degrees(np.arctan2(-shift, NOSE_LENGTH * max(float(np.linalg.norm(across)), 1e-6)))
    return Pose(float(yaw), float("nan"), float(np.degrees(np.arctan2(across[1], across[0]))))


def calibrated_yaw(mesh_yaw_deg: float) -> float:
    """The head's yaw for what the mesh reads, degrees."""
    beyond = max(abs(mesh_yaw_deg) - TRUSTED_YAW_DEG, 0.0)
    return float(np.sign(mesh_yaw_deg) * min(abs(mesh_yaw_deg) + (STRETCH - 1) * beyond, 90.0))
