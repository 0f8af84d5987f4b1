"""BRISQUE: worse with every distortion, and what another implementation gives with the same regression."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import gennorm

from evaluation.metrics.brisque import Brisque, Featureless, asymmetric_gaussian, features, read_ranges
from evaluation.metrics.metric import CannotScore
from evaluation.metrics.quality import Quality
from tests.evaluation.metrics.seen import seen_clip
from tests.evaluation.test_picture import astronaut

PACKAGE = {5: 17.037882, 10: 33.996339, 20: 52.523151, 40: 65.900349}
"""What the package brisque 0.2.0 gives for the astronaut with noise, on numpy 1.26. It counts zeros as
positive, which the authors do not, but noisy pictures have none."""


def luma() -> np.ndarray:
    import cv2

    return cv2.cvtColor(np.asarray(astronaut()), cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="module")
def brisque() -> Brisque:
    return Brisque()


def blurred(sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(luma(), (0, 0), sigma)


def noisy(levels: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, levels, luma().shape)
    return np.clip(luma() + noise, 0, 255).astype(np.uint8)


def compressed(quality: int) -> np.ndarray:
    import cv2

    return cv2.imdecode(cv2.imencode(".jpg", luma(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


@pytest.mark.parametrize(
    ("distorted", "amounts"),
    [(blurred, (0.7, 1, 1.5, 2, 3)), (noisy, (5, 10, 20, 40)), (compressed, (80, 40, 20, 10, 5))],
)
def test_the_score_worsens_with_every_step(brisque, distorted, amounts) -> None:
    scores = [brisque.score(luma())] + [brisque.score(distorted(amount)) for amount in amounts]
    assert scores[0] < 20
    assert all(before + 3 < after for before, after in pairwise(scores))
    assert scores[-1] < 100


def test_scores_are_those_of_another_implementation(brisque) -> None:
    rng = np.random.default_rng(0)
    for levels, wanted in PACKAGE.items():
        noise = rng.normal(0, levels, luma().shape)
        assert brisque.score(np.clip(luma() + noise, 0, 255).astype(np.uint8)) == pytest.approx(
            wanted, abs=1e-3
        )


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_a_generalised_gaussian_is_recognised(shape) -> None:
    x = gennorm.rvs(shape, scale=2, size=400_000, random_state=0)
    found, mean, left, right = asymmetric_gaussian(x)
    assert found == pytest.approx(shape, rel=0.03)
    assert (left, right) == pytest.approx([gennorm.var(shape, scale=2)] * 2, rel=0.02)
    assert abs(mean) < 0.02


def test_the_two_sides_of_a_gaussian_are_told_apart() -> None:
    normal = np.random.default_rng(0).normal(size=400_000)
    side = np.where(np.random.default_rng(1).random(len(normal)) < 1 / 4, -1, 3)  # as wide as they are likely
    shape, mean, left, right = asymmetric_gaussian(np.abs(normal) * side)
    assert (left, right) == pytest.approx((1, 9), rel=0.02)
    assert shape == pytest.approx(2, rel=0.03)
    assert mean == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.03)


def test_there_are_18_features_a_size_in_this_order() -> None:
    found = features(luma())
    assert found.shape == (36,)
    turned = features(luma().T)
    horizontal, vertical = slice(2, 6), slice(6, 10)
    assert found[horizontal] == pytest.approx(turned[vertical], rel=1e-6)
    assert found[vertical] == pytest.approx(turned[horizontal], rel=1e-6)
    mirrored = features(luma()[:, ::-1])
    assert found[10:14] == pytest.approx(mirrored[14:18], rel=1e-6)


def test_a_file_that_would_run_something_is_not_read(tmp_path) -> None:
    (tmp_path / "ranges").write_bytes(pickle.dumps({"min_": [0.0], "max_": np.ones(1)}))
    with pytest.raises(pickle.UnpicklingError, match="expected plain numbers, found numpy"):
        read_ranges(tmp_path / "ranges")


def test_a_clips_quality_is_the_mean_of_every_kth_frame(brisque) -> None:
    import cv2

    pictures = [cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) for picture in (luma(), noisy(40), blurred(2))]
    metric = Quality(every=2)
    metric.setup()
    wanted = (brisque.score(luma()) + brisque.score(blurred(2))) / 2
    assert metric.measure(seen_clip(pictures)).values["brisque"] == pytest.approx(wanted)
    assert metric.protocol["every"] == 2


def test_frames_of_one_colour_have_no_quality(brisque) -> None:
    with pytest.raises(Featureless, match="of one colour"):
        brisque.score(np.zeros((64, 64), np.uint8))
    metric = Quality()
    metric.setup()
    with pytest.raises(CannotScore, match="of one colour"):
        metric.measure(seen_clip(np.zeros((3, 64, 64, 3), np.uint8)))
