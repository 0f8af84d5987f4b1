"""The face's sharpness: blurred is less, the background does not count, nor does the video's size."""

from itertools import pairwise

import numpy as np
import pytest

from evaluation.metrics.metric import CannotScore
from evaluation.metrics.sharpness import Sharpness
from tests.evaluation.metrics.seen import Box, seen_clip
from tests.evaluation.test_picture import astronaut

FACE = (176, 56, 272, 186)  # the astronaut's


def picture() -> np.ndarray:
    return np.asarray(astronaut())


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), sigma)


def sharpness(image: np.ndarray, face: Box = FACE) -> float:
    return Sharpness().measure(seen_clip(image[None], face)).values["sharpness"]


def test_the_more_a_face_is_blurred_the_less_sharp_it_is() -> None:
    found = [sharpness(picture())] + [sharpness(blurred(picture(), sigma)) for sigma in (0.7, 1, 1.5, 3)]
    assert all(before > 1.1 * after for before, after in pairwise(found))


def test_a_blurred_background_leaves_the_face_as_sharp_as_it_is() -> None:
    x0, y0, x1, y1 = FACE
    image = blurred(picture(), 4)
    image[y0:y1, x0:x1] = picture()[y0:y1, x0:x1]
    assert sharpness(image) == sharpness(picture())
    assert sharpness(blurred(picture(), 4)) < 0.3 * sharpness(image)


def test_a_video_made_larger_is_no_sharper() -> None:
    import cv2

    twice = cv2.resize(picture(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert sharpness(twice, tuple(2 * side for side in FACE)) == pytest.approx(sharpness(picture()), rel=0.1)


def test_it_is_the_mean_over_the_frames_that_show_the_face() -> None:
    pictures = [picture(), blurred(picture(), 2), np.zeros_like(picture())]
    clip = seen_clip(pictures, [FACE, FACE, (np.nan,) * 4])
    wanted = (sharpness(pictures[0]) + sharpness(pictures[1])) / 2
    assert Sharpness().measure(clip).values["sharpness"] == pytest.approx(wanted)


def test_a_face_that_leaves_the_picture_is_measured_where_it_is_seen() -> None:
    assert sharpness(picture()[:, 200:], (-24, 56, 72, 186)) > 0


def test_without_a_face_there_is_no_sharpness() -> None:
    with pytest.raises(CannotScore, match="a clip: no frame shows a face"):
        Sharpness().measure(seen_clip(picture()[None]))
