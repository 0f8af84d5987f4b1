"""Tracks: which detections are one person, and which person a clip is about."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import face_tracks
from data_pipeline.models.detections import Detections


def seen(*boxes: tuple[float, float, float]) -> Detections:
    """Square faces: (centre x, centre y, width)."""
    array = np.array([[x - w / 2, y - w / 2, x + w / 2, y + w / 2] for x, y, w in boxes], np.float32)
    points = np.zeros((len(boxes), 5, 2), np.float32)
    return Detections(array.reshape(-1, 4), np.full(len(boxes), 0.9, np.float32), points)


def times(frames: list[Detections]) -> np.ndarray:
    return np.arange(len(frames)) / 5


def test_a_face_that_moves_is_one_track():
    frames = [seen((100 + 20 * i, 100, 50)) for i in range(10)]
    (track,) = face_tracks.link(frames, times(frames))
    assert track.frames == list(range(10))


def test_two_people_side_by_side_are_two_tracks_and_the_larger_is_the_main_one():
    frames = [seen((100, 100, 40), (300, 100, 60)) for _ in range(10)]
    main, other = face_tracks.link(frames, times(frames))
    assert main.widths[0] == 60
    assert len(other) == 10
    assert face_tracks.faces_at_once([main, other], 10) == 2
    assert face_tracks.widest_other([main, other]) == pytest.approx(40 / 60)


def test_who_is_always_there_outweighs_a_larger_face_that_passes():
    frames = [seen((100, 100, 50), *([(300, 100, 60)] if 4 <= i < 8 else [])) for i in range(30)]
    main, _ = face_tracks.link(frames, times(frames))
    assert main.widths[0] == 50


def test_a_face_that_flashes_up_for_two_frames_counts_for_nothing():
    frames = [seen((100, 100, 50), *([(300, 100, 60)] if i in (4, 5) else [])) for i in range(20)]
    tracks = face_tracks.link(frames, times(frames))
    assert len(tracks) == 1
    assert face_tracks.widest_other(tracks) == 0


def test_a_short_absence_does_not_make_a_second_person():
    frames = [seen() if 5 <= i < 10 else seen((100, 100, 50)) for i in range(20)]
    (track,) = face_tracks.link(frames, times(frames))
    assert face_tracks.longest_gap_s(track, times(frames)) == pytest.approx(1.0)


def test_one_who_comes_after_a_long_absence_is_another_track():
    frames = [seen() if 5 <= i < 18 else seen((100, 100, 50)) for i in range(25)]
    assert len(face_tracks.link(frames, times(frames))) == 2


def test_missing_at_the_start_and_at_the_end_are_gaps_too():
    frames = [seen()] * 4 + [seen((100, 100, 50))] * 10 + [seen()] * 7
    (track,) = face_tracks.link(frames, times(frames))
    assert face_tracks.longest_gap_s(track, times(frames)) == pytest.approx(7 / 5)


def test_a_single_frame_is_all_there_is_so_its_faces_count():
    frames = [seen((100, 100, 50), (300, 100, 50))]
    assert len(face_tracks.link(frames, times(frames))) == 2


def test_no_face_gives_no_track():
    frames = [seen()] * 5
    assert face_tracks.link(frames, times(frames)) == []
    assert face_tracks.faces_at_once([], 5) == 0


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 600), st.floats(0, 400), st.floats(1, 200)), max_size=4), max_size=12
    )
)
def test_no_detection_is_in_two_tracks_and_no_track_is_twice_in_a_frame(boxes):
    frames = [seen(*found) for found in boxes]
    tracks = face_tracks.link(frames, times(frames))
    for track in tracks:
        assert track.frames == sorted(set(track.frames))
    assert sum(len(track) for track in tracks) <= sum(len(found) for found in boxes)
    weights = [track.weight for track in tracks]
    assert weights == sorted(weights, reverse=True)
