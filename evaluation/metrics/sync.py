"""Sync: does the mouth say what is heard, and if so, how many frames apart?

    clip -> face crops at 25 fps, sound (syncnet_crops.py)
         -> SyncNet: distance at every shift of -15 ... 15 frames -> its least, median less least, where it is
    the same with other speech over the same mouth                -> the margin over it

Sync-C and Sync-D (LSE-C, LSE-D): Chung & Zisserman, "Out of time: automated lip sync in the wild", ACCV-W
2016, as Prajwal et al., ACM MM 2020, report them. They have these names with the published network alone: a
network of the user's own has its digest behind them, and what is measured without one is lip_sync.py's.
"""

from collections.abc import Mapping

import numpy as np
import torch

from data_pipeline import weights
from data_pipeline.config import SyncConfig
from data_pipeline.models import syncnet
from data_pipeline.models.sync_score import stretch
from data_pipeline.models.syncnet_scorer import SyncNetScorer, count_windows
from data_pipeline.stages.sync import load_syncnet
from evaluation.metrics.lip_sync import LipSync
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import Found, Metric, SeenClip
from evaluation.metrics.syncnet_crops import PROTOCOL, face_and_sound

NO_SPEECH: np.ndarray = np.zeros(0, np.int16)


def sync_metric(config: SyncConfig) -> Metric:
    """The configured measure. Raises WeightsUnavailable where a network of the user's own is not here."""
    return Sync(config) if config.backend == "syncnet" else LipSync()


class Sync(MeanOfClips):
    """SyncNet's: `sync_c` (higher is better), `sync_d` (lower is), `sync_offset` (frames of 25 fps by which
    the sound is early), and where clips have decoys `sync_margin`: Sync-C less the mean of the decoys'."""

    def __init__(self, config: SyncConfig, device: str = "cpu") -> None:
        """`config.backend` is `syncnet`; `device` is torch's. Raises WeightsUnavailable where the user's own
        network is not here."""
        self._config, self._device = config, device
        published = weights.registry()[syncnet.WEIGHTS].files[0].sha256
        own = config.own_network
        digest = weights.digest_of_file(own) if own else published
        suffix = "" if digest == published else f"-{str(digest)[:8]}"
        self._c, self._d, self._offset, self._margin = (
            f"sync_{what}{suffix}" for what in ("c", "d", "offset", "margin")
        )
        super().__init__([self._c, self._d, self._offset, self._margin])
        self.protocol: Mapping[str, object] = {
            **PROTOCOL,
            "sha256": digest,
            "max_shift": syncnet.MAX_SHIFT,
        }

    def setup(self) -> None:
        network = load_syncnet(self._config).to(self._device)
        self._scorer = SyncNetScorer(network, NO_SPEECH, torch.get_num_threads())

    def measure(self, clip: SeenClip) -> Found:
        """Arrays: `sync_shifts` and `sync_curve`, (31,) each: the mean distance if the sound is early by so
        many frames. Raises CannotScore for a clip without sound, or with less than a second of face."""
        seen = face_and_sound(clip)
        windows = count_windows(len(seen.faces), len(seen.sound))
        video = self._scorer.video_features(seen.faces, windows)

        def compared(sound: np.ndarray) -> syncnet.SyncCurve:
            return syncnet.sync_score(video, self._scorer.audio_features(sound, windows))

        own = compared(seen.sound)
        values = {self._c: own.confidence, self._d: own.distance, self._offset: float(own.offset)}
        if clip.decoys:
            decoys = [compared(stretch(decoy, 0, len(seen.sound))).confidence for decoy in clip.decoys]
            values[self._margin] = own.confidence - float(np.mean(decoys))
        shifts = np.arange(syncnet.MAX_SHIFT, -syncnet.MAX_SHIFT - 1, -1)
        return Found(values, {"sync_shifts": shifts, "sync_curve": own.mean_dists})
