"""Crops around the face, as syncnet_python makes them."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.clip import Clip, FaceTrack
from data_pipeline.media import MAX_PIXELS
from data_pipeline.stages.encode import Box
from data_pipeline.stages.face_crops import CHUNK, crop_squares, face_crops
from tests.data_pipeline.makers import number_in, write_video

SIZE = (640, 480)


def track_of(*boxes: tuple[float, ...], period_s: float = 0.2) -> FaceTrack:
    """Boxes in pixels of SIZE, one a sample."""
    fractions = np.array(boxes) / [*SIZE, *SIZE]
    return FaceTrack(np.arange(len(boxes)) * period_s, fractions, np.empty((len(boxes), 0, 2)))


def clip_of(track: FaceTrack | None, end_s: float = 2.0, **fields) -> Clip:
    size = {"source_width": SIZE[0], "source_height": SIZE[1]}
    return Clip(
        "a.mp4", "ab" * 32, "c11b", **{"start_s": 0.0, "end_s": end_s, "track": track} | size | fields
    )


def dotted(number: int, width: int, height: int) -> np.ndarray:
    """Black, with a white square of 16 px in the middle of (320, 240)."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[232:248, 312:328] = 255
    return picture


def crops_of(clip: Clip, source: Path) -> np.ndarray:
    return np.concatenate(list(face_crops(clip, source, MAX_PIXELS)))


def test_the_square_is_1_4_boxes_wide_and_lies_lower_by_a_fifth_of_the_box() -> None:
    squares = crop_squares(track_of((270, 180, 370, 300)), Box(0, 0, *SIZE), np.array([0.0]))
    assert squares[0].tolist() == pytest.approx([320, 240 + 0.4 * 60, 1.4 * 120])


def test_boxes_are_interpolated_between_samples_and_held_where_the_face_was_not_seen() -> None:
    track = track_of((0, 0, 100, 100), (np.nan,) * 4, (80, 0, 180, 100), period_s=2.0)
    times_s = np.arange(0, 4.2, 0.04)
    x = crop_squares(track, Box(0, 0, *SIZE), times_s)[:, 0]
    assert x[[0, 50, -1]] == pytest.approx([50, 90, 130], abs=1.5)


def test_one_wild_box_does_not_move_the_crop() -> None:
    boxes = [(270.0, 180.0, 370.0, 300.0)] * 11
    boxes[5] = (400.0, 180.0, 500.0, 300.0)
    track = track_of(*boxes, period_s=0.04)
    x = crop_squares(track, Box(0, 0, *SIZE), np.arange(11) / 25)[:, 0]
    assert x.tolist() == [320.0] * 11


def test_the_boxes_middle_comes_to_lie_where_syncnet_expects_it(tmp_path) -> None:
    source = write_video(tmp_path / "dot.mp4", n_frames=30, size=SIZE, pixels=dotted)
    crop = crops_of(clip_of(track_of((270, 190, 370, 290)), end_s=1.0), source)[3]
    rows, columns = np.nonzero(crop[:, :, 0] > 128)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((80, 112), abs=0.6)
    assert np.ptp(columns) + 1 == pytest.approx(16 * 224 / 140, abs=2)


def test_beyond_the_picture_it_is_grey(tmp_path) -> None:
    source = write_video(tmp_path / "dot.mp4", n_frames=30, size=SIZE, pixels=dotted)
    crop = crops_of(clip_of(track_of((0, 0, 100, 100)), end_s=1.0), source)[0]
    assert crop[100, 2].tolist() == [110, 110, 110]
    assert crop[150, 150].max() < 30


@pytest.mark.parametrize("fps", [25, 50])
def test_there_are_25_crops_a_second_of_what_is_on_screen_then(tmp_path, fps) -> None:
    source = write_video(tmp_path / "n.mp4", n_frames=2 * fps, fps=fps, size=SIZE)
    whole = clip_of(track_of((160, 120, 480, 360)), start_s=0.4, end_s=1.8)
    # A square that shows the whole picture: the numbers are spelt over all of it.
    seen = [number_in(crop[27:195]) for crop in crops_of_whole(whole, source)]
    assert seen == [round((0.4 + k / 25) * fps) for k in range(35)]


def crops_of_whole(clip: Clip, source: Path) -> np.ndarray:
    half = 640 / 2.8
    clip.track = track_of((320 - half, 240 - 1.4 * half, 320 + half, 240 + 0.6 * half))
    return crops_of(clip, source)


def test_crops_come_in_chunks(tmp_path) -> None:
    source = write_video(tmp_path / "n.mp4", n_frames=60, size=SIZE)
    chunks = list(face_crops(clip_of(track_of((270, 190, 370, 290))), source, MAX_PIXELS))
    assert [chunk.shape for chunk in chunks] == [(CHUNK, 224, 224, 3)] * 2


def test_a_clip_without_a_face_cannot_be_cropped(tmp_path) -> None:
    source = write_video(tmp_path / "n.mp4", n_frames=60, size=SIZE)
    with pytest.raises(ValueError, match=r"n\.mp4: no face was tracked"):
        list(face_crops(clip_of(track_of((np.nan,) * 4)), source, MAX_PIXELS))
