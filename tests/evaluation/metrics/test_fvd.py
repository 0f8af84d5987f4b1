"""FVD: windows, how the figure is called, and what the stand-in sees of motion."""

import numpy as np
import pytest

from evaluation.metrics.fvd import (
    PUBLISHED,
    PUBLISHED_SIZE,
    STAND_IN_SIZE,
    WINDOW,
    Fvd,
    appearance_and_motion,
)
from evaluation.metrics.metric import CannotScore
from evaluation.networks import I3D, efficientnet_lite0, i3d
from tests.evaluation.metrics.clips import portrait_clip, seen_clip
from tests.filled import fill, golden


@pytest.fixture(scope="module")
def stand_in() -> Fvd:
    """Of windows that begin every other frame."""
    metric = Fvd("stand-in", stride=2, device="cpu")
    metric.setup()
    return metric


def test_the_published_network_gives_fvd_of_the_recorded_features(publish):
    publish(PUBLISHED, fill(I3D(), gain=2**0.5))
    stored = golden("fvd/i3d")
    frames = stored["clips_a_uint8"][0].repeat(8, axis=1).repeat(8, axis=2)
    metric = Fvd("published", device="cpu")
    metric.setup()
    found = metric.measure(seen_clip("a", np.concatenate([frames, frames[:15]]))).arrays["features"]
    assert metric.names == ("fvd",)
    np.testing.assert_allclose(found, stored["a.logits_eps1e-3"][:1], atol=1e-5, rtol=0)


def test_the_protocol_says_which_windows_and_which_eps():
    protocol = Fvd("published", stride=8, eps=1e-5).protocol
    assert (protocol["window_frames"], protocol["stride_frames"], protocol["batch_norm_eps"]) == (16, 8, 1e-5)
    assert protocol["weights_sha256"][:8] == "2609088c"
    assert Fvd("stand-in").protocol["stride_frames"] == 16


def test_the_stand_ins_figure_has_a_name_of_its_own(empty_cache):
    assert Fvd("auto").names == Fvd("stand-in").names == ("fd-efficientnet-lite0-motion",)


def test_sizes_of_features_are_those_of_the_networks():
    assert PUBLISHED_SIZE == i3d.CLASSES
    assert WINDOW == i3d.CLIP_FRAMES
    assert STAND_IN_SIZE == 2 * efficientnet_lite0.BOTTLENECK


@pytest.mark.parametrize(
    ("n_frames", "stride", "n_windows"), [(16, 16, 1), (47, 16, 2), (48, 16, 3), (20, 2, 3)]
)
def test_only_whole_windows_count(n_frames, stride, n_windows):
    features = np.zeros((n_frames, 3), np.float32)
    assert appearance_and_motion(features, stride).shape == (n_windows, 6)


def test_a_window_is_its_mean_and_how_much_it_changes_a_frame():
    features = np.array([[k, 5 * (-1) ** k] for k in range(16)], np.float32)
    np.testing.assert_allclose(appearance_and_motion(features, 16), [[7.5, 0, 1, 10]])


def test_a_clip_is_measured_window_by_window(stand_in):
    clip = portrait_clip("a", 19, seed=0)
    found = stand_in.measure(clip).arrays["features"]
    assert found.shape == (2, STAND_IN_SIZE)
    second = stand_in.measure(seen_clip("b", clip.frames[2:18])).arrays["features"]
    np.testing.assert_allclose(found[1:], second, atol=1e-4)


def test_a_frozen_clip_is_farther_from_a_moving_one_than_this_played_backwards(stand_in):
    clip = portrait_clip("a", 18, seed=0)
    still = np.repeat(clip.frames[8:9], 18, axis=0)
    moving, backwards, frozen = (Fvd("stand-in", stride=2) for _ in range(3))
    for state, frames in ((moving, clip.frames), (backwards, clip.frames[::-1]), (frozen, still)):
        state.update("a", stand_in.measure(seen_clip("a", frames)))
    (again,), (stopped,) = backwards.compute_against(moving), frozen.compute_against(moving)
    assert again.value < 1e-2 * stopped.value


def test_a_clip_shorter_than_a_window_cannot_be_scored(stand_in):
    with pytest.raises(CannotScore, match="15 frames; a window has 16"):
        stand_in.measure(portrait_clip("a", 15, seed=0))


def test_a_stride_that_is_none_is_refused():
    with pytest.raises(ValueError, match="1 frame or more, not 0"):
        Fvd("stand-in", stride=0)
