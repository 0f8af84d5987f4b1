"""Transcript: what a transcriber wrote for one sound, and whether the authors of Whisper would accept it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_pipeline.clip import Word

# Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 4.5: a
# decoding beyond these has failed.
MIN_LOGPROB = -1.0
MAX_COMPRESSION = 2.4


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the model wrote for one sound."""

    text: str
    words: list[Word]
    """In order, apart, inside the sound; empty where their times were not measured."""
    logprob: float | None
    """Mean log probability of a token; None where nothing was written."""
    compression: float
    """Size of the text over its size under zlib, of the worst passage: high where it repeats itself."""
    language: str | None = None
    """ISO 639-1; None where the model knows but one, or is in doubt."""
    language_probability: float | None = None
    """Of the likeliest language, also where it is in doubt."""

    @property
    def reliable(self) -> bool:
        """Whether there is a text that the authors would accept."""
        if self.logprob is None or not self.text:
            return False
        return self.logprob >= MIN_LOGPROB and self.compression <= MAX_COMPRESSION


EMPTY = Transcript("", [], None, 0.0)


class Transcriber(Protocol):
    """One backend's ears."""

    def transcribe(self, audio: np.ndarray) -> Transcript:
        """(S,) int16 mono at 16 kHz -> its transcript; an empty sound has an empty one."""


def in_order(words: Iterable[Word], duration_s: float) -> list[Word]:
    """The words with times that overlap, or that run past the sound's end, cut."""
    cut: list[Word] = []
    previous_end_s = 0.0
    for word in words:
        start_s = min(max(word.start_s, previous_end_s), duration_s)
        end_s = min(max(word.end_s, start_s), duration_s)
        cut.append(Word(word.text.strip(), round(start_s, 3), round(end_s, 3), word.probability))
        previous_end_s = end_s
    return cut
