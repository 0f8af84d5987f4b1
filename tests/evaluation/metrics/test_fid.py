"""FID: which network looks, what the figure is called, and that worse pictures are farther off."""

from collections.abc import Iterable

import cv2
import numpy as np
import pytest
import torch

from data_pipeline import weights
from data_pipeline.weights import WeightsUnavailable
from evaluation.metrics.fid import BATCH, PUBLISHED, PUBLISHED_SIZE, STAND_IN_SIZE, Fid
from evaluation.metrics.metric import SeenClip
from evaluation.networks import FidInception, efficientnet_lite0, inception
from tests.evaluation.metrics.clips import portrait_clip, seen_clip
from tests.filled import fill, golden


@pytest.fixture(scope="module")
def stand_in() -> Fid:
    metric = Fid("stand-in", device="cpu")
    metric.setup()
    return metric


def state_of(measurer: Fid, clips: Iterable[SeenClip]) -> Fid:
    state = Fid("stand-in", device="cpu")
    for clip in clips:
        state.update(clip.name, measurer.measure(clip))
    return state


def changed(clip: SeenClip, change) -> SeenClip:
    return seen_clip(clip.name, np.stack([change(frame) for frame in clip.frames]))


def test_the_published_network_gives_fid_of_the_recorded_features(publish):
    publish(PUBLISHED, fill(FidInception(), gain=2**0.5))
    stored = golden("fid/features")
    clip = seen_clip("a", stored["image_uint8"].transpose(0, 2, 3, 1))
    for variant, recorded in (("pytorch-fid", "feature2048"), ("torch-fidelity", "torch_fidelity.2048")):
        metric = Fid("published", variant, device="cpu")
        assert metric.names == ("fid",)
        metric.setup()
        found = metric.measure(clip).arrays["features"]
        np.testing.assert_allclose(found, stored[recorded], atol=1e-5, rtol=0)


def test_the_protocol_names_the_network_by_the_digest_of_its_weights():
    published, stand_in = Fid("published").protocol, Fid("stand-in").protocol
    assert published["weights_sha256"][:8] == "6726825d"
    assert stand_in["weights_sha256"][:8] == "57934424"
    assert published["preprocessing"] == "pytorch-fid"
    assert Fid("published", "torch-fidelity").protocol["preprocessing"] == "torch-fidelity"


def test_auto_takes_the_published_network_where_it_was_pulled_and_says_so_by_the_name(publish):
    publish(PUBLISHED, fill(FidInception(), gain=1))
    assert Fid("auto").names == ("fd-efficientnet-lite0",)
    weights.pull([PUBLISHED])
    assert Fid("auto").names == ("fid",)
    assert Fid("stand-in").names == ("fd-efficientnet-lite0",)


def test_published_weights_that_cannot_be_had_are_an_error_and_not_a_stand_in(publish, tmp_path):
    publish(PUBLISHED, fill(FidInception(), gain=1))
    (tmp_path / inception.WEIGHTS_FILE).unlink()
    with pytest.raises(WeightsUnavailable, match="hallo3 weights pull fid-inception"):
        Fid("published").setup()


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'best' is none of published, stand-in, auto"):
        Fid("best")


def test_sizes_of_features_are_those_of_the_networks():
    assert PUBLISHED_SIZE == inception.FEATURES
    assert STAND_IN_SIZE == efficientnet_lite0.FEATURES


def test_every_frame_counts_once_in_batches_as_alone(stand_in):
    clip = portrait_clip("a", BATCH + 3, seed=0)
    found = stand_in.measure(clip).arrays["features"]
    assert found.shape == (BATCH + 3, STAND_IN_SIZE)
    assert found.dtype == np.float32
    alone = stand_in.measure(seen_clip("b", clip.frames[-1:])).arrays["features"]
    np.testing.assert_allclose(found[-1:], alone, atol=1e-4)


def test_the_more_a_clip_is_blurred_or_noisy_the_farther_it_is(stand_in):
    clips = [portrait_clip(f"clip-{k}", 2, seed=k) for k in range(5)]
    real = state_of(stand_in, clips)

    def distance(change) -> float:
        (figure,) = state_of(stand_in, [changed(clip, change) for clip in clips]).compute_against(real)
        assert figure.n == 5
        return figure.value

    rng = np.random.default_rng(0)
    same = distance(lambda frame: frame)
    blurred = [distance(lambda frame, s=s: cv2.GaussianBlur(frame, (0, 0), s)) for s in (1, 3)]
    noisy = [
        distance(lambda frame, s=s: np.clip(frame + rng.normal(0, s, frame.shape), 0, 255).astype(np.uint8))
        for s in (8, 40)
    ]
    assert same < 1e-3 < blurred[0] < blurred[1]
    assert same < 1e-3 < noisy[0] < noisy[1]


def test_a_distance_needs_real_clips(stand_in):
    state = state_of(stand_in, [portrait_clip("a", 3, seed=0)])
    (figure,) = state.compute()
    assert (figure.name, figure.n) == ("fd-efficientnet-lite0", 1)
    assert np.isnan([figure.value, figure.low, figure.high]).all()
    (nothing,) = state.compute_against(Fid("stand-in"))
    assert np.isnan(nothing.value)


def test_states_of_two_workers_merge_and_go_with_a_saved_one(stand_in, tmp_path):
    clips = [portrait_clip(f"clip-{k}", 2, seed=k) for k in range(6)]
    real = state_of(stand_in, [changed(clip, lambda frame: frame[::-1]) for clip in clips])
    (expected,) = state_of(stand_in, clips).compute_against(real)
    real.save(tmp_path / "real.npz", "benchmark 1")
    kept = Fid("stand-in")
    kept.load(tmp_path / "real.npz", "benchmark 1")
    first, second = state_of(stand_in, clips[:2]), state_of(stand_in, clips[2:])
    second.merge(first)
    (found,) = second.compute_against(kept)
    assert found.n == 6
    assert (found.value, found.low) == pytest.approx((expected.value, expected.low), rel=1e-6)
    with pytest.raises(ValueError, match="measure again"):
        kept.load(tmp_path / "real.npz", "benchmark 2")


def test_what_two_networks_saw_is_never_put_together():
    published, other = Fid("published"), Fid("published", "torch-fidelity")
    with pytest.raises(ValueError, match="preprocessing: pytorch-fid and torch-fidelity"):
        published.compute_against(other)
    with pytest.raises(ValueError, match="name: fid and fd-efficientnet-lite0"):
        published.merge(Fid("stand-in"))


def test_the_network_looks_on_the_device_that_is_asked_for():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    metric = Fid("stand-in")
    metric.setup()
    clip = portrait_clip("a", 5, seed=0)
    cpu = Fid("stand-in", device="cpu")
    cpu.setup()
    found, expected = (each.measure(clip).arrays["features"] for each in (metric, cpu))
    np.testing.assert_allclose(found, expected, atol=1e-3)
