import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.models.transcript import Transcript
from data_pipeline.models.whisper import WEIGHTS, Whisper
from tests.data_pipeline.sounds import OPENING, OPENING_S, read_aloud, silence


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return Whisper(weights.fetch(WEIGHTS))


@pytest.fixture(scope="module")
def opening(whisper: Whisper) -> Transcript:
    return whisper.transcribe(read_aloud(0, OPENING_S))


def test_the_opening_of_the_book_is_written_down_as_it_is_read(opening: Transcript) -> None:
    assert _plain(opening.text) == _plain(OPENING)
    assert [_plain(word.text) for word in opening.words] == [[word] for word in _plain(OPENING)]
    assert opening.reliable


def test_words_are_in_order_apart_and_inside_the_sound(opening: Transcript) -> None:
    times_s = [time_s for word in opening.words for time_s in (word.start_s, word.end_s)]
    assert times_s == sorted(times_s)
    assert times_s[0] >= 0
    assert times_s[-1] <= OPENING_S
    assert all(0 <= word.probability <= 1 for word in opening.words)


def test_words_begin_when_they_are_heard(opening: Transcript) -> None:
    starts = {word.text.strip(".,"): word.start_s for word in reversed(opening.words)}
    assert starts["best"] == pytest.approx(1.7, abs=0.25)  # by forced alignment
    assert starts["worst"] == pytest.approx(3.4, abs=0.25)


def test_the_same_sound_gives_the_same_transcript(whisper: Whisper, opening: Transcript) -> None:
    whisper.transcribe(read_aloud(15, 17))
    assert whisper.transcribe(read_aloud(0, OPENING_S)) == opening


def test_the_number_of_blas_threads_changes_no_bit(whisper: Whisper) -> None:
    """Workers are given one thread, this process has as many as there are cores."""
    program = (
        "from data_pipeline import weights\n"
        "from data_pipeline.models.whisper import Whisper, WEIGHTS\n"
        "from tests.data_pipeline.sounds import read_aloud\n"
        "print(repr(Whisper(weights.fetch(WEIGHTS)).transcribe(read_aloud(2, 5))))"
    )
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    worker = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        env=one_thread,
        capture_output=True,
        text=True,
        check=True,
    )
    assert worker.stdout.strip() == repr(whisper.transcribe(read_aloud(2, 5)))


def test_an_empty_sound_has_no_words(whisper: Whisper) -> None:
    transcript = whisper.transcribe(silence(0))
    assert transcript.words == []
    assert not transcript.reliable


def test_one_sample_does_not_break_it(whisper: Whisper) -> None:
    transcript = whisper.transcribe(np.ones(1, np.int16))
    assert all(word.end_s <= 1 / 16_000 for word in transcript.words)


@pytest.mark.parametrize(("logprob", "compression"), [(-1.01, 1.0), (-0.2, 2.5), (None, 0.0)])
def test_an_unsure_or_repetitive_or_empty_transcript_is_not_reliable(
    opening: Transcript, logprob: float | None, compression: float
) -> None:
    assert not Transcript(opening.text, opening.words, logprob, compression).reliable


def _plain(text: str) -> list[str]:
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ").split()
