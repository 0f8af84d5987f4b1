"""MediaPipe's face mesh: 468 points of one face, in three dimensions, and whether it is a face at all.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. The
network wants a square crop in which the eyes are level and the face fills about two thirds; it returns
points in the crop's pixels, with depth in the same unit (nearer is smaller), and a presence logit.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline import weights

WEIGHTS = ("mediapipe-face-mesh",)

CROP_PX = 192
MARGIN = 1.5  # side of the crop in longer sides of the face's box, as the model was trained
N_POINTS = 468

# Points of the mesh; left and right as the picture has it.
LEFT_EYE_OUTER, LEFT_EYE_INNER = 33, 133
RIGHT_EYE_INNER, RIGHT_EYE_OUTER = 362, 263
NOSE_TIP, NOSE_BASE = 1, 2
LEFT_MOUTH, RIGHT_MOUTH = 61, 291
FOREHEAD, CHIN = 10, 152


@dataclass(frozen=True, slots=True)
class Mesh:
    """One face's points."""

    points: np.ndarray
    """(468, 3) float32: x and y in the picture's pixels, depth in the same unit, nearer is smaller."""
    presence: float
    """Probability, in [0, 1], that the crop shows a face."""


class FaceMesh:
    """The network, on one CPU thread."""

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = weights.fetch("mediapipe-face-mesh") / "face_landmark.tflite"
        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = sorted(self._interpreter.get_output_details(), key=lambda output: np.prod(output["shape"]))
        self._presence, self._points = (output["index"] for output in outputs)

    def fit(self, image: np.ndarray, box: np.ndarray, eyes: np.ndarray) -> Mesh:
        """The mesh of the face in `box` (x0 y0 x1 y1) of `image` (H, W, 3) uint8 RGB.

        `eyes` (2, 2): the eye on the picture's left, then the other; they set the crop's roll. A second
        pass, cropped by what the first one found, takes the place of MediaPipe's tracking."""
        first = self.look(image, (box[:2] + box[2:]) / 2, float(max(box[2:] - box[:2])), eyes)
        found = first.points[:, :2]
        low, high = found.min(axis=0), found.max(axis=0)
        eyes = first.points[[LEFT_EYE_OUTER, RIGHT_EYE_OUTER], :2]
        return self.look(image, (low + high) / 2, float(max(high - low)), eyes)

    def look(self, image: np.ndarray, centre: np.ndarray, side: float, eyes: np.ndarray) -> Mesh:
        """One pass over `image` (H, W, 3): the face in a square of `side` around `centre`, `eyes` level."""
        import cv2

        to_crop = _crop_transform(centre, side * MARGIN, eyes)
        crop = cv2.warpAffine(image, to_crop, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR)
        self._interpreter.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._interpreter.invoke()
        points = self._interpreter.get_tensor(self._points).reshape(N_POINTS, 3)
        logit = float(self._interpreter.get_tensor(self._presence).item())
        scale = side * MARGIN / CROP_PX
        to_picture = cv2.invertAffineTransform(to_crop)
        flat = points[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        placed = np.concatenate([flat, points[:, 2:] * scale], axis=1).astype(np.float32)
        return Mesh(placed, float(1 / (1 + np.exp(-logit))))


def _crop_transform(centre: np.ndarray, side: float, eyes: np.ndarray) -> np.ndarray:
    """(2, 3): picture -> crop, with the eyes level."""
    across = eyes[1] - eyes[0]
    roll = np.arctan2(across[1], across[0])
    scale = CROP_PX / max(side, 1.0)
    cosine, sine = np.cos(roll) * scale, np.sin(roll) * scale
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([rotation, CROP_PX / 2 - rotation @ centre])
