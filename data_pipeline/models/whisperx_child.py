"""WhisperX, as it runs in a child process with the libraries of its own environment.

    (S,) int16 -> language of the first 30 s -> speech (pyannote, in WhisperX's package) in chunks of at
    most 30 s -> beam search at temperature 0 (CTranslate2) -> wav2vec2's character probabilities
    -> the likeliest way of the text through them: words with times

Bain et al., "WhisperX: Time-Accurate Speech Transcription of Long-Form Audio", 2023. The environment
has none of our libraries but numpy: import nothing here that needs more.
"""

import logging
import os
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE, Word
from data_pipeline.models.transcript import EMPTY, Transcript, in_order

DEFAULT = "default"  # as the name of an alignment model: the one that WhisperX has for the language
BATCH_SIZE = 8  # chunks of 30 s decoded at a time; most clips are one
MIN_LANGUAGE_PROBABILITY = 0.5  # below it faster-whisper does not call a language detected


@dataclass(frozen=True, slots=True)
class Settings:
    """Which models; all of it is the user's but `nltk_data`."""

    model: str
    """A folder of CTranslate2 files, or a name that faster-whisper downloads."""
    align_models: tuple[tuple[str, str], ...]
    """(language, folder | name on the hub | DEFAULT)."""
    device: str
    compute_type: str
    nltk_data: str
    """Folder of NLTK's sentence splitters."""


def load(settings: Settings) -> None:
    """Load the models, once in a process. Raises what WhisperX raises where one cannot be had."""
    _loaded(settings)


def transcribe(settings: Settings, audio: np.ndarray) -> Transcript:
    """(S,) int16 mono at 16 kHz -> its transcript."""
    return _loaded(settings).transcribe(audio)


@cache
def _loaded(settings: Settings) -> "_Models":
    return _Models(settings)


class _Models:
    def __init__(self, settings: Settings) -> None:
        _be_quiet()
        import nltk
        import torch
        import whisperx
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)  # the last bits of sums depend on the number of threads
        torch.set_num_threads(1)
        nltk.data.path.insert(0, settings.nltk_data)
        self._device = settings.device
        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline = whisperx.load_model(
            settings.model, self._device, compute_type=settings.compute_type, threads=1
        )
        self._multilingual = self._pipeline.model.model.is_multilingual
        self._aligners = {
            language: _load_aligner(language, name, self._device) for language, name in settings.align_models
        }

    def transcribe(self, audio: np.ndarray) -> Transcript:
        if len(audio) == 0:
            return EMPTY
        sound = audio.astype(np.float32) / 32768
        language, probability = self._language(sound)
        chunks = self._pipeline.transcribe(sound, batch_size=BATCH_SIZE, language=language)["segments"]
        return Transcript(
            text=" ".join(chunk["text"].strip() for chunk in chunks).strip(),
            words=in_order(self._words(chunks, sound, language), len(sound) / ANALYSIS_RATE),
            logprob=_mean_logprob(chunks),
            compression=max((_compression(chunk["text"]) for chunk in chunks), default=0.0),
            language=language
            if probability is not None and probability >= MIN_LANGUAGE_PROBABILITY
            else None,
            language_probability=probability,
        )

    def _language(self, sound: np.ndarray) -> tuple[str, float | None]:
        """The language to write in, and the model's own probability of it, if it knows more than English."""
        if not self._multilingual:
            return "en", None
        language, probability, _ = self._pipeline.model.detect_language(sound)
        return language, float(probability)

    def _words(self, chunks: list[dict[str, Any]], sound: np.ndarray, language: str) -> list[Word]:
        import whisperx

        if language not in self._aligners:
            return []
        model, metadata = self._aligners[language]
        aligned = whisperx.align(chunks, model, metadata, sound, self._device)["word_segments"]
        return [
            Word(word["word"], float(word["start"]), float(word["end"]), float(word.get("score", 0.0)))
            for word in aligned
            if "start" in word and "end" in word  # in a sentence without any sign that the aligner knows
        ]


def _load_aligner(language: str, name: str, device: str) -> tuple[Any, dict[str, Any]]:
    """An alignment model and what WhisperX wants to know of it."""
    import whisperx

    try:
        return whisperx.load_align_model(language, device, None if name == DEFAULT else name)
    except Exception as error:  # its own classes, the hub's, urllib's
        raise RuntimeError(
            f"speech.whisperx.align_models.{language}={name}: {type(error).__name__}: {error}; "
            "where there is no network give the folder of a wav2vec2 model, or align_models={}"
        ) from error


def _be_quiet() -> None:
    """The libraries talk as they load; and pyannote reports its use to its makers, unless told not to."""
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)  # what is an error is raised as well


def _mean_logprob(chunks: list[dict[str, Any]]) -> float | None:
    """By duration: WhisperX does not say of how many tokens a chunk is."""
    durations_s = [max(chunk["end"] - chunk["start"], 1e-3) for chunk in chunks]
    if not chunks:
        return None
    return float(np.average([chunk["avg_logprob"] for chunk in chunks], weights=durations_s))


def _compression(text: str) -> float:
    from faster_whisper.transcribe import get_compression_ratio

    return float(get_compression_ratio(text))
