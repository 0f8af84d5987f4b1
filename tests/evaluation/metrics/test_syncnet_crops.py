"""Crops as syncnet_python makes them: which frame, which part of it, and where a track ends."""

import numpy as np
import pytest

from data_pipeline.clip import ANALYSIS_RATE
from evaluation.metrics.metric import CannotScore
from evaluation.metrics.syncnet_crops import MIN_FRAMES, face_and_sound
from tests.evaluation.metrics.seen import seen_clip

WHOLE = (32, 0, 192, 160)  # whose square is just a frame of 224 x 224
UNSEEN = (np.nan,) * 4


def sound(seconds: float) -> np.ndarray:
    """Each sample says when it is heard, in sixteenths of a millisecond, up to 2 s."""
    return np.arange(round(seconds * ANALYSIS_RATE), dtype=np.int16)


def counting(n_frames: int) -> np.ndarray:
    """Frames that are as bright as their number."""
    return np.repeat(np.arange(n_frames, dtype=np.uint8), 224 * 224 * 3).reshape(n_frames, 224, 224, 3)


def numbers(faces: np.ndarray) -> list[int]:
    return [int(face[112, 112, 0]) for face in faces]


def test_the_square_is_1_4_boxes_wide_and_lies_lower_by_a_fifth_of_the_box() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (30, 224, 224, 3), dtype=np.uint8)
    found = face_and_sound(seen_clip(frames, WHOLE, sound=sound(1.2)))
    assert np.array_equal(found.faces, frames)


def test_the_boxes_middle_comes_to_lie_two_fifths_down_and_beyond_the_picture_is_grey() -> None:
    frames = np.zeros((30, 480, 640, 3), np.uint8)
    frames[:, 42:58, 42:58] = 255
    crop = face_and_sound(seen_clip(frames, (0, 0, 100, 100), sound=sound(1.2))).faces[15]
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((80, 112), abs=0.6)
    assert np.ptp(columns) + 1 == pytest.approx(16 * 224 / 140, abs=2)
    assert crop[100, 2].tolist() == [110, 110, 110]


@pytest.mark.parametrize("fps", [25, 30, 50, 24])
def test_a_crop_is_of_the_frame_on_screen_at_every_25th_of_a_second(fps) -> None:
    n_frames = 2 * fps
    found = face_and_sound(seen_clip(counting(n_frames), WHOLE, fps=fps, sound=sound(2)))
    assert numbers(found.faces) == [k * fps // 25 for k in range(50)]
    assert len(found.sound) == 2 * ANALYSIS_RATE


def test_one_wild_box_does_not_move_the_crop() -> None:
    boxes = [WHOLE] * 30
    boxes[12] = (0, 60, 100, 220)
    found = face_and_sound(seen_clip(counting(30), boxes, sound=sound(1.2)))
    assert (found.faces[12] == 12).all()


def test_at_a_tracks_ends_the_median_sees_zeros_as_the_reference_has_it() -> None:
    """Six zeros and seven boxes: the median is the least of the seven."""
    boxes = [(32 + k, 0, 192 + k, 160) for k in range(30)]
    frames = np.zeros((30, 224, 300, 3), np.uint8)
    frames[:, :, 112:] = 255
    edges = [
        int(np.argmax(face[112, :, 0] > 128))
        for face in face_and_sound(seen_clip(frames, boxes, sound=sound(1.2))).faces
    ]
    assert edges[:2] == [112, 111]
    assert edges[15] == 112 - 15
    assert edges[-1] == 112 - 23  # frame 29, whose median is that of frame 23


def test_a_gap_of_a_second_belongs_to_a_track_with_the_sound_of_its_time() -> None:
    boxes = [UNSEEN] * 5 + [WHOLE] * 8 + [UNSEEN] * 24 + [WHOLE] * 8
    found = face_and_sound(seen_clip(counting(45), boxes, sound=sound(1.8)))
    assert numbers(found.faces) == list(range(5, 45))
    assert found.sound[0] == 5 * 640
    assert len(found.sound) == 40 * 640


def test_a_longer_gap_ends_a_track_and_the_longest_is_taken() -> None:
    boxes = [WHOLE] * 30 + [UNSEEN] * 25 + [WHOLE] * 40
    found = face_and_sound(seen_clip(counting(95), boxes, sound=np.zeros(4 * ANALYSIS_RATE, np.int16)))
    assert numbers(found.faces) == list(range(55, 95))


@pytest.mark.parametrize(
    ("boxes", "heard", "said"),
    [
        ([WHOLE] * 40, sound(0), "has no sound"),
        ([UNSEEN] * 40, sound(1.6), "seen for 0.00 s on end"),
        ([WHOLE] * (MIN_FRAMES - 1) + [UNSEEN] * 16, sound(1.6), "seen for 0.96 s on end"),
        ([WHOLE] * 40, sound(0.5), "0.50 s of its sound"),
    ],
)
def test_what_cannot_be_compared_is_said(boxes, heard, said) -> None:
    with pytest.raises(CannotScore, match=said):
        face_and_sound(seen_clip(counting(len(boxes)), boxes, sound=heard))
