"""Detectors answer for every frame, in order."""

import numpy as np
import pytest

from data_pipeline.config import SegmentConfig
from data_pipeline.stages.cuts import cut_detector, in_shots
from tests.data_pipeline.scenes import joined, scene


def begins(pixels, n_frames: int, threshold: float = 27.0) -> list[int]:
    detector = cut_detector(SegmentConfig(cut_threshold=threshold))
    frames = ((k, pixels(k, 128, 72)) for k in range(n_frames))
    answered = list(in_shots(frames, detector))
    assert [k for k, _ in answered] == list(range(n_frames))
    return [k for k, begins_shot in answered if begins_shot]


@pytest.mark.parametrize("n_frames", [0, 1, 2, 3, 40])
def test_every_frame_has_one_answer(n_frames):
    assert begins(scene(1), n_frames) == []


@pytest.mark.parametrize("at", [1, 2, 20, 38, 39])
def test_a_cut_is_found_wherever_it_is(at):
    assert begins(joined((scene(1), at), (scene(2), 40 - at)), 40) == [at]


def test_a_cut_that_stands_out_needs_less_difference_than_one_amid_movement():
    def step(k: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), 60 if k < 20 else 135, np.uint8)

    def flicker(k: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), 60 if k % 2 else 135, np.uint8)

    score = 75 / 3  # brightness differs by 75; hue and saturation, which count as much, do not
    assert begins(step, 40, threshold=score * 1.2) == [20]
    assert begins(flicker, 40, threshold=score * 1.2) == []
    assert begins(step, 40, threshold=score * 1.7) == []


def test_a_higher_threshold_finds_fewer_cuts():
    shots = joined((scene(1), 20), (scene(2), 20))
    assert begins(shots, 40, threshold=200) == []
