"""WhisperX: transcripts in many languages, with word times by forced alignment.

    transcribe(audio) -> child process with WhisperX's own libraries (whisperx_child.py) -> Transcript

Its package asks for torch 2.8 and an old huggingface-hub, which do not go with ours: it runs on the
interpreter of an environment of its own (whisperx_environment.py). A child that dies or hangs costs the
sound in hand; the next sound has a new one.
"""

import os
from functools import partial

import numpy as np

from data_pipeline import weights
from data_pipeline.config import LimitsConfig, WhisperXConfig
from data_pipeline.isolation import ChildCrashed, ChildTimeout, Sandbox
from data_pipeline.models import whisperx_child, whisperx_environment
from data_pipeline.models.transcript import Transcript

SENTENCES = "nltk-punkt-tab"
LOAD_TIMEOUT_S = 1800.0  # the first start may download several GB


class WhisperX:
    """`transcribe` a sound, on one thread or a GPU. Not for use by two threads at a time."""

    def __init__(
        self, config: WhisperXConfig, timeout_s: float = LimitsConfig().transcribe_timeout_s
    ) -> None:
        """Starts the child and loads the models; `timeout_s` is what one sound may take.

        Raises EnvironmentMissing, WeightsUnavailable, and RuntimeError where a model cannot be loaded."""
        self._settings = whisperx_child.Settings(
            model=os.path.expanduser(config.model),
            align_models=tuple(
                (language, os.path.expanduser(name)) for language, name in config.align_models.items()
            ),
            device=config.device,
            compute_type=config.compute_type,
            nltk_data=str(weights.fetch(SENTENCES)),
        )
        self._sandbox = Sandbox(
            address_space_bytes=None,  # CUDA reserves more than any limit
            timeout_s=timeout_s,
            stall_timeout_s=timeout_s,
            python=whisperx_environment.python(),
            on_start=partial(whisperx_child.load, self._settings),
            start_timeout_s=LOAD_TIMEOUT_S,
        )
        try:
            self._sandbox.start()
        except Exception as error:
            raise RuntimeError(f"WhisperX could not load {self._settings.model!r}: {error}") from error

    def transcribe(self, audio: np.ndarray) -> Transcript:
        """(S,) int16 mono at 16 kHz -> its transcript; an empty sound has an empty one.

        Raises RuntimeError where the child fails, dies, or takes longer than `timeout_s`."""
        try:
            return self._sandbox.call(whisperx_child.transcribe, self._settings, audio)
        except (ChildCrashed, ChildTimeout, MemoryError, OSError) as error:
            # Not the input's fault, as these are where a decoder raises them.
            raise RuntimeError(f"WhisperX: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the child."""
        self._sandbox.close()
