import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline.sound_level import (
    SILENCE_DBFS,
    SNR_RANGE_DB,
    WADA_SNR_DB,
    WADA_STATISTIC,
    loudness_dbfs,
    snr_db,
)
from tests.data_pipeline.sounds import chord, noise, silence, to_int16


def test_a_full_scale_square_wave_is_at_zero_and_a_sine_three_decibels_below() -> None:
    assert loudness_dbfs(np.tile(np.array([-32768, 32767], np.int16), 800)) == pytest.approx(0, abs=0.001)
    sine = to_int16(32767 * np.sin(np.arange(16_000) * 0.3))
    assert loudness_dbfs(sine) == pytest.approx(-3.01, abs=0.02)


@pytest.mark.parametrize("audio", [silence(1), silence(0)], ids=["digital silence", "no samples"])
def test_silence_has_a_finite_level(audio: np.ndarray) -> None:
    assert loudness_dbfs(audio) == SILENCE_DBFS


@pytest.mark.parametrize("true_db", [0, 5, 10, 20, 30])
def test_pauses_tell_the_ratio_within_half_a_decibel(true_db: float) -> None:
    burst = noise(2, level=3000, seed=1)
    signal = np.concatenate([silence(1), burst, silence(1)]).astype(float)
    background = noise(4, level=3000, seed=2) / 10 ** (true_db / 20)
    assert snr_db(to_int16(signal + background), [(1.0, 3.0)], [(0.0, 1.0), (3.0, 4.0)]) == pytest.approx(
        true_db, abs=0.5
    )


@pytest.mark.parametrize("true_db", [0, 5, 10, 20, 30])
def test_speech_without_pauses_is_judged_by_its_amplitudes(true_db: float) -> None:
    speech, background = _speech_like(64_000), np.random.default_rng(3).standard_normal(64_000)
    audio = to_int16(300 * (speech * 10 ** (true_db / 20) + background))
    assert snr_db(audio, [(0.0, 4.0)], []) == pytest.approx(true_db, abs=2)


def test_a_sound_without_speech_has_no_ratio() -> None:
    assert snr_db(noise(2), [], [(0.0, 2.0)]) is None


def test_what_is_louder_in_the_pauses_than_in_the_speech_is_at_the_bottom_of_the_range() -> None:
    audio = np.concatenate([noise(1, level=100), chord(1)])
    assert snr_db(audio, [(0.0, 1.0)], [(1.0, 2.0)]) == SNR_RANGE_DB[0]


def test_speech_between_digital_silence_is_at_the_top_of_the_range() -> None:
    audio = np.concatenate([silence(1), noise(1), silence(1)])
    assert snr_db(audio, [(1.0, 2.0)], [(0.0, 1.0), (2.0, 3.0)]) == SNR_RANGE_DB[1]


@given(
    audio=arrays(np.int16, st.integers(0, 4000)),
    start_s=st.floats(0, 0.3),
    length_s=st.floats(0, 0.3),
)
def test_any_sound_has_a_level_and_a_ratio_in_range(
    audio: np.ndarray, start_s: float, length_s: float
) -> None:
    assert SILENCE_DBFS <= loudness_dbfs(audio) <= 0
    ratio = snr_db(audio, [(start_s, start_s + length_s)], [(0.0, start_s)])
    assert ratio is None or SNR_RANGE_DB[0] <= ratio <= SNR_RANGE_DB[1]


def test_the_table_of_amplitude_distributions_is_what_a_simulation_gives() -> None:
    speech, background = _speech_like(1_000_000), np.random.default_rng(5).standard_normal(1_000_000)
    for db, expected in zip(WADA_SNR_DB, WADA_STATISTIC, strict=True):
        amplitude = np.abs(speech * 10 ** (db / 20) + background)
        assert np.log(amplitude.mean()) - np.log(amplitude).mean() == pytest.approx(expected, abs=0.01)


def _speech_like(n_samples: int) -> np.ndarray:
    """Amplitudes of speech as WADA has them, of power 1: gamma of shape 0.4, either sign."""
    rng = np.random.default_rng(4)
    return rng.gamma(0.4, size=n_samples) * rng.choice([-1.0, 1.0], n_samples) / np.sqrt(0.4 * 1.4)
