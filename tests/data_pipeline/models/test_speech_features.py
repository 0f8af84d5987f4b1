"""Embedded speech features on read English: one row a frame, at the right time, steady."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import weights
from data_pipeline.models import whisper
from data_pipeline.models.speech_features import (
    CONTEXT_S,
    STATE_RATE,
    WINDOW_S,
    WhisperEncoder,
    count_frames,
    log_mel_features,
    speech_features,
    windows,
)
from tests.data_pipeline.sounds import read_aloud

CONTEXT, WINDOW = CONTEXT_S * STATE_RATE, WINDOW_S * STATE_RATE


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return WhisperEncoder(weights.fetch(whisper.WEIGHTS))


@pytest.fixture(scope="module")
def reading() -> np.ndarray:
    return read_aloud(0, 40) / 32768


@pytest.fixture(scope="module")
def features(encoder, reading) -> np.ndarray:
    return speech_features(encoder, reading)


def likeness(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Cosine similarity, row by row."""
    norms = np.linalg.norm(some, axis=-1) * np.linalg.norm(others, axis=-1)
    return (some * others).sum(axis=-1) / norms


def test_there_is_one_state_a_video_frame(features):
    assert features.shape == (1000, 1, 384)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize(("n_samples", "fps"), [(1, 25), (16_001, 29.97)])
def test_a_frame_that_is_begun_has_its_row(encoder, n_samples, fps):
    wav = np.sin(np.arange(n_samples) / 7)
    assert speech_features(encoder, wav, fps).shape == (count_frames(n_samples, fps), 1, 384)
    assert log_mel_features(wav, fps).shape == (count_frames(n_samples, fps), 4, 80)


def test_the_first_seconds_hardly_depend_on_what_comes_after_the_window(encoder, reading, features):
    """30 s alone, and as the first window of 40 s: the same up to where the second window takes over."""
    alone = speech_features(encoder, reading[: 30 * 16_000])
    assert likeness(alone[:600], features[:600]).mean() > 0.98


def test_a_second_window_hears_what_one_around_it_hears(encoder, reading, features):
    other = speech_features(encoder, reading[8 * 16_000 : 38 * 16_000])[500:700]  # 28 .. 36 s
    own = features[700:900]
    assert likeness(own, other).mean() > likeness(own, np.roll(other, 40, axis=0)).mean() + 0.3


def test_speech_in_silence_is_seen_in_its_frames(encoder, reading):
    wav = np.zeros(6 * 16_000)
    wav[2 * 16_000 : 4 * 16_000] = reading[: 2 * 16_000]
    states = speech_features(encoder, wav)[:, 0]
    change = np.linalg.norm(np.diff(states, axis=0), axis=1)
    assert change[52:98].mean() > 2 * change[5:40].mean()


def test_the_same_sound_gives_the_same_features(encoder, reading):
    wav = reading[: 5 * 16_000]
    np.testing.assert_array_equal(speech_features(encoder, wav), speech_features(encoder, wav))


def test_a_burst_is_loudest_in_its_own_frame():
    wav = np.zeros(2 * 16_000)
    wav[31 * 640 + 160 : 31 * 640 + 480] = np.sin(np.arange(320) * 0.8)
    rows = log_mel_features(wav).mean(axis=(1, 2))
    assert rows.argmax() == 31


def test_log_mels_move_with_the_sound(reading):
    wav = reading[: 4 * 16_000]
    later = np.concatenate([np.zeros(10 * 640), wav])
    np.testing.assert_allclose(log_mel_features(later)[12:], log_mel_features(wav)[2:], atol=1e-4)


@given(n_states=st.integers(1, 20_000))
def test_windows_use_every_state_once_with_sound_around_it(n_states):
    found = windows(n_states)
    assert found[0][1] == 0
    assert found[-1][2] == n_states
    assert all(before[2] == after[1] for before, after in pairwise(found))
    for first, begin, end in found:
        assert 0 <= first <= begin < end <= min(first + WINDOW, n_states)
        assert begin == 0 or begin - first >= CONTEXT
        assert end == n_states or first + WINDOW - end >= CONTEXT


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros(0), "S >= 1"),
        (np.zeros(16_000, np.int16), "float of -1..1"),
        (np.zeros((2, 16_000)), r"float64 \(2, 16000\)"),
        (np.full(16_000, np.inf), "not finite"),
    ],
)
def test_what_is_no_sound_is_refused_in_words(encoder, wrong, said):
    with pytest.raises(ValueError, match=said):
        speech_features(encoder, wrong)
    with pytest.raises(ValueError, match=said):
        log_mel_features(wrong)
