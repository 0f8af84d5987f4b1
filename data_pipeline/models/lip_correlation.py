"""Lip correlation: does this mouth move as that sound would have it? Embedded, and not SyncNet.

    faces -> lip_shape: (F, 4) lips            audio -> speech_to_lips: (F, 2) lips, (F, 91) cepstra
    for every lag: correlation of the seen lips with
        the lips that a generic regression hears           (knows speech, not the speaker)
        and those of a ridge fitted to the clip itself,    (knows the speaker; held out, fold by fold)
    -> a curve over lags -> its peak is the offset; other speech over the same lips says what chance gives

No words and no language are used. `distance` is 1 less the correlation at the peak; `confidence` is how
far the peak is above chance, in units in which 3 is rare: see SIGNIFICANT.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from data_pipeline.models.lip_shape import INNER_GAP, LOWER_LIP, OUTER_GAP, WIDTH, LipShape
from data_pipeline.models.speech_to_lips import lips_from_speech, speech_features, without_drift
from data_pipeline.models.sync_score import SAMPLES_PER_FRAME, SyncScore, stretch, whole_frames

NAME = "lip_correlation"

MAX_LAG = 20  # frames: 0.8 s
MIN_FRAMES = 25
PEAK_FRAMES = 4  # about the peak, which belong to it
OPENING_HEARD, WIDTH_HEARD = 0, 1
GENERIC = ((OPENING_HEARD, INNER_GAP, 0.375), (OPENING_HEARD, LOWER_LIP, 0.375), (WIDTH_HEARD, WIDTH, 0.25))
FITTED = (INNER_GAP, OUTER_GAP, WIDTH, LOWER_LIP)
FOLDS = 4
GAP_FRAMES = 3  # between what a fold learns from and what it is asked
RIDGE = 1.0  # of the number of frames
SIGNIFICANT = 4.0
"""Standard deviations of the curve over chance that count as a confidence of 3. Of 95 real clips with
another clip's sound, 3 reached it: a peak is the greatest of 41 values, so 2 of them mean nothing."""


class LipCorrelation:
    """`score` a clip, on one CPU thread."""

    name = NAME

    def __init__(self, other_speech: np.ndarray) -> None:
        """`other_speech`: (S,) int16 mono at 16 kHz, where decoys come from."""
        self._lips = LipShape()
        self._other_speech = whole_frames(other_speech)

    def score(self, faces: np.ndarray, audio: np.ndarray, decoys: Sequence[int]) -> SyncScore:
        """
        faces: (F, 224, 224, 3) uint8 RGB at 25 fps, cropped as syncnet_python crops; F >= 25.
        audio: (S,) int16 mono at 16 kHz, of the same time as the faces.
        decoys: frames of the other speech, where those begin that are compared.

        Raises ValueError for less than a second, LipsNotSeen where the mesh fits no face.
        """
        if len(faces) < MIN_FRAMES:
            raise ValueError(f"{len(faces)} frames are too short to compare: {MIN_FRAMES} are needed")
        starts = (frame * SAMPLES_PER_FRAME for frame in decoys)
        sounds = [stretch(self._other_speech, start, len(audio)) for start in starts]
        return score_lips(self._lips.measure(faces), audio, sounds)


def score_lips(lips: np.ndarray, audio: np.ndarray, decoys: Sequence[np.ndarray]) -> SyncScore:
    """(F, 4) lips as `LipShape.measure` gives them, against a sound, and decoys at least as long.

    Without decoys `margin` is None."""
    own = curve_of(lips, audio)
    others = [curve_of(lips, decoy[: len(audio)]) for decoy in decoys]
    peak = int(own.argmax())
    chance = np.concatenate([_beside_peak(own), *others])
    confidence = _significance(own, chance)
    margin = None
    if others:
        margin = confidence - max(_significance(other, chance) for other in others)
    return SyncScore(_between_lags(own, peak), confidence, float(1 - own[peak]), margin)


def curve_of(lips: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(F, 4) lips as `LipShape.measure` gives them, a sound -> correlation at each lag of `lags_of(F)`."""
    from threadpoolctl import threadpool_limits

    # The last bits of a product of matrices depend on BLAS's threads, and products as small as these wait
    # longer for threads than they take.
    with threadpool_limits(1, "blas"):
        motion = without_drift(lips)
        return correlation_curve(motion / (motion.std(axis=0) + 1e-9), audio)


def correlation_curve(motion: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(F, 4) motion of the lips and a sound -> mean correlation for each lag of `lags_of(F)`."""
    heard = without_drift(lips_from_speech(audio, len(motion)))
    features = speech_features(audio, len(motion))
    return np.array(
        [
            (
                sum(
                    weight * _correlation(x, y)
                    for weight, x, y in _generic_pairs(*_at_lag(heard, motion, lag))
                )
                + _held_out(*_at_lag(features, motion[:, FITTED], lag))
            )
            / 2
            for lag in lags_of(len(motion))
        ]
    )


def lags_of(n_frames: int) -> np.ndarray:
    """Frames by which the sound may be early; of a short clip fewer, so that half of it is compared."""
    most = min(MAX_LAG, n_frames // 2)
    return np.arange(-most, most + 1)


def _at_lag(sound: np.ndarray, motion: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """What is compared if the sound is `lag` frames early: its frame i - lag belongs to picture i."""
    if lag >= 0:
        return sound[: len(sound) - lag], motion[lag:]
    return sound[-lag:], motion[:lag]


def _generic_pairs(heard: np.ndarray, motion: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    return [(weight, heard[:, x], motion[:, y]) for x, y, weight in GENERIC]


def _held_out(features: np.ndarray, motion: np.ndarray) -> float:
    """Mean correlation of each column of `motion` with a ridge regression that has not seen its fold."""
    n = len(features)
    edges = np.linspace(0, n, FOLDS + 1).astype(int)
    predicted = np.zeros_like(motion)
    for start, end in pairwise(edges):
        seen = np.r_[0 : max(start - GAP_FRAMES, 0), min(end + GAP_FRAMES, n) : n]
        mean, level = features[seen].mean(axis=0), motion[seen].mean(axis=0)
        x = features[seen] - mean
        normal = x.T @ x + RIDGE * len(seen) * np.eye(x.shape[1])
        predicted[start:end] = (features[start:end] - mean) @ np.linalg.solve(
            normal, x.T @ (motion[seen] - level)
        )
    return float(np.mean([_correlation(predicted[:, k], motion[:, k]) for k in range(motion.shape[1])]))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 where one of them does not move."""
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 1e-12 else 0.0


def _beside_peak(curve: np.ndarray) -> np.ndarray:
    return curve[np.abs(np.arange(len(curve)) - curve.argmax()) > PEAK_FRAMES]


def _significance(curve: np.ndarray, chance: np.ndarray) -> float:
    deviations = (curve.max() - chance.mean()) / max(float(chance.std()), 1e-6)
    return float(3 * deviations / SIGNIFICANT)


def _between_lags(curve: np.ndarray, peak: int) -> float:
    """The peak's lag in fractions of a frame: the top of a parabola through the smoothed curve."""
    lag = peak - len(curve) // 2
    if not 2 <= peak <= len(curve) - 3:
        return float(lag)
    before, at, after = np.convolve(curve[peak - 2 : peak + 3], [0.25, 0.5, 0.25], "valid")
    bend = before - 2 * at + after
    return float(lag + np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else float(lag)
