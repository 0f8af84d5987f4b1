"""DNSMOS P.835: how good speech sounds, as listeners would say, from 1 (bad) to 5 (excellent).

    audio (S,) int16 -> the fewest windows of 9.01 s that cover it -> the model's raw scores
    -> mapped to the scale of the listening tests -> mean over windows

Model: Reddy et al., "DNSMOS P.835", ICASSP 2022; https://github.com/microsoft/DNS-Challenge (MIT).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.models import onnx

WEIGHTS = "dnsmos-p835"
FILE = "sig_bak_ovr.onnx"
WINDOW = 144_160  # samples: 9.01 s

# From the raw scores to the listening tests' scale: highest power first (authors' dnsmos_local.py).
SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
OVERALL = (-0.06766283, 1.11546468, 0.04602535)


@dataclass(frozen=True, slots=True)
class SpeechQuality:
    """Mean opinion scores, about 1 to 5."""

    signal: float
    background: float
    overall: float


class Dnsmos:
    """`score` of a sound."""

    def __init__(self, folder: Path) -> None:
        self._session = onnx.load(folder / FILE)

    def score(self, audio: np.ndarray) -> SpeechQuality:
        """(S,) int16 mono at 16 kHz, S >= 1; a sound shorter than 9.01 s is repeated, as its authors do.

        Raises ValueError for an empty sound.
        """
        if len(audio) == 0:
            raise ValueError("an empty sound has no quality: check its length first")
        samples = np.resize(audio, max(WINDOW, len(audio))).astype(np.float32) / 32768
        raw = np.array(
            [self._session.run(None, {"input_1": window[None]})[0][0] for window in _windows(samples)]
        )
        signal, background, overall = (
            float(np.polyval(curve, raw[:, column]).mean())
            for column, curve in enumerate((SIGNAL, BACKGROUND, OVERALL))
        )
        return SpeechQuality(signal, background, overall)


def _windows(samples: np.ndarray) -> list[np.ndarray]:
    # The authors step by one second; windows that touch give the same mean for a ninth of the work.
    n_windows = -(-len(samples) // WINDOW)
    starts = np.linspace(0, len(samples) - WINDOW, n_windows).round().astype(int)
    return [samples[start : start + WINDOW] for start in starts]
