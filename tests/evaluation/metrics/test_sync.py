"""Sync-C and Sync-D of a clip: the reference's figures, and these names for the published network only."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline import weights
from data_pipeline.config import SyncConfig, SyncNetConfig
from data_pipeline.models.syncnet import SyncNet, sync_score
from data_pipeline.models.syncnet_scorer import SyncNetScorer
from data_pipeline.weights import WeightsUnavailable
from evaluation.metrics.lip_sync import LipSync
from evaluation.metrics.metric import CannotScore, Found, SeenClip
from evaluation.metrics.sync import Sync, sync_metric
from tests.evaluation.metrics.seen import seen_clip
from tests.filled import fill, golden, golden_facts

WHOLE = (32, 0, 192, 160)  # whose square is just a frame of 224 x 224


@pytest.fixture(scope="module")
def network() -> SyncNet:
    """Filled as the recorded one was."""
    return fill(SyncNet(), gain=2**0.5)


@pytest.fixture(scope="module")
def own(network, tmp_path_factory) -> SyncConfig:
    path = tmp_path_factory.mktemp("network") / "filled.model"
    torch.save(network.state_dict(), path)
    return SyncConfig(backend="syncnet", syncnet=SyncNetConfig(weights=str(path)))


@pytest.fixture(scope="module")
def sync(own) -> Sync:
    metric = Sync(own)
    metric.setup()
    return metric


def recorded(**other: object) -> SeenClip:
    """The recorded clip; its frames are stored blue first."""
    stored = golden("syncnet/evaluate")
    frames = stored["frames_small_uint8"].repeat(16, axis=1).repeat(16, axis=2)[..., ::-1]
    return seen_clip(frames, WHOLE, **{"sound": stored["wav_int16"]} | other)


@pytest.fixture(scope="module")
def found(sync) -> Found:
    """The recorded clip, with its own sound and a shorter one as other speech."""
    return sync.measure(recorded(decoys=[recorded().sound, other_speech()]))


def other_speech() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3000, 8000).astype(np.int16)


def test_a_clip_has_the_references_figures(sync, found) -> None:
    facts, dists = golden_facts("syncnet/evaluate"), golden("syncnet/evaluate")["dists"]
    c, d, offset, _ = sync.names
    assert found.values[c] == pytest.approx(facts["confidence"], rel=1e-4)
    assert found.values[d] == pytest.approx(facts["min_distance"], rel=1e-5)
    assert found.values[offset] == facts["offset"]
    np.testing.assert_allclose(found.arrays["sync_curve"], dists.mean(axis=0), rtol=1e-5)
    assert found.arrays["sync_shifts"][found.arrays["sync_curve"].argmin()] == facts["offset"]


def test_the_margin_is_over_the_mean_of_the_decoys_which_are_repeated_where_short(
    network, sync, found
) -> None:
    stored = golden("syncnet/evaluate")
    scorer = SyncNetScorer(network, other_speech(), torch.get_num_threads())
    repeated = np.resize(other_speech(), len(stored["wav_int16"]))
    heard = scorer.audio_features(repeated, len(stored["video_features"]))
    decoy = sync_score(stored["video_features"], heard).confidence
    c, margin = found.values[sync.names[0]], found.values[sync.names[3]]
    assert margin == pytest.approx(c - (c + decoy) / 2, rel=1e-3)
    assert abs(margin) > 0.1


def test_only_the_published_network_gives_sync_c_and_sync_d(own) -> None:
    published = Sync(SyncConfig(backend="syncnet"))
    assert published.names == ("sync_c", "sync_d", "sync_offset", "sync_margin")
    (file,) = weights.registry()["syncnet_v2"].files
    assert published.protocol["sha256"] == file.sha256
    digest = weights.digest_of_file(Path(str(own.syncnet.weights)))
    assert Sync(own).names == tuple(f"{name}-{digest[:8]}" for name in published.names)
    assert Sync(own).protocol["sha256"] == digest


def test_without_it_nothing_is_called_sync_c() -> None:
    embedded = sync_metric(SyncConfig())
    assert isinstance(embedded, LipSync)
    assert all(name.startswith("lip_correlation") for name in embedded.names)
    assert isinstance(sync_metric(SyncConfig(backend="syncnet")), Sync)


def test_weights_that_are_not_here_are_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailable, match="weights pull syncnet_v2"):
        Sync(SyncConfig(backend="syncnet")).setup()
    with pytest.raises(WeightsUnavailable, match="no file /not/there"):
        Sync(SyncConfig(backend="syncnet", syncnet=SyncNetConfig(weights="/not/there")))


def test_a_clip_without_sound_is_not_scored(sync) -> None:
    with pytest.raises(CannotScore, match="has no sound"):
        sync.measure(recorded(sound=None))
