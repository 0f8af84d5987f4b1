"""dlib's face recognition network: one face -> a vector that tells people apart.

King, "High Quality Face Recognition with Deep Metric Learning", 2017 (blog.dlib.net). Trained so that
two pictures of one person are less than 0.6 apart. The network expects the chip that dlib itself cuts:
150 px, a quarter of margin, the eyes' corners and the nose's base on fixed places. We cut it from the
face mesh, because dlib's own 68-point model may not be used commercially.
"""

import numpy as np

from data_pipeline import weights
from data_pipeline.models.face_mesh import (
    LEFT_EYE_INNER,
    LEFT_EYE_OUTER,
    NOSE_BASE,
    RIGHT_EYE_INNER,
    RIGHT_EYE_OUTER,
    Mesh,
)

WEIGHTS = ("dlib-face-recognition",)

SAME_PERSON_DISTANCE = 0.55
"""Embeddings closer than this are the same person. dlib's own figure is 0.6; see docs/faces.md."""

CHIP_PX = 150
MARGIN = 0.25
ANCHORS = (RIGHT_EYE_OUTER, RIGHT_EYE_INNER, LEFT_EYE_OUTER, LEFT_EYE_INNER, NOSE_BASE)
# Where dlib's five-point alignment puts them, as fractions of the chip without its margin.
PLACES = np.array([[0.8596, 0.2135], [0.6461, 0.2290], [0.1206, 0.2137], [0.3341, 0.2291], [0.4901, 0.6278]])


class DlibIdentity:
    """The network, on one CPU thread."""

    def __init__(self) -> None:
        import dlib

        path = weights.fetch("dlib-face-recognition") / "dlib_face_recognition_resnet_model_v1.dat"
        self._network = dlib.face_recognition_model_v1(str(path))

    def embed(self, image: np.ndarray, mesh: Mesh) -> np.ndarray:
        """(128,) float32: who `mesh` is in `image` (H, W, 3) uint8 RGB; compare by Euclidean distance."""
        chip = cut_chip(image, mesh)
        return np.array(self._network.compute_face_descriptor(chip), np.float32)


def cut_chip(image: np.ndarray, mesh: Mesh) -> np.ndarray:
    """The (150, 150, 3) picture of the face that the network was trained to see."""
    import cv2

    target = (PLACES + MARGIN) / (1 + 2 * MARGIN) * CHIP_PX
    transform = fit_similarity(mesh.points[list(ANCHORS), :2], target)
    return cv2.warpAffine(image, transform, (CHIP_PX, CHIP_PX), flags=cv2.INTER_LINEAR)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) scale, rotation and shift that brings `source` (N, 2) nearest to `target` (N, 2).

    Least squares in the complex plane, where such a map is z -> a z + b."""
    z = source[:, 0] + 1j * source[:, 1]
    w = target[:, 0] + 1j * target[:, 1]
    (a, b), *_ = np.linalg.lstsq(np.stack([z, np.ones_like(z)], axis=1), w, rcond=None)
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
