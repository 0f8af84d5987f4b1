"""Flicker is what changes beyond motion: known of jumps in brightness, almost nothing of what moves."""

import numpy as np
import pytest

from evaluation.metrics.flicker import Flicker, not_occluded
from evaluation.metrics.metric import CannotScore
from tests.evaluation.metrics.seen import drifting, seen_clip, texture

SIDE = 128


@pytest.fixture(scope="module")
def flicker() -> Flicker:
    metric = Flicker()
    metric.setup()
    return metric


def value(flicker: Flicker, frames: np.ndarray) -> float:
    return flicker.measure(seen_clip(frames)).values["flicker"]


def jumping(levels: int, n_frames: int = 6) -> np.ndarray:
    """A still picture whose every other frame is brighter."""
    still = np.repeat((texture(SIDE, SIDE) * 0.6 + 20)[None], n_frames, axis=0)
    still[1::2] += levels
    return still.astype(np.uint8)


@pytest.mark.parametrize("levels", [4, 10, 20])
def test_a_still_picture_that_jumps_in_brightness_flickers_by_as_many_levels(flicker, levels) -> None:
    assert value(flicker, jumping(levels)) == pytest.approx(levels, rel=0.05)


def test_a_still_picture_does_not_flicker(flicker) -> None:
    assert value(flicker, jumping(0)) == 0


def test_what_moves_is_not_what_flickers(flicker) -> None:
    frames = drifting(texture(SIDE, 2 * SIDE, smooth_px=3), 2, 6, SIDE)
    unmoved = float(np.sqrt(np.mean((frames[1:].astype(float) - frames[:-1]) ** 2)))
    assert unmoved > 20
    assert value(flicker, frames) < 0.1 * unmoved


def test_noise_of_a_known_size_is_told(flicker) -> None:
    still = np.repeat(texture(SIDE, SIDE).astype(float)[None] * 0.6 + 50, 6, axis=0)
    noise = np.random.default_rng(3).normal(0, 6, still.shape[:3])[..., None]
    found = value(flicker, np.clip(still + noise, 0, 255).astype(np.uint8))
    assert found == pytest.approx(6 * np.sqrt(2), rel=0.2)


def test_pixels_that_do_not_come_back_or_come_from_outside_are_left_out() -> None:
    forth, back = np.zeros((2, 20, 30, 2), np.float32)
    back[:, :10, 0] = -3  # shown before only from the fourth column on, and nothing went there
    forth[:, :7, 0] = 3
    clear = not_occluded(forth, back)
    assert not clear[:, :3].any()
    assert clear[:, 3:10].all()
    assert clear[:, 10:].all()
    forth[:, 4:7, 0] = 0
    assert not not_occluded(forth, back)[:, 7:10].any()


def test_what_lies_half_a_pixel_outside_is_left_out_too() -> None:
    """It would be mixed with the black beyond the edge."""
    forth: np.ndarray = np.full((20, 30, 2), 0.5, np.float32)
    clear = not_occluded(forth, -forth)
    assert not clear[0].any()
    assert not clear[:, 0].any()
    assert clear[1:, 1:].all()


def test_of_one_frame_nothing_can_be_told(flicker) -> None:
    with pytest.raises(CannotScore, match="found again in the next one"):
        value(flicker, texture(32, 32)[None])
