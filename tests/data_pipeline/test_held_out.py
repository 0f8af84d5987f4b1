"""The demo's held-out takes: what they show is known, and nobody is trained on them."""

import numpy as np
import pytest

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.demo.held_out import SIZE_PX, make_held_out
from data_pipeline.demo.speech import ENDGAME, FAIL_BETTER, TWO_CITIES
from data_pipeline.media import probe, read_audio, read_frames
from evaluation.metrics.lip_correlation import MouthReader, correlation


def test_a_take_opens_the_mouth_as_its_phones_ask(tmp_path) -> None:
    (take,) = make_held_out(tmp_path, only=["4-astronaut"])
    frames = np.stack([frame.rgb() for frame in read_frames(take.video)])
    assert frames.shape == (len(take.opening), SIZE_PX, SIZE_PX, 3)
    assert 0 <= take.opening.min() < take.opening.max() <= 1
    mouth = MouthReader().read(frames, frames[0])
    assert mouth.seen.all()
    assert correlation(mouth, take.opening, 0) > 0.7
    found = probe(take.video)
    assert found.video is not None
    assert found.video.fps == 25
    assert len(read_audio(take.video)) == pytest.approx(
        len(frames) * ANALYSIS_RATE / 25, abs=ANALYSIS_RATE / 25
    )


def test_what_is_said_is_in_no_source() -> None:
    sources = {(excerpt.recordings, excerpt.file) for excerpt in (*TWO_CITIES, FAIL_BETTER)}
    assert sources.isdisjoint((excerpt.recordings, excerpt.file) for excerpt in ENDGAME)


@pytest.mark.slow
def test_every_excerpt_is_said_by_two_people_and_everybody_says_something(tmp_path) -> None:
    takes = make_held_out(tmp_path)
    assert len(takes) == 2 * len(ENDGAME)
    assert len({take.person for take in takes}) == 5
    by_words = {take.words: {other.person for other in takes if other.words == take.words} for take in takes}
    assert [len(people) for people in by_words.values()] == [2] * len(ENDGAME)
