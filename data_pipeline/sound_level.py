"""How loud a sound is, and how far its speech stands above everything else in it.

Levels in dB; sounds are (S,) int16, mono, at ANALYSIS_RATE.
"""

from collections.abc import Sequence

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE

SILENCE_DBFS = -120.0
"""Level of digital silence: a floor below the quietest 16-bit sound."""

SNR_RANGE_DB = (-20.0, 60.0)
"""Outside of it a ratio says no more than the bound does: no speech above the noise, or no noise."""

FRAME = ANALYSIS_RATE // 100
MIN_PAUSES_S = 0.2  # fewer do not tell the noise's level

# Kim & Stern, "Robust Signal-to-Noise Ratio Estimation Based on Waveform Amplitude Distribution
# Analysis" (WADA), Interspeech 2008, eq. 5: ln E|z| - E ln|z| for z = speech + noise, with the
# amplitudes of speech drawn from a gamma distribution of shape 0.4 and noise from a normal one.
# Computed by simulation; the tests repeat it.
WADA_SNR_DB = np.arange(-20.0, 61.0, 5.0)
WADA_STATISTIC = (
    0.4093, 0.4097, 0.4121, 0.4238, 0.4619, 0.5435, 0.6673, 0.8124, 0.9562,
    1.0852, 1.1948, 1.2850, 1.3579, 1.4167, 1.4636, 1.5010, 1.5307,
)  # fmt: skip


def loudness_dbfs(audio: np.ndarray) -> float:
    """Root mean square of the whole sound against full scale (a full-scale square wave is 0 dB)."""
    if len(audio) == 0:
        return SILENCE_DBFS
    power = np.mean(np.square(audio, dtype=np.float64)) / 32768**2
    return max(SILENCE_DBFS, float(10 * np.log10(power))) if power > 0 else SILENCE_DBFS


def snr_db(
    audio: np.ndarray, speech: Sequence[tuple[float, float]], pauses: Sequence[tuple[float, float]]
) -> float | None:
    """Power of the speech over the power of all else, in dB within SNR_RANGE_DB; None without speech.

    `speech` and `pauses` are [(start_s, end_s)]. Where there are pauses, both are measured; a sound
    that is all speech is judged by the distribution of its amplitudes (WADA), which reads compressed
    voices up to 7 dB low. Music and other voices count as noise.
    """
    power = _frame_power(audio)
    talking = _inside(len(power), speech)
    pausing = _inside(len(power), pauses)
    if not talking.any():
        return None
    if pausing.sum() * FRAME < MIN_PAUSES_S * ANALYSIS_RATE:
        estimate = _wada_db(audio)
    else:
        estimate = _ratio_db(power[talking].mean(), power[pausing].mean())
    return float(np.clip(estimate, *SNR_RANGE_DB))


def _ratio_db(speech_and_noise: float, noise: float) -> float:
    if speech_and_noise <= noise:
        return SNR_RANGE_DB[0]
    return 10 * np.log10((speech_and_noise - noise) / max(noise, 1e-9))


def _wada_db(audio: np.ndarray) -> float:
    # Half a step of quantisation: a sample of 0 has no logarithm.
    amplitude = np.maximum(np.abs(audio.astype(np.float64)), 0.5)
    statistic = np.log(amplitude.mean()) - np.log(amplitude).mean()
    return float(np.interp(statistic, WADA_STATISTIC, WADA_SNR_DB))


def _frame_power(audio: np.ndarray) -> np.ndarray:
    whole = len(audio) // FRAME * FRAME
    return np.square(audio[:whole], dtype=np.float64).reshape(-1, FRAME).mean(axis=1)


def _inside(n_frames: int, spans: Sequence[tuple[float, float]]) -> np.ndarray:
    """(n_frames,) bool: frames whose middle lies in one of the spans."""
    times_s = (np.arange(n_frames) + 0.5) * FRAME / ANALYSIS_RATE
    mask = np.zeros(n_frames, bool)
    for start_s, end_s in spans:
        mask |= (times_s >= start_s) & (times_s < end_s)
    return mask
