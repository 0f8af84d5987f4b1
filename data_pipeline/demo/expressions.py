"""How a face moves: where the 468 landmarks go when the mouth opens or widens and the eyes close.

    landmarks in the head's axes (468, 3)  ->  Expressions  ->  at(opening, width, blink) (468, 3)

Each parameter scales one displacement of all landmarks. It is laid down for lips, jaw and lids, held at
zero where a face does not move, and interpolated between.
"""

import numpy as np

# Indices into MediaPipe's 468 landmarks, each lip's from the picture's left to its right.
INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
WITHIN_UPPER = (
    62,
    183,
    42,
    41,
    38,
    12,
    268,
    271,
    272,
    407,
    292,
    76,
    184,
    74,
    73,
    72,
    11,
    302,
    303,
    304,
    408,
    306,
)
WITHIN_LOWER = (96, 89, 179, 86, 15, 316, 403, 319, 325, 77, 90, 180, 85, 16, 315, 404, 320, 307)
UPPER_LIDS = (246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398)
LOWER_LIDS = (7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382)
EYE_CORNERS = (33, 133, 362, 263)
BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
NOSE = (1, 2, 4, 5, 6, 98, 327, 168)
OVAL_TOP = (10, 338, 297, 332, 284, 251, 389, 356, 454, 234, 127, 162, 21, 54, 103, 67, 109)
OVAL_JAW = (323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93)
LEFT, RIGHT, FOREHEAD, CHIN = 234, 454, 10, 152
LEFT_CORNER, RIGHT_CORNER = 78, 308

OPEN_FACE_HEIGHTS = 0.15  # the gap between the lips at opening 1
WIDE_FACE_HEIGHTS = 0.035  # how far each corner of the mouth goes at width 1
UPPER_SHARE = 0.15  # of an opening; the lower lip and the jaw do the rest
JAW_SHARE = 0.7  # how far the chin goes, of the opening
CLOSING_BY_UPPER = 0.4  # of the way by which lips that are apart in the portrait come together


class Expressions:
    """`head`: (468, 3) landmarks along the head's own axes (right, down, back), in pixels."""

    def __init__(self, head: np.ndarray) -> None:
        self._head = head
        self._face_height = float(np.linalg.norm(head[FOREHEAD] - head[CHIN]))
        corners = head[[LEFT_CORNER, RIGHT_CORNER]]
        self._middle = corners.mean(0)
        self._across = np.clip((head[:, 0] - self._middle[0]) / (np.ptp(corners[:, 0]) / 2), -1, 1)
        self._with_jaw = self._find_what_follows_the_jaw()
        self._closed = head + self._spread(self._closing())
        self._opening = self._spread(self._dropping())
        self._widening = self._spread(self._stretching())
        self._blinking = self._closing_lids()

    def at(self, opening: float, width: float, blink: float) -> np.ndarray:
        """(468, 3) landmarks: opening in 0..1 of OPEN_FACE_HEIGHTS, width in -1..1, blink in 0..1."""
        return self._closed + opening * self._opening + width * self._widening + blink * self._blinking

    def _closing(self) -> np.ndarray:
        """Brings lips that are apart in the portrait together, so that opening 0 is closed."""
        gap = self._head[list(INNER_LOWER)] - self._head[list(INNER_UPPER)]
        wanted = np.zeros_like(self._head)
        wanted[list(OUTER_UPPER)] = 0.5 * CLOSING_BY_UPPER * gap
        wanted[list(OUTER_LOWER)] = -0.5 * (1 - CLOSING_BY_UPPER) * gap
        wanted[list(INNER_UPPER)] = CLOSING_BY_UPPER * gap
        wanted[list(INNER_LOWER)] = -(1 - CLOSING_BY_UPPER) * gap
        return wanted

    def _dropping(self) -> np.ndarray:
        """The lower lip and the jaw down, the upper lip a little up; most in the middle."""
        arch = np.sqrt(1 - self._across**2)
        depth = (self._head[:, 1] - self._middle[1]) / (self._head[CHIN, 1] - self._middle[1])
        wanted = np.zeros_like(self._head)
        wanted[list(INNER_UPPER + OUTER_UPPER), 1] = -UPPER_SHARE * arch[list(INNER_UPPER + OUTER_UPPER)]
        wanted[list(INNER_LOWER + OUTER_LOWER), 1] = (1 - UPPER_SHARE) * arch[list(INNER_LOWER + OUTER_LOWER)]
        wanted[list(OVAL_JAW), 1] = JAW_SHARE * np.clip(depth[list(OVAL_JAW)], 0, 1)
        return wanted * self._face_height * OPEN_FACE_HEIGHTS

    def _stretching(self) -> np.ndarray:
        """The corners of the mouth apart."""
        lips = list(INNER_UPPER + OUTER_UPPER + INNER_LOWER + OUTER_LOWER)
        wanted = np.zeros_like(self._head)
        wanted[lips, 0] = self._across[lips]
        return wanted * self._face_height * WIDE_FACE_HEIGHTS

    def _closing_lids(self) -> np.ndarray:
        """The upper lids onto the lower ones."""
        wanted = np.zeros_like(self._head)
        wanted[list(UPPER_LIDS)] = self._head[list(LOWER_LIDS)] - self._head[list(UPPER_LIDS)]
        return _interpolated(self._head, wanted, UPPER_LIDS + LOWER_LIDS + EYE_CORNERS + BROWS + NOSE)

    def _find_what_follows_the_jaw(self) -> np.ndarray:
        """(468,) bool. Lips that touch lie on one line, so for them the topology decides, not the place."""
        follows = self._head[:, 1] > self._middle[1]
        follows[list(INNER_UPPER + OUTER_UPPER + WITHIN_UPPER)] = False
        follows[list(INNER_LOWER[1:-1] + OUTER_LOWER[1:-1] + WITHIN_LOWER)] = True
        return follows

    def _spread(self, wanted: np.ndarray) -> np.ndarray:
        """From lips and jaw to all landmarks; above and below the mouth each by itself: they part there."""
        still = NOSE + OVAL_TOP + LOWER_LIDS
        above = _interpolated(self._head, wanted, INNER_UPPER + OUTER_UPPER + OVAL_JAW + still)
        below = _interpolated(self._head, wanted, INNER_LOWER + OUTER_LOWER + OVAL_JAW + still)
        return np.where(self._with_jaw[:, None], below, above)


def head_axes(landmarks: np.ndarray) -> np.ndarray:
    """(3, 3): columns are the head's right, down and back along the picture's axes."""
    right = landmarks[RIGHT] - landmarks[LEFT]
    right = right / np.linalg.norm(right)
    back = np.cross(right, landmarks[CHIN] - landmarks[FOREHEAD])
    back = back / np.linalg.norm(back)
    return np.stack([right, np.cross(back, right), back], axis=1)


def _interpolated(points: np.ndarray, wanted: np.ndarray, known: tuple[int, ...]) -> np.ndarray:
    """(N, 3) displacement of all `points`, as `wanted` at the `known` ones."""
    from scipy.interpolate import RBFInterpolator

    centres = np.unique(known)
    spline = RBFInterpolator(points[centres, :2], wanted[centres], kernel="linear", smoothing=1e-3)
    return spline(points[:, :2])
