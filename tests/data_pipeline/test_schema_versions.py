"""A dataset that the version before this one wrote: `tests/golden/dataset_v1`, of commit 6c9895a."""

import shutil
from pathlib import Path

import pytest

from cluster.cli import main
from data_pipeline.dataset import MANIFEST, Dataset
from data_pipeline.refilter import apply, preview, with_filters
from data_pipeline.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden" / "dataset_v1"
CLIP = "cf411efd7134d541"


@pytest.fixture
def root(tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "dataset"))


def test_its_manifest_has_all_columns_and_what_it_did_not_know_is_null() -> None:
    dataset = Dataset.open(GOLDEN)
    rows = dataset.manifest()
    assert dataset.version.schema_version == 1
    assert rows.schema == MANIFEST
    assert rows["duplicate_group"].null_count == rows.num_rows == 3
    assert dataset.manifest(["clip_id", "duplicate_group"]).num_rows == 3
    assert rows["snr_db"].null_count == 1
    assert {*dataset.places()} == {CLIP}


def test_it_is_whole_and_its_sample_is_read() -> None:
    dataset = Dataset.open(GOLDEN)
    assert list(verify(dataset)) == []
    assert {*dataset.sample_of(CLIP)} == {
        CLIP + suffix for suffix in (".mp4", ".flac", ".npz", ".json", ".txt")
    }


def test_other_thresholds_make_a_version_of_this_schema_of_it(root, capsys) -> None:
    dataset = Dataset.open(root)
    config = with_filters(dataset, ["filters.min_snr_db=30"])
    assert preview(dataset, config).newly_rejected == {"noisy": 1}
    assert apply(dataset, config, frozenset()).version == 2
    assert Dataset.open(root).version.schema_version == 2
    assert main(["dataset", "diff", str(root)]) == 0
    assert "outcome       kept -> noisy: 1" in capsys.readouterr().out


def test_something_can_be_purged_from_it(root) -> None:
    assert main(["dataset", "purge", str(root), "--source", "/videos/a.mp4", "--yes"]) == 0
    dataset = Dataset.open(root)
    assert (dataset.versions(), dataset.manifest().num_rows) == ([2], 1)
    assert b"/videos/a.mp4" not in b"".join(path.read_bytes() for path in root.rglob("*.*") if path.is_file())
