"""CenterFace: boxes and five points of the faces in a picture.

Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019. The network sees
a face as the peak of a heat map at a quarter of its input's resolution; beside each peak it tells the
box's logarithmic size, a sub-cell offset, and five points relative to the box.
"""

import numpy as np

from data_pipeline import weights
from data_pipeline.models.detections import Detections, crop_around, iou

WEIGHTS = ("centerface",)

STRIDE = 32  # the input's sides are multiples of this
CELL = 4  # input pixels a cell of the output
OVERLAP = 0.3  # boxes that overlap more than this (IoU) are one face

# The score falls with the face's size in the input, so faces are compared at one size only.
STANDARD_PX = 192
STANDARD_MARGIN = 2.5  # side of the crop in longer sides of the face's box


class CenterFace:
    """The detector, on one CPU thread."""

    def __init__(self, longer_side_px: int = 320, threshold: float = 0.5):
        import cv2

        cv2.setNumThreads(1)
        # OpenCV's own runtime rather than onnxruntime: the file declares a fixed 32 x 32 input, which
        # onnxruntime insists on, and batch norms that it cannot fold (15 against 22 ms at 320 x 192).
        self._net = cv2.dnn.readNetFromONNX(str(weights.fetch("centerface") / "centerface.onnx"))
        self._longer_side_px = longer_side_px
        self._threshold = threshold

    def detect(self, image: np.ndarray) -> Detections:
        """Faces in `image`, (H, W, 3) uint8 RGB."""
        import cv2

        height, width = image.shape[:2]
        scale = self._longer_side_px / max(height, width)
        input_size = (_multiple(width * scale), _multiple(height * scale))
        resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, input_size, interpolation=resampling)
        heat, size, offset, points = self._forward(small)
        faces = _decode(heat[0], size, offset, points, self._threshold)
        return _resize(faces, width / input_size[0], height / input_size[1], width, height)

    def confidence(self, image: np.ndarray, box: np.ndarray) -> float:
        """The score, in [0, 1], of the face in `box` (x0 y0 x1 y1) once it has the standard size.

        Lower where something covers a good part of the face, or it is not quite a face."""
        crop = crop_around(image, box, STANDARD_MARGIN, STANDARD_PX)
        heat = self._forward(crop)[0][0]
        edge = heat.shape[0] // 4
        return float(heat[edge:-edge, edge:-edge].max())

    def _forward(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Heat (1, h, w), size and offset (2, h, w), points (10, h, w) of `pixels` (H, W, 3) uint8."""
        self._net.setInput(pixels.transpose(2, 0, 1)[None].astype(np.float32))
        return [output[0] for output in self._net.forward(["537", "538", "539", "540"])]


def _multiple(length: float) -> int:
    return max(STRIDE, round(length / STRIDE) * STRIDE)


def _decode(
    heat: np.ndarray, size: np.ndarray, offset: np.ndarray, points: np.ndarray, threshold: float
) -> Detections:
    """Faces in input pixels. heat (h, w); size and offset (2, h, w) and points (10, h, w), y before x."""
    rows, columns = np.nonzero(heat > threshold)
    scores = heat[rows, columns]
    height, width = np.exp(size[:, rows, columns]) * CELL
    centre_y = (rows + offset[0, rows, columns] + 0.5) * CELL
    centre_x = (columns + offset[1, rows, columns] + 0.5) * CELL
    left, top = centre_x - width / 2, centre_y - height / 2
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    relative = points[:, rows, columns].reshape(5, 2, -1).transpose(2, 0, 1)
    corner, extent = np.stack([top, left], axis=1), np.stack([height, width], axis=1)
    places = (relative * extent[:, None] + corner[:, None])[..., ::-1]
    best = _suppress(boxes, scores)
    return Detections(*(values[best].astype(np.float32) for values in (boxes, scores, places)))


def _suppress(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Indices of the boxes that no surer one overlaps, surest first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[index], boxes[other]) <= OVERLAP for other in kept):
            kept.append(int(index))
    return kept


def _resize(faces: Detections, scale_x: float, scale_y: float, width: int, height: int) -> Detections:
    """The faces in the picture's pixels, boxes clipped to it."""
    scale = np.array([scale_x, scale_y], np.float32)
    limit = np.array([width, height], np.float32)
    corners = np.clip(faces.boxes.reshape(-1, 2, 2) * scale, 0, limit)
    return Detections(corners.reshape(-1, 4), faces.scores, faces.points * scale)
