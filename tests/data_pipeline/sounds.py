"""Small makers of sounds: (S,) int16, mono, 16 kHz."""

import numpy as np

from data_pipeline import media, weights
from data_pipeline.clip import ANALYSIS_RATE

OPENING = (
    "It was the best of times, it was the worst of times. It was the age of wisdom, it was the age of "
    "foolishness. It was the epoch of belief, it was the epoch of incredulity."
)
"""What `read_aloud(0, OPENING_S)` says."""
OPENING_S = 13.4


def read_aloud(start_s: float, end_s: float) -> np.ndarray:
    """A stretch of the opening of A Tale of Two Cities, read by a man in a quiet room."""
    return media.read_audio(weights.fetch("demo-speech") / "two_cities.wav", start_s, end_s)


def silence(duration_s: float) -> np.ndarray:
    return np.zeros(round(duration_s * ANALYSIS_RATE), np.int16)


def noise(duration_s: float, level: float = 2000, seed: int = 0) -> np.ndarray:
    """White, with standard deviation `level`."""
    samples = np.random.default_rng(seed).standard_normal(round(duration_s * ANALYSIS_RATE))
    return to_int16(samples * level)


def chord(duration_s: float, level: float = 4000) -> np.ndarray:
    """Three steady tones."""
    times_s = np.arange(round(duration_s * ANALYSIS_RATE)) / ANALYSIS_RATE
    return to_int16(level * sum(np.sin(2 * np.pi * hz * times_s) for hz in (220.0, 277.2, 329.6)))


def melody(duration_s: float, level: float = 3000) -> np.ndarray:
    """Plucked notes of a broken chord, four a second, with overtones."""
    times_s = np.arange(ANALYSIS_RATE // 4) / ANALYSIS_RATE
    notes = [
        sum(np.sin(2 * np.pi * hz * overtone * times_s) / overtone for overtone in range(1, 6))
        * np.exp(-6 * times_s)
        for hz in (220.0, 277.2, 329.6, 440.0, 329.6, 277.2)
    ]
    return to_int16(np.resize(np.concatenate(notes) * level, round(duration_s * ANALYSIS_RATE)))


def over(speech: np.ndarray, background: np.ndarray, snr_db: float) -> np.ndarray:
    """The speech with a background of the same length, `snr_db` below it in power."""
    scale = np.sqrt(_power(speech) / _power(background) / 10 ** (snr_db / 10))
    return to_int16(speech + scale * background)


def _power(audio: np.ndarray) -> float:
    return float(np.mean(np.square(audio, dtype=np.float64)))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Rounded, and clipped where too loud."""
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16)
