"""A little tune with drums, for a video in which nobody is heard to speak."""

import numpy as np

BEAT_S = 0.5
CHORDS = ((57, 60, 64), (53, 57, 60), (48, 52, 55), (55, 59, 62))  # A minor, F, C, G, as MIDI notes
TUNE = (76, 74, 72, 74, 77, 76, 72, 69, 72, 76, 79, 76, 74, 71, 74, 79)


def play(duration_s: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(S,) int16 at `rate` Hz."""
    n_samples = round(duration_s * rate)
    mixed = np.zeros(n_samples + 4 * rate)

    def add(sound: np.ndarray, at_s: float) -> None:
        start = round(at_s * rate)
        mixed[start : start + len(sound)] += sound

    for beat in range(int(duration_s / BEAT_S) + 1):
        at_s = beat * BEAT_S
        if beat % 4 == 0:
            for note in CHORDS[beat // 4 % len(CHORDS)]:
                add(0.25 * _tone(note, 4 * BEAT_S, rate), at_s)
        add(0.35 * _tone(TUNE[beat % len(TUNE)], BEAT_S, rate), at_s)
        add(0.7 * _drum(rate) if beat % 2 == 0 else 0.3 * _hiss(rate, rng), at_s)
        add(0.12 * _hiss(rate, rng), at_s + BEAT_S / 2)
    mixed = mixed[:n_samples]
    return np.round(mixed / np.abs(mixed).max() * 0.7 * 32767).astype(np.int16)


def _tone(note: int, duration_s: float, rate: int) -> np.ndarray:
    times_s = np.arange(round(duration_s * rate)) / rate
    turns = 2 * np.pi * 440 * 2 ** ((note - 69) / 12) * times_s
    overtones = sum(np.sin(k * turns) / k**1.5 for k in range(1, 7))
    return overtones * np.minimum(1, times_s / 0.01) * np.exp(-2 * times_s / duration_s)


def _drum(rate: int) -> np.ndarray:
    times_s = np.arange(round(0.25 * rate)) / rate
    return np.sin(2 * np.pi * (50 * times_s - 8 * np.exp(-times_s / 0.04))) * np.exp(-times_s / 0.07)


def _hiss(rate: int, rng: np.random.Generator) -> np.ndarray:
    times_s = np.arange(round(0.15 * rate)) / rate
    return rng.standard_normal(len(times_s)) * np.exp(-times_s / 0.03)
