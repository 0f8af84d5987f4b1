"""Speech features without torch: for runs where wav2vec 2.0's weights cannot be had.

    wav (S,) of -1..1 -> log-mel (80, 100 a second)            -> the 4 of each video frame -> (F, 4, 80)
                      -> windows of 30 s, 4 s shared on a side -> Whisper's encoder, 50 states a second
                                                               -> one a video frame         -> (F, 1, 384)

A frame of video stands for its middle; where the rates do not fit, neighbours are interpolated.
Model: the encoder of Whisper tiny.en (Radford et al. 2022) in int8 by CTranslate2, which hands out its
last layer only. It is no wav2vec 2.0: a network trained on one does not run on the other.
"""

import math
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE

if TYPE_CHECKING:
    from faster_whisper.feature_extractor import FeatureExtractor

WINDOW_S = 30  # what Whisper was trained to hear at a time
CONTEXT_S = 4
MEL_RATE, STATE_RATE = 100, 50  # a second
MELS_PER_FRAME = 4


class WhisperEncoder:
    """Whisper's encoder, on one thread. `folder`: the files of `whisper.WEIGHTS`."""

    def __init__(self, folder: Path) -> None:
        import ctranslate2

        self._model = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
        )

    def encode(self, mels: np.ndarray) -> np.ndarray:
        """(80, 3000) log-mel: 30 s -> (1500, 384) states."""
        import ctranslate2

        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(mels[None], np.float32))
        return np.array(self._model.encode(features, to_cpu=True))[0]


def count_frames(n_samples: int, fps: float = 25) -> int:
    """Video frames of a sound at 16 kHz; the last may be begun only."""
    return math.ceil(Fraction(fps) * n_samples / ANALYSIS_RATE)


def speech_features(model: WhisperEncoder, wav: np.ndarray, fps: float = 25) -> np.ndarray:
    """(S,) float of -1..1, mono at 16 kHz, S >= 1 -> (F, 1, 384) float32, F = `count_frames(S, fps)`.

    A sound of over 30 s is heard in windows that share 4 s on either side; what is used of each is its
    inner part. States know where in the window they are, so they jump where one window follows another."""
    mels = _log_mels(_checked(wav))
    n_states = math.ceil(len(wav) * STATE_RATE / ANALYSIS_RATE)
    states = np.concatenate(
        [
            model.encode(mels[:, 2 * first : 2 * first + WINDOW_S * MEL_RATE])[begin - first : end - first]
            for first, begin, end in windows(n_states)
        ]
    )
    middles_s = (np.arange(count_frames(len(wav), fps)) + 0.5) / fps
    return _at(states, middles_s * STATE_RATE)[:, None]


def log_mel_features(wav: np.ndarray, fps: float = 25) -> np.ndarray:
    """(S,) float of -1..1, mono at 16 kHz, S >= 1 -> (F, 4, 80) float32: four moments of each frame.

    Whisper's scale: log10 of the power in 80 mel bands, at most 8 below the sound's loudest, + 4, / 4."""
    moments = np.arange(count_frames(len(wav), fps) * MELS_PER_FRAME) / (MELS_PER_FRAME * fps)
    return _at(_log_mels(_checked(wav)).T, moments * MEL_RATE).reshape(-1, MELS_PER_FRAME, 80)


def windows(n_states: int) -> list[tuple[int, int, int]]:
    """(first, begin, end) of each window of 30 s: where it starts, and which states are used of it.

    In states of the whole sound; what is used covers all of them once, in order, with 4 s of the sound
    on either side of it except at the sound's own ends."""
    length, context = WINDOW_S * STATE_RATE, CONTEXT_S * STATE_RATE
    if n_states <= length:
        return [(0, 0, n_states)]
    found = []
    begin = 0
    while begin < n_states:
        first = min(max(0, begin - context), n_states - length)
        end = n_states if first == n_states - length else first + length - context
        found.append((first, begin, end))
        begin = end
    return found


def _log_mels(wav: np.ndarray) -> np.ndarray:
    """(S,) -> (80, M), 100 a second, the first at 0 s; 30 s of silence follow, as Whisper's authors do it."""
    from threadpoolctl import threadpool_limits

    # A product of numpy matrices, whose last bits depend on BLAS's threads.
    with threadpool_limits(limits=1, user_api="blas"):
        return _extractor()(wav, padding=WINDOW_S * ANALYSIS_RATE)


@cache
def _extractor() -> "FeatureExtractor":
    from faster_whisper.feature_extractor import FeatureExtractor

    return FeatureExtractor()


def _at(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(R, C), (F,) -> (F, C) float32: linear between rows; beyond the last one, the last."""
    positions = np.minimum(positions, len(rows) - 1)
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, len(rows) - 1)
    share = (positions - below)[:, None]
    return (rows[below] * (1 - share) + rows[above] * share).astype(np.float32)


def _checked(wav: np.ndarray) -> np.ndarray:
    if wav.ndim != 1 or len(wav) == 0 or not np.issubdtype(wav.dtype, np.floating):
        raise ValueError(f"the sound is {wav.dtype} {wav.shape}, not (S,) float of -1..1 with S >= 1")
    if not np.isfinite(wav).all():
        raise ValueError("the sound has samples that are not finite numbers")
    return wav
