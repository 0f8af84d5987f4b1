"""Sync: does the sound belong to the mouth, and by how much is it early or late?

    face crops at 25 fps, the clip's sound, other speech  ->  the backend  ->  offset, confidence, distance,
    margin over the other speech  ->  the shift that the encoder gives the stored sound

Raw scores are stored; policy.py decides about them. Where the offset is believed and small, the sound is
moved so that it becomes 0, and the words with it. A smaller offset than `correct_from_frames` is left
alone: it is within the measure's own error.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline import weights
from data_pipeline.clip import ANALYSIS_RATE, Clip, Word
from data_pipeline.config import SyncConfig
from data_pipeline.models.sync_score import SyncBackend, SyncScore, decoy_frames
from data_pipeline.stages.face_crops import CROP_FPS

if TYPE_CHECKING:
    from data_pipeline.models.syncnet import SyncNet

DECOY_SPEECH, DECOY_FILE = "decoy-speech", "endgame_nagg_nell.wav"
MIN_S = 1.0  # of picture and sound, to be compared at all

Crops = Callable[[], Iterable[np.ndarray]]
"""Gives a clip's face crops, in chunks of (n, 224, 224, 3) uint8 RGB at 25 fps."""


class Sync:
    """The stage, with the configured backend."""

    def __init__(self, config: SyncConfig) -> None:
        self._config = config

    def setup(self) -> None:
        """Load the backend. Raises weights.WeightsUnavailable."""
        self._other_speech = read_speech(weights.fetch(DECOY_SPEECH) / DECOY_FILE)
        self._backend = sync_backend(self._config, self._other_speech)

    def __call__(self, clip: Clip, crops: Crops) -> Clip:
        """Adds the fields under "sync"; where nothing can be compared, only the backend's name."""
        clip.sync_backend = self._backend.name
        clip.sync_shift_applied_s = 0.0
        score = compared(clip, crops, self._backend, len(self._other_speech))
        if score is None:
            return clip
        clip.sync_offset_frames, clip.sync_confidence = score.offset_frames, score.confidence
        clip.sync_distance, clip.sync_margin = score.distance, score.margin
        return shifted(clip, shift_s(score, self._config))


def compared(clip: Clip, crops: Crops, backend: SyncBackend, n_other: int) -> SyncScore | None:
    """The clip's lips against its sound and some of `n_other` samples of other speech; None where lips or
    sound are missing, too short, or not to be seen.

    Crops are asked for only if there is something to compare them with."""
    from data_pipeline.models.lip_shape import LipsNotSeen

    if clip.audio is None or len(clip.audio) < MIN_S * ANALYSIS_RATE or not _has_face(clip):
        return None
    faces = np.concatenate(list(crops()))
    if len(faces) < MIN_S * CROP_FPS:
        return None
    try:
        return backend.score(faces, clip.audio, decoy_frames(str(clip.clip_id), n_other))
    except LipsNotSeen:
        return None


def sync_backend(config: SyncConfig, other_speech: np.ndarray) -> SyncBackend:
    """The configured measure, loaded; decoys come from `other_speech`. Raises weights.WeightsUnavailable."""
    if config.backend == "syncnet":
        from data_pipeline.models.syncnet import WEIGHTS
        from data_pipeline.models.syncnet_scorer import SyncNetScorer

        name = f"syncnet:{config.own_network.name}" if config.own_network else WEIGHTS
        return SyncNetScorer(load_syncnet(config), other_speech, name=name)
    from data_pipeline.models.lip_correlation import LipCorrelation

    return LipCorrelation(other_speech)


def load_syncnet(config: SyncConfig) -> "SyncNet":
    """The published network, or the user's own. Raises weights.WeightsUnavailable."""
    from data_pipeline.models import syncnet

    if config.own_network is None:
        return syncnet.SyncNet.load(weights.fetch(syncnet.WEIGHTS) / syncnet.WEIGHTS_FILE)
    try:
        return syncnet.SyncNet.load(config.own_network)
    except (OSError, ValueError) as error:
        raise weights.WeightsUnavailable(f"sync.syncnet.weights: {error}") from error


def read_speech(path: Path) -> np.ndarray:
    """(S,) int16 mono at ANALYSIS_RATE, of a file that weights.yaml pins."""
    from data_pipeline import media

    return media.read_audio(path)


def shift_s(score: SyncScore, config: SyncConfig) -> float:
    """Seconds by which to delay the sound, in whole milliseconds; 0 where the offset is not believed, too
    small to be one, or too large to be a matter of muxing."""
    believed = score.confidence >= config.min_confidence and (
        score.margin is None or score.margin >= config.min_margin
    )
    if not believed or not config.correct_from_frames <= abs(score.offset_frames) <= config.correct_to_frames:
        return 0.0
    return round(score.offset_frames / CROP_FPS, 3)


def shifted(clip: Clip, by_s: float) -> Clip:
    """The clip with its sound delayed by `by_s`: words move along, those that leave the clip are dropped."""
    if by_s == 0 or clip.start_s is None or clip.end_s is None:
        return clip
    words = moved(clip.words, by_s, clip.end_s - clip.start_s)
    clip = replace(clip, sync_shift_applied_s=by_s, words=words)
    if clip.n_words is not None and len(words) < clip.n_words:
        clip.n_words, clip.transcript = len(words), " ".join(word.text for word in words)
    return clip


def moved(words: Sequence[Word], by_s: float, duration_s: float) -> list[Word]:
    """Words `by_s` later, those whose middle is within [0, duration_s], cut at its ends."""
    later = [replace(word, start_s=word.start_s + by_s, end_s=word.end_s + by_s) for word in words]
    inside = [word for word in later if 0 <= (word.start_s + word.end_s) / 2 <= duration_s]
    return [
        replace(
            word,
            start_s=round(min(max(word.start_s, 0.0), duration_s), 3),
            end_s=round(min(max(word.end_s, 0.0), duration_s), 3),
        )
        for word in inside
    ]


def _has_face(clip: Clip) -> bool:
    return clip.track is not None and bool(np.isfinite(clip.track.boxes).any())
