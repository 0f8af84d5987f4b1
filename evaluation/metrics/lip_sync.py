"""Lip sync without SyncNet: do the lips move as the speech has them? Embedded, and no Sync-C.

    clip -> face crops at 25 fps, sound (syncnet_crops.py) -> lips, by the mesh
         -> their correlation with the speech at every lag of -20 ... 20 frames -> its peak, and where it is
    the same with other speech over the same mouth                              -> the margin over it

The measure is the curation's (data_pipeline.models.lip_correlation says how it is made). A peak over many
lags is positive on noise: the margin, of peaks over peaks, is not. At a lag that was fixed beforehand, as
evidence that training taught something: lip_correlation.py.
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline import weights
from data_pipeline.models import face_mesh
from data_pipeline.models.lip_correlation import MAX_LAG, NAME, curve_of, lags_of
from data_pipeline.models.lip_shape import LipShape, LipsNotSeen
from data_pipeline.models.sync_score import stretch
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip
from evaluation.metrics.syncnet_crops import PROTOCOL, face_and_sound


class LipSync(MeanOfClips):
    """`lip_correlation` (at the best lag, -1 ... 1, higher is better; positive on noise),
    `lip_correlation_offset` (frames of 25 fps by which the sound is early), and where clips have decoys
    `lip_correlation_margin`: the correlation less the mean of the decoys', each at its own best lag."""

    def __init__(self) -> None:
        self._value, self._offset, self._margin = NAME, f"{NAME}_offset", f"{NAME}_margin"
        super().__init__([self._value, self._offset, self._margin])
        networks = weights.digests_of(face_mesh.WEIGHTS)
        self.protocol: Mapping[str, object] = {**PROTOCOL, "networks": networks, "max_lag": MAX_LAG}

    def setup(self) -> None:
        self._lips = LipShape()

    def measure(self, clip: SeenClip) -> Found:
        """Arrays: `lip_correlation_lags` and `lip_correlation_curve`, (L,) each: the correlation if the sound
        is early by so many frames. Raises CannotScore as `Sync`, and where the lips are not to be seen."""
        seen = face_and_sound(clip)
        try:
            lips = self._lips.measure(seen.faces)
        except LipsNotSeen as error:
            raise CannotScore(f"{clip.name}: {error}") from error
        own, lags = curve_of(lips, seen.sound), lags_of(len(lips))
        values = {self._value: float(own.max()), self._offset: float(lags[own.argmax()])}
        if clip.decoys:
            decoys = [curve_of(lips, stretch(decoy, 0, len(seen.sound))).max() for decoy in clip.decoys]
            values[self._margin] = float(own.max() - np.mean(decoys))
        return Found(values, {f"{self._value}_lags": lags, f"{self._value}_curve": own})
