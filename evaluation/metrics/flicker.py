"""Flicker: what changes from one frame to the next beyond what moves.

    frames t and t + 1 -> flow there and back -> frame t, moved to where t + 1 has it -> difference to t + 1
    value of a clip: root of the mean square over pixels and pairs, without what is covered or uncovered

The warping error of Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, as a root and in
levels of 0..255: theirs is the square of flicker / 255. A pixel is left out where going there and back does
not end where it began: |w + w'|^2 > 0.01 (|w|^2 + |w'|^2) + 0.5 (Sundaram, Brox & Keutzer, ECCV 2010).
"""

from collections.abc import Mapping

import numpy as np

from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip
from evaluation.metrics.optical_flow import FLOW_PX, METHOD, OpticalFlow, at_flow_size, luma_of

NAME = "flicker"
RELATIVE, ABSOLUTE = 0.01, 0.5


class Flicker(MeanOfClips):
    """`flicker`, 0 (what does not move stays as it is) ... 255; lower is better."""

    protocol: Mapping[str, object] = {"flow": METHOD, "flow_px": FLOW_PX, "occluded": [RELATIVE, ABSOLUTE]}

    def __init__(self) -> None:
        super().__init__([NAME])

    def setup(self) -> None:
        self._flow = OpticalFlow()

    def measure(self, clip: SeenClip) -> Found:
        """Raises CannotScore where nothing of any frame is found again in the next."""
        pictures = at_flow_size(clip.frames)
        lumas = [luma_of(picture) for picture in pictures]
        squares, pixels = 0.0, 0
        for number in range(len(pictures) - 1):
            forth = self._flow.between(lumas[number], lumas[number + 1])
            back = self._flow.between(lumas[number + 1], lumas[number])
            clear = not_occluded(forth, back)
            moved = _fetched(pictures[number], back)
            difference = moved[clear].astype(np.float64) - pictures[number + 1][clear]
            squares += float(np.square(difference).mean(axis=1).sum())
            pixels += len(difference)
        if not pixels:
            raise CannotScore(f"{clip.name}: nothing in any frame is found again in the next one")
        return Found({NAME: float(np.sqrt(squares / pixels))})


def not_occluded(forth: np.ndarray, back: np.ndarray) -> np.ndarray:
    """(H, W, 2) flows from a frame to the next, and from that one back -> (H, W) bool: pixels of the next
    frame that the frame shows too."""
    rows, columns = np.indices(back.shape[:2])
    x, y = columns + back[..., 0], rows + back[..., 1]
    inside = (x >= 0) & (x <= back.shape[1] - 1) & (y >= 0) & (y <= back.shape[0] - 1)
    there = _fetched(forth, back)
    apart = np.square(back + there).sum(axis=2)
    return inside & (apart <= RELATIVE * (np.square(back) + np.square(there)).sum(axis=2) + ABSOLUTE)


def _fetched(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`picture` (H, W, C) read at every pixel's place plus `flow` (H, W, 2) there, between its pixels."""
    import cv2

    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return cv2.remap(picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)
