import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.models.sound_events import MIN_SAMPLES, WEIGHTS, SoundEvents
from tests.data_pipeline.sounds import chord, melody, noise, over, read_aloud, silence


@pytest.fixture(scope="module")
def events() -> SoundEvents:
    return SoundEvents(weights.fetch(WEIGHTS))


def test_a_reader_is_speech_and_nothing_else(events: SoundEvents) -> None:
    shares = events.shares(read_aloud(1, 11))
    assert shares.speech > 0.6
    assert shares.singing < 0.05
    assert shares.music < 0.05


def test_speech_over_music_is_both(events: SoundEvents) -> None:
    shares = events.shares(over(read_aloud(1, 9), melody(8), snr_db=10))
    assert shares.speech > 0.5
    assert shares.music > 0.5


@pytest.mark.parametrize("sound", [silence(3), noise(3), chord(3)], ids=["silence", "noise", "chord"])
def test_what_nobody_says_is_not_speech(events: SoundEvents, sound: np.ndarray) -> None:
    shares = events.shares(sound)
    assert shares.speech == 0
    assert shares.singing == 0


def test_there_is_a_probability_of_each_event_every_ten_milliseconds(events: SoundEvents) -> None:
    probabilities = events.probabilities(noise(2))
    assert probabilities.shape == (198, 3)  # the last windows of 25 ms must fit
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


def test_the_shortest_sound_is_measured_and_a_shorter_one_refused(events: SoundEvents) -> None:
    assert len(events.probabilities(silence(1)[:MIN_SAMPLES])) > 0
    with pytest.raises(ValueError, match="got 1599"):
        events.probabilities(silence(1)[: MIN_SAMPLES - 1])


def test_the_same_sound_gives_the_same_bits(events: SoundEvents) -> None:
    speech = read_aloud(2, 5)
    assert np.array_equal(events.probabilities(speech), events.probabilities(speech))
