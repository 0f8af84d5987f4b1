from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline import weights
from data_pipeline.models.silero_vad import (
    FRAME,
    FRAME_S,
    MIN_SPEECH_S,
    WEIGHTS,
    SileroVad,
    pauses_of,
    segments_of,
)
from tests.data_pipeline.sounds import chord, noise, read_aloud, silence


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad(weights.fetch(WEIGHTS))


@pytest.mark.parametrize("sound", [silence(3), noise(3), chord(3)], ids=["silence", "noise", "chord"])
def test_what_is_not_speech_has_no_segments(vad: SileroVad, sound: np.ndarray) -> None:
    assert _segments(vad, sound) == []


def test_speech_between_silences_is_found_to_a_tenth_of_a_second(vad: SileroVad) -> None:
    speech = read_aloud(1.2, 2.7)  # "it was the best of times"
    segments = _segments(vad, np.concatenate([silence(1), speech, silence(1)]))
    assert segments[0][0] == pytest.approx(1.0, abs=0.15)
    assert segments[-1][1] == pytest.approx(2.5, abs=0.15)


def test_the_pauses_of_a_reader_are_not_speech(vad: SileroVad) -> None:
    segments = _segments(vad, read_aloud(0, 14))
    assert segments[0][0] > 0.9  # the reader waits for a second
    assert len(segments) >= 4
    assert 0.5 < sum(end_s - start_s for start_s, end_s in segments) / 14 < 0.95


@pytest.mark.parametrize("n_samples", [0, 1, FRAME - 1, FRAME, FRAME + 1])
def test_there_is_a_probability_for_each_frame_begun(vad: SileroVad, n_samples: int) -> None:
    probabilities = vad.probabilities(noise(1)[:n_samples])
    assert len(probabilities) == -(-n_samples // FRAME)


def test_the_same_sound_gives_the_same_bits_whatever_was_heard_before(vad: SileroVad) -> None:
    speech = read_aloud(2, 5)
    first = vad.probabilities(speech)
    vad.probabilities(noise(2))
    assert np.array_equal(first, vad.probabilities(speech))


def test_a_sound_longer_than_a_block_keeps_its_memory(
    vad: SileroVad, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = read_aloud(2, 5)
    whole = vad.probabilities(speech)
    monkeypatch.setattr("data_pipeline.models.silero_vad.BLOCK", 7)
    assert np.allclose(whole, vad.probabilities(speech), atol=1e-6)


def test_speech_lasts_through_doubt_and_through_short_pauses() -> None:
    probabilities = [0.0] * 3 + [0.9] * 5 + [0.4] * 5 + [0.1] * 2 + [0.9] * 5 + [0.0] * 5
    [(start_s, end_s)] = segments_of(np.array(probabilities), 25 * FRAME_S)
    assert (start_s, end_s) == (pytest.approx(3 * FRAME_S - 0.03), pytest.approx(20 * FRAME_S + 0.03))


def test_a_click_is_not_speech() -> None:
    assert segments_of(np.array([0.0] * 5 + [0.99] * 4 + [0.0] * 5), 14 * FRAME_S) == []


def test_a_syllable_too_short_to_be_speech_is_not_a_pause_either() -> None:
    probabilities = np.array([0.0] * 20 + [0.99] * 4 + [0.0] * 20)
    assert segments_of(probabilities, 44 * FRAME_S) == []
    pauses = pauses_of(probabilities, 44 * FRAME_S)
    assert pauses == [
        (pytest.approx(0.1), pytest.approx(20 * FRAME_S - 0.1)),
        (pytest.approx(24 * FRAME_S + 0.1), pytest.approx(44 * FRAME_S - 0.1)),
    ]


@given(arrays(np.float32, st.integers(0, 200), elements=st.floats(0, 1, width=32)))
def test_segments_are_ordered_apart_and_inside_the_sound(probabilities: np.ndarray) -> None:
    duration_s = len(probabilities) * FRAME_S
    segments = segments_of(probabilities, duration_s)
    edges = [edge for segment in segments for edge in segment]
    assert edges == sorted(edges)
    assert all(0 <= edge <= duration_s for edge in edges)
    assert all(end_s - start_s >= MIN_SPEECH_S for start_s, end_s in segments)
    assert all(later[0] > earlier[1] for earlier, later in pairwise(segments))
    pauses = pauses_of(probabilities, duration_s)
    assert not any(
        pause[0] < segment[1] and segment[0] < pause[1] for pause in pauses for segment in segments
    )


def _segments(vad: SileroVad, sound: np.ndarray) -> list[tuple[float, float]]:
    return segments_of(vad.probabilities(sound), len(sound) / 16_000)
