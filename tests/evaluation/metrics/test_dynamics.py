"""Pictures that move by known steps have known dynamics, at any size and rate."""

import numpy as np
import pytest

from evaluation.metrics.dynamics import BACKGROUND, SUBJECT, Dynamics
from evaluation.metrics.metric import CannotScore
from tests.evaluation.metrics.seen import drifting, seen_clip, texture

SIDE = 256
FACE = (96, 80, 160, 160)  # 80 px high


@pytest.fixture(scope="module")
def dynamics() -> Dynamics:
    metric = Dynamics()
    metric.setup()
    return metric


def with_face(background: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Frames whose face, and a little around it, moves by itself."""
    frames = background.copy()
    frames[:, 64:176, 80:176] = face[:, 64:176, 80:176]
    return frames


@pytest.mark.parametrize("step_px", [1, 3, 6])
def test_what_moves_by_so_many_pixels_a_frame_moves_by_so_many_heights_a_second(dynamics, step_px) -> None:
    frames = drifting(texture(SIDE, 2 * SIDE), step_px, 5, SIDE)
    values = dynamics.measure(seen_clip(frames, FACE)).values
    assert values[SUBJECT] == pytest.approx(step_px * 25 / 80, rel=0.02)
    assert values[BACKGROUND] == pytest.approx(step_px * 25 / SIDE, rel=0.03)


def test_a_face_that_moves_before_a_still_wall_is_all_subject_and_the_other_way_round(dynamics) -> None:
    still = np.repeat(texture(SIDE, SIDE, seed=1)[None], 5, axis=0)
    moving = drifting(texture(SIDE, 2 * SIDE), 3, 5, SIDE)
    talking = dynamics.measure(seen_clip(with_face(still, moving), FACE)).values
    walking = dynamics.measure(seen_clip(with_face(moving, still), FACE)).values
    assert talking[SUBJECT] == pytest.approx(3 * 25 / 80, rel=0.1)
    assert talking[BACKGROUND] < 0.05 * walking[BACKGROUND]
    assert walking[SUBJECT] < 0.05 * talking[SUBJECT]


def test_neither_size_nor_rate_counts(dynamics) -> None:
    import cv2

    frames = drifting(texture(SIDE, 2 * SIDE), 2, 9, SIDE)
    twice = np.stack([cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for frame in frames])
    own = dynamics.measure(seen_clip(frames, FACE)).values
    large = dynamics.measure(seen_clip(twice, tuple(2 * side for side in FACE))).values
    half_the_rate = dynamics.measure(seen_clip(frames[::2], FACE, fps=12.5)).values
    for other in (large, half_the_rate):
        assert other[SUBJECT] == pytest.approx(own[SUBJECT], rel=0.03)
        assert other[BACKGROUND] == pytest.approx(own[BACKGROUND], rel=0.03)


def test_only_pairs_that_show_the_face_count(dynamics) -> None:
    frames = drifting(texture(SIDE, 2 * SIDE), 2, 6, SIDE)
    frames[4:] = texture(SIDE, SIDE, seed=5)  # a cut, after which there is no face
    boxes = [FACE] * 4 + [(np.nan,) * 4] * 2
    values = dynamics.measure(seen_clip(frames, boxes)).values
    assert values[SUBJECT] == pytest.approx(2 * 25 / 80, rel=0.02)


def test_a_head_that_fills_the_frame_leaves_no_background(dynamics) -> None:
    frames = drifting(texture(SIDE, 2 * SIDE), 1, 3, SIDE)
    assert BACKGROUND not in dynamics.measure(seen_clip(frames, (40, 40, 216, 216))).values


def test_without_a_face_in_two_frames_on_end_nothing_is_told(dynamics) -> None:
    frames = np.repeat(texture(64, 64)[None], 3, axis=0)
    with pytest.raises(CannotScore, match="no two frames in a row show a face"):
        dynamics.measure(seen_clip(frames, [FACE, (np.nan,) * 4, FACE]))
