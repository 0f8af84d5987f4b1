from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.models.alignment import (
    DIGITS,
    AlignedWord,
    Aligner,
    guess_pronunciation,
    phones_of,
    spoken_words,
)
from tests.data_pipeline.sounds import OPENING, OPENING_S, noise, read_aloud, silence


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner()


@pytest.fixture(scope="module")
def opening(aligner: Aligner) -> list[AlignedWord]:
    return aligner.align(read_aloud(0, OPENING_S), OPENING)


def test_every_word_of_the_text_is_there_in_order(opening: list[AlignedWord]) -> None:
    assert [word.text for word in opening] == spoken_words(OPENING)
    assert not any(word.guessed for word in opening)


def test_a_word_has_the_phones_of_its_pronunciation(opening: list[AlignedWord]) -> None:
    phones = {word.text: [phone.label for phone in word.phones] for word in opening}
    assert phones["best"] == ["B", "EH", "S", "T"]
    assert phones["wisdom"] == ["W", "IH", "Z", "D", "AH", "M"]


def test_phones_are_in_order_apart_and_inside_the_sound(opening: list[AlignedWord]) -> None:
    times_s = [time_s for phone in phones_of(opening) for time_s in (phone.start_s, phone.end_s)]
    assert times_s == sorted(times_s)
    assert times_s[0] >= 0
    assert times_s[-1] <= OPENING_S


def test_the_phones_of_a_word_fill_it(opening: list[AlignedWord]) -> None:
    for word in opening:
        assert (word.phones[0].start_s, word.phones[-1].end_s) == (word.start_s, word.end_s)
        joints = pairwise(word.phones)
        assert all(phone.end_s == following.start_s for phone, following in joints)


def test_vowels_are_louder_than_what_lies_between_the_words(opening: list[AlignedWord]) -> None:
    audio = read_aloud(0, OPENING_S)
    vowels = [phone for phone in phones_of(opening) if phone.label[0] in "AEIOU"]
    pauses = [(0.0, opening[0].start_s)]
    pauses += [
        (word.end_s, following.start_s)
        for word, following in pairwise(opening)
        if following.start_s > word.end_s
    ]
    loudness = np.median([_power(audio, vowel.start_s, vowel.end_s) for vowel in vowels])
    assert loudness > 100 * np.median([_power(audio, *pause) for pause in pauses])


def test_silence_before_the_sound_moves_every_word_by_as_much(aligner: Aligner) -> None:
    speech, text = read_aloud(1, 4.9), "It was the best of times, it was the worst of times."
    early = aligner.align(speech, text)
    late = aligner.align(np.concatenate([read_aloud(0, 0.5), speech]), text)
    shifts_s = [moved.start_s - word.start_s for word, moved in zip(early, late, strict=True)]
    assert shifts_s == pytest.approx([0.5] * len(shifts_s), abs=0.05)


def test_what_was_heard_before_does_not_shift_what_is_heard_now(aligner: Aligner) -> None:
    speech, text = read_aloud(1, 4.9), "It was the best of times, it was the worst of times."
    alone = Aligner().align(speech, text)
    aligner.align(read_aloud(0, OPENING_S), OPENING)
    assert aligner.align(speech, text) == alone


def test_a_word_that_no_dictionary_has_is_read_by_its_letters(aligner: Aligner) -> None:
    words = aligner.align(read_aloud(1, 2.9), "It was the bexst of tymes")
    guessed = {word.text: [phone.label for phone in word.phones] for word in words if word.guessed}
    assert guessed == {"bexst": ["B", "EH", "K", "S", "S", "T"], "tymes": ["T", "IY", "M", "EH", "S"]}


@pytest.mark.parametrize(
    ("audio", "text", "message"),
    [
        (silence(2), "...", "no words"),
        (silence(2), "二十", "no words"),
        (silence(0.05), "hello", "cannot align 800 samples"),
        (silence(0), "hello", "cannot align 0 samples"),
        (noise(1), "a text that is far too long for one second " * 3, "does not fit"),
    ],
)
def test_what_cannot_be_aligned_is_refused_in_words(
    aligner: Aligner, audio: np.ndarray, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        aligner.align(audio, text)


def test_after_a_refusal_the_next_sound_is_aligned_as_ever(aligner: Aligner) -> None:
    speech, text = read_aloud(1, 2.9), "It was the best of times"
    before = aligner.align(speech, text)
    with pytest.raises(ValueError, match="does not fit"):
        aligner.align(noise(1), "a text that is far too long for one second " * 3)
    assert aligner.align(speech, text) == before


def test_a_text_is_spelled_as_a_dictionary_would() -> None:
    assert spoken_words("Café “C2” — don’t re-do it!") == ["cafe", "c", "two", "don't", "re", "do", "it"]


@given(st.text(max_size=60))
def test_any_text_comes_down_to_words_that_can_be_pronounced(text: str) -> None:
    for word in spoken_words(text):
        assert word in DIGITS or guess_pronunciation(word)


def _power(audio: np.ndarray, start_s: float, end_s: float) -> float:
    return float(np.mean(np.square(audio[round(start_s * 16_000) : round(end_s * 16_000)], dtype=np.float64)))
