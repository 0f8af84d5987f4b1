"""Which speech each frame of each window hears, against the reference's numbers."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.filled import GOLDEN
from training.windows_of_speech import OVERLAP_FRAMES, SILENCE, segment_of, segments

KNOWN = json.loads((GOLDEN / "wav2vec" / "windows_and_segments.json").read_text())


def test_a_frame_hears_its_neighbours_as_in_the_reference() -> None:
    features = torch.arange(7.0).view(7, 1, 1)
    assert segment_of(features, range(7), 5)[..., 0, 0].int().tolist() == KNOWN["window_indices_for_7_frames"]


@pytest.mark.parametrize("n_frames", KNOWN["segment_indices_by_total_frames"])
def test_windows_follow_each_other_as_in_the_reference(n_frames: str) -> None:
    assert segments(int(n_frames), 49) == KNOWN["segment_indices_by_total_frames"][n_frames]


@given(st.integers(1, 300), st.integers(3, 60))
def test_every_frame_is_new_in_one_window_and_windows_share_two(n_frames: int, window_frames: int) -> None:
    found = segments(n_frames, window_frames)
    new = [index for segment in found for index in segment[OVERLAP_FRAMES:]]
    assert new[:n_frames] == list(range(n_frames))
    assert set(new[n_frames:]) <= {n_frames - 1}
    assert len(new) - n_frames < window_frames - OVERLAP_FRAMES
    for before, after in pairwise(found):
        assert after[:OVERLAP_FRAMES] == before[-OVERLAP_FRAMES:]


def test_before_the_first_frame_there_is_silence() -> None:
    rows = segment_of(torch.ones(5, 2, 4), [SILENCE, SILENCE, 0, 1, 4], 3)
    assert rows.shape == (5, 3, 2, 4)
    assert rows.flatten(1).sum(1).tolist() == [0, 0, 24, 24, 24]


@pytest.mark.parametrize(
    ("shape", "window", "says"),
    [((0, 1, 1), 5, "F >= 1"), ((4, 8), 5, r"got \(4, 8\)"), ((4, 1, 8), 4, "odd number of frames, got 4")],
)
def test_speech_of_another_shape_is_refused_in_words(shape, window, says) -> None:
    with pytest.raises(ValueError, match=says):
        segment_of(torch.zeros(shape), [0], window)


@pytest.mark.parametrize(("n_frames", "window_frames"), [(0, 49), (10, 2)])
def test_windows_that_lead_nowhere_are_refused_in_words(n_frames, window_frames) -> None:
    with pytest.raises(ValueError, match="expected"):
        segments(n_frames, window_frames)
