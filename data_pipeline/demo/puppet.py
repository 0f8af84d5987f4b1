"""A portrait that speaks: 468 face landmarks pull the picture along as lips, lids and head move.

    portrait (H, W, 3) + landmarks (468, 3)  ->  Puppet  ->  render(Pose)  ->  frame (H, W, 3)

Landmarks are moved in the head's own axes (lips by the mouth's opening and width, lids by a blink),
the head turns in three dimensions about the neck, and the picture follows triangle by triangle. What
an open mouth shows is painted: no portrait says what is behind closed lips.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_pipeline.demo.expressions import (
    CHIN,
    FOREHEAD,
    INNER_LOWER,
    INNER_UPPER,
    LOWER_LIDS,
    OPEN_FACE_HEIGHTS,
    OUTER_LOWER,
    OUTER_UPPER,
    OVAL_JAW,
    OVAL_TOP,
    UPPER_LIDS,
    Expressions,
    head_axes,
)

HALOES = ((1.25, 1.0), (1.6, 0.55))  # rings about the face: scale, share of the head's motion
TEETH_FACE_HEIGHTS = 0.055  # how much of the upper teeth an open mouth shows
SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Pose:
    """One frame. Angles turn the head from where the portrait has it."""

    opening: float = 0.0
    """0 (lips closed) to 1."""
    width: float = 0.0
    """-1 (rounded) to 1 (spread)."""
    blink: float = 0.0
    """0 (as in the portrait) to 1 (closed)."""
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    right: float = 0.0
    """Shift of the head in face heights, as is `down`."""
    down: float = 0.0


class Puppet:
    """Renders one portrait in any pose.

    `portrait` is (H, W, 3) uint8 RGB, `landmarks` (468, 3) float in its pixels (z towards the scene)."""

    def __init__(self, portrait: np.ndarray, landmarks: np.ndarray) -> None:
        self.portrait = portrait
        landmarks = landmarks.astype(np.float64)
        self._axes = head_axes(landmarks)
        self._centre = landmarks.mean(0)
        self.face_height = float(np.linalg.norm(landmarks[FOREHEAD] - landmarks[CHIN]))
        self._expressions = Expressions((landmarks - self._centre) @ self._axes)
        self._source, self._share = self._with_surroundings(landmarks)
        self._triangles = self._triangulate()
        self._facing = np.sign(_doubled_areas(self._place(Pose(opening=1.0))[self._triangles]))
        self._light = np.percentile(portrait[_inside(portrait, landmarks)], 85, axis=0)

    def aperture(self, pose: Pose) -> float:
        """The gap between the lips' inner edges, in face heights."""
        return pose.opening * OPEN_FACE_HEIGHTS

    def render(self, pose: Pose) -> np.ndarray:
        """The frame: (H, W, 3) uint8 RGB."""
        import cv2

        vertices = self._place(pose)
        corners = vertices[self._triangles]
        labels = self._paint_labels(corners)
        to_source = _affines(corners[:, :, :2], self._source[self._triangles][:, :, :2])
        height, width = labels.shape
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        # One table a coefficient: six short look-ups are several times faster than one of 2 x 3 matrices.
        xx, xy, x1, yx, yy, y1 = (np.take(table, labels) for table in to_source.reshape(-1, 6).T)
        map_x, map_y = xx * x + xy * y + x1, yx * x + yy * y + y1
        frame = cv2.remap(self.portrait, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        self._paint_mouth(frame, vertices)
        return frame

    def _with_surroundings(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All vertices in portrait pixels, and how far each goes along with the head (0..1)."""
        height, width = self.portrait.shape[:2]
        oval = landmarks[list(OVAL_TOP + OVAL_JAW)]
        vertices, shares = [landmarks], [np.ones(len(landmarks))]
        for scale, share in HALOES:
            ring = self._centre + scale * (oval - self._centre)
            ring[:, 2] += 0.6 * (scale - 1) * self.face_height  # hair and neck are behind the face
            vertices.append(ring)
            shares.append(np.full(len(ring), share))
        steps = np.linspace(0, 1, 5)
        border = np.array([(u, v) for u in steps for v in steps if {u, v} & {0.0, 1.0}])
        vertices.append(np.c_[border * (width - 1, height - 1), np.full(len(border), self.face_height)])
        shares.append(np.zeros(len(border)))
        return np.concatenate(vertices), np.concatenate(shares)

    def _place(self, pose: Pose) -> np.ndarray:
        """(V, 3) vertices in frame pixels."""
        head = self._expressions.at(pose.opening, pose.width, pose.blink)
        vertices = self._source.copy()
        vertices[: len(head)] = head @ self._axes.T + self._centre
        neck = self._centre + self.face_height * (np.array([0, 0.55, 0.35]) @ self._axes.T)
        turned = (vertices - neck) @ _rotation(pose).T + neck
        turned[:, :2] += self.face_height * np.array([pose.right, pose.down])
        share = self._share[:, None]
        return (1 - share) * vertices + share * turned

    def _triangulate(self) -> np.ndarray:
        """(T, 3) vertex indices; the gap between the lips is left out."""
        from scipy.spatial import Delaunay

        moving = np.r_[
            INNER_UPPER, INNER_LOWER, OUTER_UPPER, OUTER_LOWER, UPPER_LIDS, LOWER_LIDS, OVAL_JAW, OVAL_TOP
        ]
        # Elsewhere the skin moves together: every third landmark will do, and drawing takes half the time.
        used = np.unique(np.r_[moving, np.arange(0, 468, 3), 468 : len(self._source)])
        # With the mouth open the lips' edges are apart, so that no triangle bridges them.
        triangles = used[Delaunay(self._place(Pose(opening=1.0))[used, :2]).simplices]
        inner = np.isin(triangles, INNER_UPPER + INNER_LOWER).all(1)
        return triangles[~inner]

    def _paint_labels(self, corners: np.ndarray) -> np.ndarray:
        """(H, W) integers: the triangle seen at each pixel, the farthest painted first."""
        import cv2

        labels = np.full(self.portrait.shape[:2], len(corners), np.int32)
        fixed = np.round(corners[:, :, :2] * (1 << SUBPIXEL_BITS)).astype(np.int32)
        farthest_first = np.argsort(-corners[:, :, 2].mean(1), kind="stable")
        facing = np.sign(_doubled_areas(corners)) == self._facing
        for index in farthest_first[facing[farthest_first]]:
            cv2.fillConvexPoly(labels, fixed[index], int(index), cv2.LINE_8, SUBPIXEL_BITS)
        return labels.astype(np.intp)

    def _paint_mouth(self, frame: np.ndarray, vertices: np.ndarray) -> None:
        """Dark inside, teeth under the upper lip, the tongue below."""
        import cv2

        upper, lower = vertices[list(INNER_UPPER), :2], vertices[list(INNER_LOWER), :2]
        gap = float(np.linalg.norm(upper - lower, axis=1).max())
        lips = np.concatenate([upper, lower])
        corner = np.maximum(np.floor(lips.min(0)).astype(int) - 3, 0)
        x1, y1 = np.ceil(lips.max(0)).astype(int) + 4
        region = frame[corner[1] : y1, corner[0] : x1]
        if gap < 0.5 or region.size == 0:
            return
        upper, lower, light = upper - corner, lower - corner, self._light
        teeth = upper + (lower - upper) * min(0.8, TEETH_FACE_HEIGHTS * self.face_height / gap)
        tongue = lower - 0.35 * (lower - upper)
        inside: np.ndarray = np.full(region.shape, light * (0.22, 0.09, 0.08), np.float32)
        _fill_between(inside, lower, tongue, light * (0.6, 0.36, 0.36))
        _fill_between(inside, upper, teeth, 0.72 * light + 0.22 * light.mean())
        mask: np.ndarray = np.zeros(region.shape[:2], np.float32)
        _fill_between(mask, upper, lower, [1.0])
        alpha = cv2.GaussianBlur(mask, (0, 0), 0.7)[:, :, None]
        painted = alpha * cv2.GaussianBlur(inside, (0, 0), 1.2) + (1 - alpha) * region
        region[:] = np.round(painted).astype(np.uint8)


def _rotation(pose: Pose) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    angles = [pose.yaw_deg, pose.pitch_deg, pose.roll_deg]
    return Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()


def _affines(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(T + 1, 2, 3) float32 maps that take each target triangle (T, 3, 2) onto its source; the last rests."""
    (ax, ay), (bx, by) = (target[:, 1] - target[:, 0]).T, (target[:, 2] - target[:, 0]).T
    area = ax * by - ay * bx
    area[np.abs(area) < 1e-6] = np.inf  # closed lids and lips: covers no pixel
    inverse = np.stack([by, -bx, -ay, ax], axis=1).reshape(-1, 2, 2) / area[:, None, None]
    edges = np.stack([source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]], axis=2)
    linear = edges @ inverse
    offset = source[:, 0, :, None] - linear @ target[:, 0, :, None]
    maps = np.concatenate([linear, offset], axis=2)
    return np.concatenate([maps, [[[1, 0, 0], [0, 1, 0]]]]).astype(np.float32)


def _doubled_areas(corners: np.ndarray) -> np.ndarray:
    """(T,) twice the signed area of each triangle (T, 3, 2 or more)."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _fill_between(image: np.ndarray, above: np.ndarray, below: np.ndarray, colour: Iterable[float]) -> None:
    """Fill the band between two lines (N, 2) that run side by side."""
    import cv2

    outline = np.round(np.concatenate([above, below[::-1]]) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(image, [outline], [float(channel) for channel in colour], cv2.LINE_8, SUBPIXEL_BITS)


def _inside(portrait: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(H, W) bool: the face."""
    import cv2

    mask = np.zeros(portrait.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(landmarks[:, :2].astype(np.int32)), 1)
    return mask.astype(bool)
