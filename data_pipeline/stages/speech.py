"""Speech: is somebody talking in the clip, over what, how well, and in which words?

    audio -> level -> where there is speech (Silero VAD) -> shares of speech, singing, music (FireRedVAD)
    -> ratio of speech to noise -> quality as listeners score it (DNSMOS) -> words (Whisper)

Cheap to costly: a clip in which nobody speaks is neither scored nor transcribed. The backends differ in
who transcribes. `embedded`: Whisper tiny.en, in this process; `language` stays None, for it knows English
only, and its doubt names no other language. `whisperx`: WhisperX with the user's models, in a child
process; it names the language unless it is in doubt. What a transcriber doubts itself (songs, languages
that it does not know) leaves `asr_logprob` and no transcript: wrong words are worse than none.
"""

from pathlib import Path

import numpy as np

from data_pipeline import sound_level, weights
from data_pipeline.clip import ANALYSIS_RATE, Clip
from data_pipeline.config import LimitsConfig, SpeechConfig
from data_pipeline.models import dnsmos, silero_vad, sound_events, whisper
from data_pipeline.models.transcript import Transcriber, Transcript

MIN_SAMPLES = ANALYSIS_RATE // 10  # less than 0.1 s has a level, and no more


class Speech:
    """Measures a clip's sound."""

    def __init__(
        self, config: SpeechConfig, transcribe_timeout_s: float = LimitsConfig().transcribe_timeout_s
    ) -> None:
        self.config = config
        self._timeout_s = transcribe_timeout_s
        self.backend = "+".join(
            [silero_vad.WEIGHTS, sound_events.WEIGHTS]
            + [dnsmos.WEIGHTS] * config.speech_quality
            + [_transcriber_name(config)] * config.transcribe
        )

    def setup(self) -> None:
        """Load the models. Raises weights.WeightsUnavailable, and what a chosen WhisperX raises."""
        self._vad = silero_vad.SileroVad(weights.fetch(silero_vad.WEIGHTS))
        self._events = sound_events.SoundEvents(weights.fetch(sound_events.WEIGHTS))
        self._dnsmos = dnsmos.Dnsmos(weights.fetch(dnsmos.WEIGHTS)) if self.config.speech_quality else None
        self._transcriber = self._new_transcriber() if self.config.transcribe else None

    def _new_transcriber(self) -> Transcriber:
        if self.config.backend == "whisperx":
            from data_pipeline.models.whisperx import WhisperX

            return WhisperX(self.config.whisperx, self._timeout_s)
        return whisper.Whisper(weights.fetch(whisper.WEIGHTS))

    def __call__(self, clip: Clip) -> Clip:
        """Adds the fields under "speech"; a clip without sound comes back as it was."""
        if clip.audio is None:
            return clip
        clip.speech_backend = self.backend
        clip.loudness_dbfs = sound_level.loudness_dbfs(clip.audio)
        if len(clip.audio) < MIN_SAMPLES:
            return clip
        self._measure(clip, clip.audio)
        return clip

    def _measure(self, clip: Clip, audio: np.ndarray) -> None:
        duration_s = len(audio) / ANALYSIS_RATE
        voice = self._vad.probabilities(audio)
        speech = silero_vad.segments_of(voice, duration_s)
        events = self._events.shares(audio)
        clip.speech_ratio = sum(end_s - start_s for start_s, end_s in speech) / duration_s
        clip.singing_ratio, clip.music_ratio = events.singing, events.music
        clip.snr_db = sound_level.snr_db(audio, speech, silero_vad.pauses_of(voice, duration_s))
        # Each detector hears some speech where there is none (songs, murmurs): act where they agree.
        if not speech or events.speech == 0:
            return
        if self._dnsmos is not None:
            clip.speech_quality = self._dnsmos.score(audio).overall
        if self._transcriber is not None:
            _add_transcript(clip, self._transcriber.transcribe(audio))


def _transcriber_name(config: SpeechConfig) -> str:
    if config.backend != "whisperx":
        return whisper.WEIGHTS
    # Where a folder lies is no fact of a clip: the same files elsewhere must give the same rows.
    return f"whisperx:{Path(config.whisperx.model).name}"


def _add_transcript(clip: Clip, transcript: Transcript) -> None:
    clip.language, clip.language_probability = transcript.language, transcript.language_probability
    clip.asr_logprob = transcript.logprob
    if not transcript.reliable:
        return
    clip.transcript = transcript.text
    clip.words = transcript.words
    clip.n_words = len(transcript.words) or None  # a transcript without word times does not count them
