"""Cuts: where shots begin, told frame by frame to a stream that never holds a whole video.

A detector is given small frames and answers one decision a frame, in order, some frames late:
whether a new shot begins with it. `segment` holds a frame until its decision is there.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from data_pipeline.config import SegmentConfig

Frame = TypeVar("Frame")


class CutDetector(Protocol):
    """What finds cuts. The number of decisions equals the number of frames once `finish` is through."""

    def push(self, rgb: np.ndarray) -> Iterable[bool]:
        """The next frame, (H, W, 3) uint8; returns the decisions that it settles, oldest first."""

    def finish(self) -> Iterable[bool]:
        """The decisions that are still due."""


class ContentCuts:
    """PySceneDetect's two content detectors together: either is enough for a cut.

    `ContentDetector` looks at a frame's difference in hue, saturation and brightness from the one
    before. `AdaptiveDetector` compares that score with its neighbours', and so may be content with
    less: a cut stands out from what is around it, a fast movement does not."""

    STANDS_OUT = 3.0  # times the mean of the neighbours' scores: PySceneDetect's default
    NEIGHBOURS = 2  # on either side
    LOWER = 0.6  # of the threshold, for a frame that stands out; head turns that do were seen to reach 0.52

    def __init__(self, threshold: float) -> None:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        self._plain = ContentDetector(threshold=threshold, min_scene_len=0)
        self._adaptive = AdaptiveDetector(
            adaptive_threshold=self.STANDS_OUT,
            min_content_val=self.LOWER * threshold,
            min_scene_len=0,
            window_width=self.NEIGHBOURS,
        )
        self._n_frames = 0
        self._undecided: deque[bool] = deque()

    def push(self, rgb: np.ndarray) -> list[bool]:
        import cv2
        from scenedetect.common import FrameTimecode

        timecode = FrameTimecode(self._n_frames, fps=25.0)  # the detectors only count frames
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        self._undecided.append(bool(self._plain.process_frame(timecode, bgr)))
        for cut in self._adaptive.process_frame(timecode, bgr):
            self._undecided[cut.frame_num - self._n_frames - 1] = True
        self._n_frames += 1
        return [self._undecided.popleft()] if len(self._undecided) > self.NEIGHBOURS else []

    def finish(self) -> list[bool]:
        rest = list(self._undecided)
        self._undecided.clear()
        return rest


def cut_detector(config: SegmentConfig) -> CutDetector:
    """The configured detector, ready for one video. Loads a model where it has one."""
    if config.backend == "pyscenedetect":
        return ContentCuts(config.cut_threshold)
    from data_pipeline import weights
    from data_pipeline.models.transnetv2 import WEIGHTS, WEIGHTS_FILE, TransNetDetector, TransNetV2

    return TransNetDetector(TransNetV2(weights.fetch(WEIGHTS) / WEIGHTS_FILE))


def in_shots(
    frames: Iterable[tuple[Frame, np.ndarray]], detector: CutDetector
) -> Iterator[tuple[Frame, bool]]:
    """(frame, its small picture) -> (frame, whether a new shot begins with it), in the same order."""
    waiting: deque[Frame] = deque()
    for frame, rgb in frames:
        waiting.append(frame)
        for decision in detector.push(rgb):
            yield waiting.popleft(), decision
    for decision in detector.finish():
        yield waiting.popleft(), decision
