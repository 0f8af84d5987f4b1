"""Dynamics: how fast the speaker's face moves, and how fast what is around the head does.

    frames t and t + 1 -> optical flow -> its mean magnitude in the face's box      / face height  * fps
                                       -> its mean magnitude beyond the head's box  / frame height * fps
    value of a clip: mean over the pairs of frames that both show the face

Subject and background dynamics, as papers on talking heads tell a "wild" set from one of studio takes; each
in heights per second, so that neither the video's size nor its rate counts.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip
from evaluation.metrics.optical_flow import FLOW_PX, METHOD, OpticalFlow, at_flow_size, luma_of

SUBJECT, BACKGROUND = "subject_dynamics", "background_dynamics"
HEAD = 2.0
"""Sides of the head's box, hair and all, in sides of the face's; what lies in between counts for neither."""
LEAST_SHARE = 0.05
"""Of the frame, which must lie beyond the head's box for a background to be seen."""


class Dynamics(MeanOfClips):
    """`subject_dynamics`, face heights per second; `background_dynamics`, frame heights per second; 0 up."""

    protocol: Mapping[str, object] = {"flow": METHOD, "flow_px": FLOW_PX, "head_in_faces": HEAD}

    def __init__(self) -> None:
        super().__init__([SUBJECT, BACKGROUND])

    def setup(self) -> None:
        self._flow = OpticalFlow()

    def measure(self, clip: SeenClip) -> Found:
        """A clip whose frames the head fills has no background's value. Raises CannotScore where no two
        frames in a row show the face."""
        both = np.flatnonzero(clip.seen[:-1] & clip.seen[1:])
        if not len(both):
            raise CannotScore(f"{clip.name}: no two frames in a row show a face, whose motion could be told")
        lumas = [luma_of(picture) for picture in at_flow_size(clip.frames)]
        scale = lumas[0].shape[0] / clip.frames.shape[1]
        subject, background = [], []
        for number in both:
            flow = self._flow.between(lumas[number], lumas[number + 1])
            speed = np.hypot(flow[..., 0], flow[..., 1])
            box = clip.boxes[number] * scale
            face, head = _within(box, 1.0, speed.shape), _within(box, HEAD, speed.shape)
            subject.append(speed[face].mean() / (box[3] - box[1]))
            if np.mean(~head) >= LEAST_SHARE:
                background.append(speed[~head].mean() / len(speed))
        values = {SUBJECT: float(np.mean(subject)) * clip.fps}
        if background:
            values[BACKGROUND] = float(np.mean(background)) * clip.fps
        return Found(values)


def _within(box: np.ndarray, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the pixels in `box` (x0 y0 x1 y1), made larger about its middle; at least one of them."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    (x0, y0), (x1, y1) = np.floor(middle - half).astype(int), np.ceil(middle + half).astype(int)
    inside = np.zeros(shape, bool)
    inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return inside
