"""A SyncNet of one's own in a curation: `sync.syncnet.weights` is used as it is, and counts by its bytes.

The published file cannot be had everywhere; filled weights have its shapes and know nothing of lips.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="SyncNet needs torch")

import torch

from data_pipeline import weights
from data_pipeline.config import CurationConfig, load_config
from data_pipeline.config_file import ConfigError
from data_pipeline.curate import prepare
from data_pipeline.dataset import Dataset
from data_pipeline.demo import make_sources
from data_pipeline.models.syncnet import SyncNet
from data_pipeline.verify import verify
from tests.cluster.test_curation import hallo3
from tests.filled import fill


@pytest.fixture(scope="module")
def network_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "tuned.model"
    torch.save(fill(SyncNet(), gain=2**0.5).state_dict(), path)
    return path


def curation(path: Path | str | None, backend: str = "syncnet", sources: str = "in") -> CurationConfig:
    given = [] if path is None else [f"sync.syncnet.weights={path}"]
    return load_config(
        "talking_head", [f"sources={sources}", "output=out", f"sync.backend={backend}", *given]
    )


def test_what_is_in_the_file_counts_and_not_where_it_lies(tmp_path) -> None:
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (curation(tmp_path / name).measure_sha256() for name in "abc")
    published = curation(None).measure_sha256()
    assert a == b
    assert len({a, c, published}) == 3


def test_the_embedded_measure_does_not_care_for_it() -> None:
    embedded = curation("/not/there", "lip_correlation")
    assert embedded.measure_sha256() == curation(None, "lip_correlation").measure_sha256()


def test_the_published_file_is_not_asked_for_where_there_is_one_of_ones_own(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert "syncnet_v2" in weights.digests_of_backends(curation(None))
    assert "syncnet_v2" not in weights.digests_of_backends(curation(tmp_path / "a"))
    assert "decoy-speech" in weights.digests_of_backends(curation(tmp_path / "a"))


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'tuned\.model' with its absolute path"):
        curation("tuned.model")


def test_a_file_that_is_missing_or_no_syncnet_is_named_before_anything_starts(tmp_path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(weights.WeightsUnavailable, match=f"no file {tmp_path / 'gone'}"):
        prepare(curation(tmp_path / "gone", sources=str(tmp_path / "videos")))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(
        weights.WeightsUnavailable, match=r"sync\.syncnet\.weights: .*not the state dict of SyncNet"
    ):
        prepare(curation(tmp_path / "other", sources=str(tmp_path / "videos")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dataset_is_curated_with_it_on_real_ray(network_file, tmp_path) -> None:
    make_sources(tmp_path / "videos", only=["upright.mov", "slightly_late.mp4"])
    off = [f"filters.{key}=null" for key in ("min_sync_confidence", "max_sync_offset_frames")]
    given = [f"sources={tmp_path / 'videos'}", f"output={tmp_path / 'dataset'}", "sync.backend=syncnet"]
    done = hallo3("curate", "demo", *given, f"sync.syncnet.weights={network_file}", *off)
    assert done.returncode == 0, done.stderr
    dataset = Dataset.open(tmp_path / "dataset")
    rows = dataset.manifest().to_pylist()
    assert [row["status"] for row in rows] == ["kept", "kept"]
    for row in rows:
        assert row["sync_backend"] == "syncnet:tuned.model"
        assert abs(row["sync_offset_frames"]) <= 15
        assert row["sync_confidence"] >= 0
        assert row["sync_distance"] > 0
        assert np.isfinite([row[f"sync_{name}"] for name in ("confidence", "distance", "margin")]).all()
    assert list(verify(dataset)) == []
