"""Whisper tiny.en: what was said in English, with the time of each word.

    audio (S,) int16 -> log-mel windows of 30 s -> encoder -> beam search at temperature 0
    -> text, words aligned by cross-attention, and how sure the model was

Model: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (MIT), in
int8 by CTranslate2. It hears English in everything: speech in another language, and songs, come out
as English that nobody said. `Transcript.reliable` is the authors' own test for that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE, Word

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment

WEIGHTS = "whisper-tiny-en"
BEAM_SIZE = 5

# Radford et al., section 4.5: a decoding beyond these has failed.
MIN_LOGPROB = -1.0
MAX_COMPRESSION = 2.4


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the model wrote for one sound."""

    text: str
    words: list[Word]
    """In order, apart, inside the sound."""
    logprob: float | None
    """Mean log probability of a token; None where nothing was written."""
    compression: float
    """Size of the text over its size under zlib, of the worst passage: high where it repeats itself."""

    @property
    def reliable(self) -> bool:
        """Whether there are words that the authors would accept."""
        if self.logprob is None or not self.words:
            return False
        return self.logprob >= MIN_LOGPROB and self.compression <= MAX_COMPRESSION


class Whisper:
    """`transcribe` a sound, on one thread."""

    def __init__(self, folder: Path) -> None:
        from faster_whisper import WhisperModel
        from threadpoolctl import ThreadpoolController

        self._model = WhisperModel(
            str(folder),
            device="cpu",
            compute_type="int8",
            cpu_threads=1,
            num_workers=1,
            local_files_only=True,
        )
        self._threads = ThreadpoolController()

    def transcribe(self, audio: np.ndarray) -> Transcript:
        """(S,) int16 mono at 16 kHz -> its transcript; an empty sound has an empty one."""
        if len(audio) == 0:
            return Transcript("", [], None, 0.0)
        # The log-mel front end is a product of numpy matrices, whose last bits depend on BLAS's threads.
        with self._threads.limit(limits=1, user_api="blas"):
            segments = self._decode(audio)
        return Transcript(
            text=" ".join(segment.text.strip() for segment in segments),
            words=_words(segments, len(audio) / ANALYSIS_RATE),
            logprob=_mean_logprob(segments),
            compression=max((segment.compression_ratio for segment in segments), default=0.0),
        )

    def _decode(self, audio: np.ndarray) -> list["Segment"]:
        stream, _ = self._model.transcribe(
            audio.astype(np.float32) / 32768,
            language="en",
            beam_size=BEAM_SIZE,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        return list(stream)  # decoded here, as it is read


def _mean_logprob(segments: list["Segment"]) -> float | None:
    n_tokens = sum(len(segment.tokens) for segment in segments)
    if n_tokens == 0:
        return None
    return sum(segment.avg_logprob * len(segment.tokens) for segment in segments) / n_tokens


def _words(segments: Iterable["Segment"], duration_s: float) -> list[Word]:
    """The words; times that overlap, or that run into the model's padding to 30 s, are cut."""
    words: list[Word] = []
    previous_end_s = 0.0
    for segment in segments:
        for word in segment.words or ():
            start_s = min(max(float(word.start), previous_end_s), duration_s)
            end_s = min(max(float(word.end), start_s), duration_s)
            words.append(Word(word.word.strip(), round(start_s, 3), round(end_s, 3), float(word.probability)))
            previous_end_s = end_s
    return words
