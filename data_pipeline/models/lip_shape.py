"""Lip shape: how a mouth moves in a clip's face crops, whichever way the head turns meanwhile.

    crops (F, 224, 224, 3)  ->  mesh in each, twice: where the face is, then a steady look at it
    meshes (F, 468, 3)      ->  turned and scaled onto one head by what does not move when one speaks
    lips in that head       ->  (F, 4): inner gap, outer gap, width, height of the lower lip

The second look's window is smoothed over time: the mesh follows its window by fractions of a pixel,
and lips move by little more.
"""

import numpy as np

from data_pipeline.models.face_mesh import (
    CHIN,
    FOREHEAD,
    LEFT_EYE_OUTER,
    N_POINTS,
    RIGHT_EYE_OUTER,
    FaceMesh,
)

# Points of the mesh, each lip's from the picture's left to its right, without the corners.
INNER_UPPER, INNER_LOWER = (80, 81, 82, 13, 312, 311, 310), (88, 178, 87, 14, 317, 402, 318)
OUTER_UPPER, OUTER_LOWER = (39, 37, 0, 267, 269), (181, 84, 17, 314, 405)
LEFT_CORNER, RIGHT_CORNER = 61, 291
STILL = (
    *(33, 133, 362, 263, 130, 359, 190, 414, 226, 446),  # about the eyes
    *(168, 6, 197, 195, 5, 55, 285, 107, 336, 9, 8),  # nose and brows
    *(10, 151, 127, 356, 21, 251, 234, 454),  # forehead and temples
)
INNER_GAP, OUTER_GAP, WIDTH, LOWER_LIP = range(4)

# Where a crop made for SyncNet has the face's box (224 px wide, side 2.8 half boxes, middle 0.4 lower).
BOX_MIDDLE, BOX_SIDE = np.array([112.0, 80.0]), 160.0
LEVEL_EYES = np.array([[80.0, 64.0], [144.0, 64.0]])

MIN_PRESENCE = 0.5  # of the mesh: below it there is no face
MEDIAN_FRAMES, SMOOTHED_FRAMES = 5, 3.0


class LipsNotSeen(ValueError):
    """The mesh fits no face in most of the crops, so nothing is known of the lips."""


class LipShape:
    """`measure` the lips, on one CPU thread."""

    def __init__(self) -> None:
        self._mesh = FaceMesh()

    def measure(self, faces: np.ndarray) -> np.ndarray:
        """(F, 224, 224, 3) uint8 RGB -> (F, 4) in distances between the eyes' outer corners.

        Raises LipsNotSeen."""
        first = [self._mesh.look(face, BOX_MIDDLE, BOX_SIDE, LEVEL_EYES).points[:, :2] for face in faces]
        points = np.array(first)
        low, high = _steady(points.min(axis=1)), _steady(points.max(axis=1))
        eyes = _steady(points[:, [LEFT_EYE_OUTER, RIGHT_EYE_OUTER]])
        meshes = [
            self._mesh.look(face, (a + b) / 2, float(max(b - a)), level)
            for face, a, b, level in zip(faces, low, high, eyes, strict=True)
        ]
        seen = np.array([mesh.presence >= MIN_PRESENCE for mesh in meshes])
        if seen.mean() < 0.5:
            raise LipsNotSeen(f"the face mesh fits {seen.sum()} of {len(seen)} crops")
        shapes = lips_of(np.array([mesh.points for mesh in meshes]))
        at = np.arange(len(faces))
        return np.column_stack([np.interp(at, at[seen], column[seen]) for column in shapes.T])


def lips_of(meshes: np.ndarray) -> np.ndarray:
    """(F, 468, 3) meshes of one face -> (F, 4), see the columns' names."""
    head = on_one_head(meshes.astype(np.float64))
    upper, lower = head[:, INNER_UPPER, 1].mean(axis=1), head[:, INNER_LOWER, 1].mean(axis=1)
    above, below = head[:, OUTER_UPPER, 1].mean(axis=1), head[:, OUTER_LOWER, 1].mean(axis=1)
    width = head[:, RIGHT_CORNER, 0] - head[:, LEFT_CORNER, 0]
    return np.column_stack([lower - upper, below - above, width, below])


def on_one_head(meshes: np.ndarray) -> np.ndarray:
    """(F, 468, 3) along one head's right, down and back, in distances between the eyes' outer corners.

    Each mesh is moved, turned and scaled onto the mean one by its STILL points: Umeyama, "Least-squares
    estimation of transformation parameters between two point patterns", 1991."""
    mean = meshes.mean(axis=0)
    target = mean[list(STILL)] - mean[list(STILL)].mean(axis=0)
    head = np.empty((len(meshes), N_POINTS, 3))
    for index, mesh in enumerate(meshes):
        centre = mesh[list(STILL)].mean(axis=0)
        still = mesh[list(STILL)] - centre
        left, stretch, right = np.linalg.svd(still.T @ target)
        stretch_signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
        scale = (stretch * stretch_signs).sum() / (still**2).sum()
        head[index] = (mesh - centre) @ (left * stretch_signs) @ right * scale
    mean = head.mean(axis=0)
    across = mean[RIGHT_EYE_OUTER] - mean[LEFT_EYE_OUTER]
    unit = np.linalg.norm(across)
    across = across / unit
    down = mean[CHIN] - mean[FOREHEAD]
    down -= across * (across @ down)
    down /= np.linalg.norm(down)
    return head @ np.stack([across, down, np.cross(across, down)], axis=1) / unit


def _steady(values: np.ndarray) -> np.ndarray:
    """(F, ...) without what jumps from frame to frame."""
    from scipy.ndimage import gaussian_filter1d, median_filter

    size = (MEDIAN_FRAMES,) + (1,) * (values.ndim - 1)
    middle = median_filter(values, size, mode="nearest")
    return gaussian_filter1d(middle, SMOOTHED_FRAMES, axis=0, mode="nearest")
