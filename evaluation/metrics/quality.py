"""Quality of the pictures, without anything to compare them with: BRISQUE of whole frames.

every k-th frame -> luma -> score (brisque.py) -> mean over the clip
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline import weights
from evaluation.metrics.brisque import WEIGHTS, Brisque, Featureless
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip
from evaluation.metrics.optical_flow import luma_of

NAME = "brisque"
EVERY = 10


class Quality(MeanOfClips):
    """`brisque`, 0 (as good as a photograph) ... 100 (bad)."""

    def __init__(self, every: int = EVERY) -> None:
        """`every`: of so many frames the first is scored."""
        super().__init__([NAME])
        self._every = every
        self.protocol: Mapping[str, object] = {"every": every, "networks": weights.digests_of([WEIGHTS])}

    def setup(self) -> None:
        self._brisque = Brisque()

    def measure(self, clip: SeenClip) -> Found:
        """Frames of one colour are left out. Raises CannotScore where all are."""
        scores = []
        for frame in clip.frames[:: self._every]:
            try:
                scores.append(self._brisque.score(luma_of(frame)))
            except Featureless:
                continue
        if not scores:
            raise CannotScore(f"{clip.name}: its frames are of one colour; there is no quality to be told")
        return Found({NAME: float(np.mean(scores))})
