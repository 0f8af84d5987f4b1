"""Known answers, from openings that are made up; then the demo's own takes, whose mouths are known."""

import numpy as np
import pytest

from evaluation.metrics.lip_correlation import Mouth, MouthReader, correlation, followed, lag_of
from tests.evaluation.test_picture import astronaut


def opening(seed: int, frames: int = 100) -> np.ndarray:
    """(frames,) as speech asks for it: a syllable every few frames."""
    noise = np.random.default_rng(seed).normal(size=frames + 8)
    return np.convolve(noise, np.hanning(9), "valid")[:frames]


def mouth(gap: np.ndarray, seen: np.ndarray | None = None) -> Mouth:
    return Mouth(gap, np.ones(len(gap), bool) if seen is None else seen)


def test_a_mouth_that_opens_as_asked_has_a_correlation_of_one() -> None:
    assert correlation(mouth(0.3 * opening(1) + 0.1), opening(1), 0) == pytest.approx(1)
    assert correlation(mouth(-opening(1)), opening(1), 0) == pytest.approx(-1)


def test_the_lag_is_what_real_clips_show() -> None:
    real = [mouth(np.r_[np.zeros(2), opening(seed)[:-2]]) for seed in range(4)]
    assert lag_of(real, [opening(seed) for seed in range(4)]) == 2
    assert correlation(real[0], opening(0), 2) == pytest.approx(1)


def test_frames_without_a_face_count_as_zero() -> None:
    seen = np.arange(100) % 4 != 0
    gap = np.where(seen, opening(1), 7.0)
    assert correlation(mouth(gap, seen), opening(1), 0) == pytest.approx(0.75)
    assert correlation(mouth(gap, np.zeros(100, bool)), opening(1), 0) == 0


def test_a_mouth_that_does_not_move_follows_nothing() -> None:
    assert correlation(mouth(np.full(100, 0.2)), opening(1), 0) == 0


def test_noise_follows_its_own_speech_no_more_than_other_speech() -> None:
    others = [opening(seed) for seed in range(1000, 1006)]
    values = [followed(mouth(opening(seed)), opening(500 + seed), others, 0).value for seed in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_what_other_speech_gives_is_taken_off() -> None:
    own, other = opening(1), opening(2)
    found = followed(mouth(own + other), own, [other, opening(3)[:60]], 0)
    assert found.own == pytest.approx(0.7, abs=0.15)
    assert found.value == found.own - found.decoy
    assert found.decoy > 0.2
    with pytest.raises(ValueError, match="at least one other speech"):
        followed(mouth(own), own, [], 0)


def test_a_mouth_is_read_where_the_portrait_has_its_face_and_nowhere_else() -> None:
    face = np.asarray(astronaut().convert("RGB"))
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    found = MouthReader().read(np.stack([face, noise]), face)
    assert found.seen.tolist() == [True, False]
    with pytest.raises(ValueError, match="no face is seen"):
        MouthReader().read(face[None], noise)
