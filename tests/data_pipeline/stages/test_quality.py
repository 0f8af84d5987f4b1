"""What the values of quality say."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.stages.quality import (
    FrameLook,
    blockiness_of,
    change_between,
    quality_of,
    sharpness_of,
)
from tests.data_pipeline.scenes import scene


def picture(width: int = 320, height: int = 240) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height // 4, width // 4)).astype(np.float32)
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def looks(changes: list[float], fps: float, **others) -> list[FrameLook]:
    return [FrameLook(k / fps, 100.0, change, change < 0.1, **others) for k, change in enumerate(changes)]


def test_blur_lowers_sharpness_step_by_step():
    blurred = [sharpness_of(cv2.GaussianBlur(picture(), (0, 0), sigma)) for sigma in (0.5, 1, 2, 4, 8)]
    assert [sharpness_of(picture()), *blurred] == sorted([sharpness_of(picture()), *blurred], reverse=True)
    assert blurred[-1] < 0.2 * blurred[0]


def test_a_blurred_background_does_not_make_a_sharp_face_blurry():
    sharp = picture()
    portrait = cv2.GaussianBlur(sharp, (0, 0), 6)
    portrait[60:180, 100:220] = sharp[60:180, 100:220]
    assert sharpness_of(portrait) > 0.7 * sharpness_of(sharp)


def test_sharpness_does_not_depend_on_the_size_of_the_source():
    large = cv2.resize(picture(), (1280, 960), interpolation=cv2.INTER_CUBIC)
    assert sharpness_of(large) == pytest.approx(sharpness_of(picture()), rel=0.25)


def test_a_flat_picture_is_not_sharp():
    assert sharpness_of(np.full((240, 320), 90, np.uint8)) == 0


def test_hard_compression_raises_blockiness():
    soft = cv2.GaussianBlur(picture(), (0, 0), 4)

    def jpeg(quality: int) -> np.ndarray:
        data = cv2.imencode(".jpg", soft, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)

    assert blockiness_of(soft) == pytest.approx(1, abs=0.05)
    assert blockiness_of(jpeg(90)) < 1.2 < 1.5 < blockiness_of(jpeg(30)) < blockiness_of(jpeg(10))


@pytest.mark.parametrize("shape", [(240, 320), (4, 4), (8, 9), (1, 1), (3, 200)])
def test_a_flat_picture_of_any_size_has_no_blocks(shape):
    assert blockiness_of(np.full(shape, 128, np.uint8)) == pytest.approx(1)


def test_a_picture_with_an_encoders_noise_is_a_repeat():
    before = picture(128, 72) // 2
    refined = before + np.random.default_rng(0).integers(0, 2, before.shape, dtype=np.uint8)
    in_places = before.copy()
    in_places[20:24, 40:80] += 2
    assert change_between(before, refined) == (pytest.approx(0.5, abs=0.02), True)
    assert change_between(before, in_places) == (pytest.approx(320 / 9216), True)


def test_a_mouth_that_moves_is_not_a_repeat():
    before = picture(128, 72)
    after = before.copy()
    after[50:53, 60:66] //= 2
    assert change_between(before, after)[1] is False


def test_change_is_the_mean_difference():
    assert change_between(np.full((8, 8), 10, np.uint8), np.full((8, 8), 14, np.uint8)) == (4, False)


@given(fps=st.sampled_from([24, 25, 30, 50, 60]), repeats=st.integers(1, 3))
def test_motion_does_not_depend_on_how_often_a_picture_is_shown(fps, repeats):
    changes = [0.0] + [1.0] * fps
    shown = [change if copy == 0 else 0.0 for change in changes for copy in range(repeats)]
    once = quality_of(looks(changes, fps), duration_s=2.0)
    often = quality_of(looks(shown, fps * repeats), duration_s=2.0)
    assert often.motion == once.motion == pytest.approx(fps / 50, abs=1e-4)
    assert often.repeated_frame_ratio == pytest.approx(1 - 1 / repeats, abs=0.03)


def test_the_change_into_a_clip_is_not_its_motion():
    assert quality_of(looks([80.0, 1.0, 1.0], 25), duration_s=1.0).motion == pytest.approx(0.08)


def test_values_are_of_the_typical_frame():
    found = quality_of(
        [FrameLook(k / 25, luminance, 1.0, False, 10.0, 1.0) for k, luminance in enumerate([90, 90, 250])],
        1.0,
    )
    assert (found.luminance, found.sharpness, found.blockiness) == (90, 10, 1)


def test_what_was_not_looked_at_stays_unmeasured():
    found = quality_of(looks([0.0, 1.0], 25), duration_s=1.0)
    assert (found.sharpness, found.blockiness) == (None, None)


def test_a_gliding_scene_moves_more_the_faster_it_glides():
    def motion(speed_px: float) -> float:
        lumas = [scene(1, grey=True, speed_px=speed_px)(k, 128, 72)[..., 0] for k in range(10)]
        return sum(change_between(a, b)[0] for a, b in pairwise(lumas))

    assert motion(0) == 0 < motion(1) < motion(3)
