"""Whisper tiny.en: what was said in English, with the time of each word.

    audio (S,) int16 -> log-mel windows of 30 s -> encoder -> beam search at temperature 0
    -> text, words aligned by cross-attention, and how sure the model was

Model: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (MIT), in
int8 by CTranslate2. It hears English in everything: speech in another language, and songs, come out
as English that nobody said. `Transcript.reliable` is the authors' own test for that.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE, Word
from data_pipeline.models.transcript import EMPTY, Transcript, in_order

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment

WEIGHTS = "whisper-tiny-en"
BEAM_SIZE = 5


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
            return EMPTY
        # The log-mel front end is a product of numpy matrices, whose last bits depend on BLAS's threads.
        with self._threads.limit(limits=1, user_api="blas"):
            segments = self._decode(audio)
        return Transcript(
            text=" ".join(segment.text.strip() for segment in segments),
            words=in_order(_words(segments), len(audio) / ANALYSIS_RATE),
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


def _words(segments: list["Segment"]) -> list[Word]:
    return [
        Word(word.word, float(word.start), float(word.end), float(word.probability))
        for segment in segments
        for word in segment.words or ()
    ]
