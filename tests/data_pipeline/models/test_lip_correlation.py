"""Lips against sound: the offset, what chance gives, and that the head may turn meanwhile."""

from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.demo.speech import FAIL_BETTER, TWO_CITIES, Utterance, say
from data_pipeline.models import speech_to_lips
from data_pipeline.models.face_mesh import CHIN, FOREHEAD, N_POINTS
from data_pipeline.models.lip_correlation import MIN_FRAMES, LipCorrelation, lags_of, score_lips
from data_pipeline.models.lip_shape import (
    INNER_LOWER,
    OUTER_LOWER,
    STILL,
    LipShape,
    LipsNotSeen,
    lips_of,
)
from tests.data_pipeline.sync_media import delayed, demo_clips, real_clips, scored

SHIFTS_MS = (-400, -160, 0, 160, 400)


@cache
def utterance() -> Utterance:
    """7.4 s of read English."""
    return say(TWO_CITIES[:1], Fraction(9, 8))


@cache
def lips() -> np.ndarray:
    """(185, 4): a mouth that says the utterance, seen with some noise."""
    times_s = np.arange(185) / 25
    opening, width = utterance().mouth(times_s)
    exact = np.column_stack([opening, opening, 0.3 * width, 0.7 * opening])
    return exact + np.random.default_rng(0).normal(0, 0.1, exact.shape)


@cache
def other_speech() -> tuple[np.ndarray, ...]:
    sound = say([FAIL_BETTER]).sound_at(ANALYSIS_RATE)
    return (sound, np.roll(sound, len(sound) // 2))


@pytest.mark.parametrize("late_ms", SHIFTS_MS)
def test_the_offset_says_how_early_the_sound_is(late_ms) -> None:
    heard = delayed(utterance().sound_at(ANALYSIS_RATE), late_ms)
    score = score_lips(lips(), heard, other_speech())
    assert score.offset_frames == pytest.approx(-late_ms / 40, abs=1)
    assert score.confidence > 3
    assert score.margin is not None
    assert score.margin > 0.5


def test_other_speech_fits_the_lips_at_no_offset() -> None:
    score = score_lips(lips(), other_speech()[0], [utterance().sound_at(ANALYSIS_RATE)])
    assert score.confidence < 3
    assert score.margin is not None
    assert score.margin < 0
    assert score.distance is not None
    assert score.distance > 0.6


def test_lips_that_do_not_move_have_nothing_in_common_with_a_sound() -> None:
    score = score_lips(np.ones((100, 4)), other_speech()[0][: 4 * ANALYSIS_RATE], [])
    assert score.distance == pytest.approx(1, abs=1e-6)
    assert score.margin is None


def test_silence_has_nothing_in_common_with_lips() -> None:
    score = score_lips(lips()[:75], np.zeros(3 * ANALYSIS_RATE, np.int16), [])
    assert score.distance is not None
    assert score.distance > 0.9


def test_the_same_clip_has_the_same_score() -> None:
    heard = utterance().sound_at(ANALYSIS_RATE)
    assert score_lips(lips(), heard, other_speech()) == score_lips(lips(), heard, other_speech())


def test_less_than_a_second_is_refused() -> None:
    faces = np.zeros((MIN_FRAMES - 1, 224, 224, 3), np.uint8)
    with pytest.raises(ValueError, match="24 frames are too short"):
        LipCorrelation(np.zeros(ANALYSIS_RATE, np.int16)).score(faces, np.zeros(ANALYSIS_RATE, np.int16), [])


def test_of_a_short_clip_half_is_compared_at_any_lag() -> None:
    assert lags_of(30).tolist() == list(range(-15, 16))
    assert len(lags_of(300)) == 41


# --- the lips


def talking_points(openings: np.ndarray) -> np.ndarray:
    """(F, 468, 3): points with a lower lip that goes down by `openings`."""
    points = np.random.default_rng(1).normal(0, 10, (N_POINTS, 3))
    points[FOREHEAD], points[CHIN] = (0, -60, 0), (0, 70, 0)
    points[list(STILL), 1] -= 20
    frames = np.repeat(points[None], len(openings), axis=0)
    frames[:, INNER_LOWER + OUTER_LOWER, 1] += openings[:, None]
    return frames


def test_a_head_that_turns_moves_and_comes_nearer_has_the_same_lips() -> None:
    openings = 5 + 4 * np.sin(np.arange(50) / 3)
    still = talking_points(openings)
    angles = np.column_stack([20 * np.sin(np.arange(50) / 9), np.linspace(-15, 15, 50), np.arange(50) / 10])
    scales = np.linspace(0.8, 1.3, 50)
    turned = np.stack(
        [
            scale * frame @ Rotation.from_euler("YXZ", angle, degrees=True).as_matrix().T + [scale, 90, 3]
            for frame, angle, scale in zip(still, angles, scales, strict=True)
        ]
    )
    seen, expected = lips_of(turned), lips_of(still)
    assert np.corrcoef(seen[:, 0], openings)[0, 1] > 0.999
    assert np.corrcoef(seen[:, 0], expected[:, 0])[0, 1] > 0.999


def test_crops_without_a_face_say_so() -> None:
    with pytest.raises(LipsNotSeen, match="0 of 26 crops"):
        LipShape().measure(np.full((26, 224, 224, 3), 110, np.uint8))


# --- what it was fitted to, and how it does on videos


@pytest.mark.slow
def test_the_coefficients_are_those_that_the_command_makes() -> None:
    assert speech_to_lips.fit() == pytest.approx(speech_to_lips._coefficients(), abs=1e-4)


@pytest.mark.slow
def test_demo_speakers_with_shifted_sound_have_the_offset_to_one_frame(tmp_path: Path) -> None:
    wrong = {}
    for name, clip in demo_clips(tmp_path, ["astronaut.mp4", "guest_4.webm", "upright.mov"]):
        for late_ms in SHIFTS_MS:
            found = scored(clip, late_ms).offset_frames
            if abs(found + late_ms / 40) > 1:
                wrong[name, late_ms] = found
    assert not wrong


@pytest.mark.slow
def test_shifting_the_sound_of_real_clips_moves_the_offset_by_as_much() -> None:
    right, near, n_clips = 0, 0, 0
    for _, clip in real_clips():
        n_clips += 1
        own = scored(clip, 0).offset_frames
        near += abs(own) <= 3
        moves = [own - scored(clip, late_ms).offset_frames for late_ms in SHIFTS_MS]
        right += all(abs(move - late_ms / 40) <= 1 for move, late_ms in zip(moves, SHIFTS_MS, strict=True))
    assert n_clips >= 10
    assert right >= 0.8 * n_clips
    assert near >= 0.8 * n_clips
