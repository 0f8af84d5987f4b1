"""Speech to lips: what a mouth does while a sound is heard, by a small regression from the spectrum.

    audio (S,) 16 kHz -> 26 log mel bands -> 13 cepstra, 100 a second -> seven of them about each video
    frame, from 80 ms before to 80 ms after -> x coefficients (91, 2) -> opening and width (F, 2)

The coefficients in speech_to_lips.json are ridge regression on the demo's speakers: recordings of read
English, played at three speeds, and the mouth that goes with their phones (demo/speech.py). They know
no language: only what vowels, hisses and silences sound like. Made by

    python -m data_pipeline.models.speech_to_lips
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE

FPS = 25
COEFFICIENTS = Path(__file__).with_suffix(".json")

STEP, WINDOW, FFT = ANALYSIS_RATE // 100, 400, 512  # samples
N_BANDS, N_CEPSTRA = 26, 13
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0
STEPS_PER_FRAME = 4
CONTEXT = (-8, -4, -2, 0, 2, 4, 8)  # steps of 10 ms about a frame's middle
RIDGE = 0.1  # of the number of frames, in the fit


def lips_from_speech(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """(S,) int16 -> (n_frames, 2): opening and width of the mouth, without scale."""
    return speech_features(audio, n_frames) @ _coefficients()


def speech_features(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """(S,) int16 at 16 kHz -> (n_frames, 91): cepstra about each frame of 25 fps.

    Each has mean 0 and variance 1. Beyond the sound's ends the first and last cepstra stay."""
    from scipy.fft import dct
    from scipy.ndimage import gaussian_filter1d

    cepstra = dct(_log_mel(audio), type=2, norm="ortho", axis=1)[:, :N_CEPSTRA]
    cepstra = gaussian_filter1d(cepstra, 1.0, axis=0)
    middle = np.arange(n_frames) * STEPS_PER_FRAME + STEPS_PER_FRAME // 2
    steps = np.clip(middle[:, None] + CONTEXT, 0, len(cepstra) - 1)
    features = cepstra[steps].reshape(n_frames, -1)
    return (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)


def _log_mel(audio: np.ndarray) -> np.ndarray:
    """(S,) int16 -> (T, 26); row t is about t x 10 ms."""
    padded = np.concatenate([np.zeros(WINDOW // 2), audio / 32768.0, np.zeros(WINDOW)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2
    return np.log(power @ _mel_bank() + 1e-7)


@cache
def _mel_bank() -> np.ndarray:
    """(257, 26) triangles, even on the scale of O'Shaughnessy, "Speech Communication", 1987."""
    low, high = 2595 * np.log10(1 + np.array([LOWEST_HZ, HIGHEST_HZ]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, N_BANDS + 2) / 2595) - 1)
    hertz = np.arange(FFT // 2 + 1)[:, None] * ANALYSIS_RATE / FFT
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def without_drift(motion: np.ndarray) -> np.ndarray:
    """(F, K) motion -> as it is within about a second: jitter of single frames and slow drift removed."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(motion, 0.7, axis=0)
    return smooth - gaussian_filter1d(smooth, 12.0, axis=0, mode="nearest")


@cache
def _coefficients() -> np.ndarray:
    return np.array(json.loads(COEFFICIENTS.read_text())["coefficients"])


def fit() -> np.ndarray:
    """(91, 2) coefficients from the demo's recordings. Raises WeightsUnavailable where they are not here."""
    from fractions import Fraction

    from data_pipeline.demo.speech import FAIL_BETTER, TWO_CITIES, say

    sounds, mouths = [], []
    for excerpt in (*TWO_CITIES, FAIL_BETTER):
        for voice in (Fraction(8, 9), Fraction(1), Fraction(9, 8)):
            said = say([excerpt], voice)
            times_s = np.arange(int(said.duration_s * FPS)) / FPS
            motion = without_drift(np.column_stack(said.mouth(times_s)))
            mouths.append(motion / motion.std(axis=0))
            sounds.append(speech_features(said.sound_at(ANALYSIS_RATE), len(times_s)))
    x, y = np.concatenate(sounds), np.concatenate(mouths)
    return np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)


if __name__ == "__main__":
    columns = {"columns": ["opening", "width"], "coefficients": fit().round(6).tolist()}
    COEFFICIENTS.write_text(json.dumps(columns) + "\n")
