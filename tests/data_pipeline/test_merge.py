import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.cli import main
from data_pipeline.dataset import Dataset
from data_pipeline.labels import LABELS
from data_pipeline.merge import MergeError, merge
from data_pipeline.pack import pack
from data_pipeline.verify import verify
from tests.data_pipeline.leaks import Traces, leaks
from tests.data_pipeline.packed import add_source, config_of, encoded, sha256_of, write_listing

ANN, BEN, CLEO = 1, 2, 3


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("media")
    return {person: encoded(folder / str(person), person) for person in (ANN, BEN, CLEO)}


@pytest.fixture
def two(tmp_path, media) -> tuple[Path, Path]:
    """Ann and Ben; Ben and Cleo. Ben's source is in both, and was measured further in the second one."""
    one, other = tmp_path / "one", tmp_path / "other"
    half = {"person": BEN, "snr_db": 7.0, "has_media": False, "complete": False}
    add_source(one, media, "ann.mp4", {"person": ANN}, {"person": ANN, "yaw_deg_p95": 35.0})
    add_source(one, media, "ben.mp4", half)
    write_listing(one, "ann.mp4", "ben.mp4", "gone.mp4", gone={"source_sha256": None, "reason": "missing"})
    pack(config_of(one))
    pack(config_of(one, "filters.max_yaw_deg=30"))  # Ann's second clip is in version 1's shards only
    add_source(other, media, "ben.mp4", {"person": BEN, "snr_db": 7.0})
    add_source(other, media, "cleo.mp4", {"person": CLEO})
    write_listing(
        other, "cleo.mp4", "ben again.mp4", **{"ben again": {"source_sha256": sha256_of("ben.mp4")}}
    )
    pack(config_of(other, "filters.min_snr_db=5"))
    return one, other


def kept(root: Path) -> set[str]:
    rows = Dataset.open(root).manifest().to_pylist()
    return {Path(row["source_uris"][0]).stem for row in rows if row["status"] == "kept"}


def united(tmp_path: Path, *roots: Path, overrides: tuple[str, ...] = ()) -> Path:
    merge([Dataset.open(root) for root in roots], str(tmp_path / "merged"), overrides)
    return tmp_path / "merged"


def test_a_merged_dataset_is_whole_without_the_others_and_can_be_curated_further(tmp_path, two) -> None:
    root = united(tmp_path, *two)
    shutil.rmtree(two[0])
    shutil.rmtree(two[1])
    assert kept(root) == {"ann", "cleo"}  # under the first one's rules Ben is too noisy
    assert list(verify(Dataset.open(root))) == []
    pack(config_of(root, "filters.min_snr_db=5"))  # their media came along
    assert kept(root) == {"ann", "ben again", "cleo"}
    assert len(Dataset.open(root).places()) == 4
    assert list(verify(Dataset.open(root))) == []


def test_a_source_in_both_is_one_with_all_its_names(tmp_path, two) -> None:
    merged = merge([Dataset.open(root) for root in two], str(tmp_path / "merged"))
    assert merged.shared_sources == 1
    rows = Dataset.open(tmp_path / "merged").manifest().to_pylist()
    (ben,) = [row for row in rows if row["source_sha256"] == sha256_of("ben.mp4")]
    assert ben["source_uris"] == ["/videos/ben again.mp4", "/videos/ben.mp4"]
    assert ben["complete"]
    assert {(x.key, x.before, x.after) for x in merged.other_policies} >= {("filters.min_snr_db", 8.0, 5.0)}


def test_the_order_of_the_datasets_changes_no_sample(tmp_path, two) -> None:
    rules = ("filters.min_snr_db=5", "filters.max_yaw_deg=40")
    merge([Dataset.open(root) for root in two], str(tmp_path / "ab"), rules)
    merge([Dataset.open(root) for root in reversed(two)], str(tmp_path / "ba"), rules)
    one, other = (Dataset.open(tmp_path / name) for name in ("ab", "ba"))
    assert one.version.shards == other.version.shards
    assert one.manifest().equals(other.manifest())


def test_what_was_purged_from_one_is_purged_from_all(tmp_path, two) -> None:
    assert main(["dataset", "purge", str(two[0]), "--source", "/videos/ben.mp4", "--yes"]) == 0
    root = united(tmp_path, *two, overrides=("filters.min_snr_db=0",))
    assert kept(root) == {"ann", "cleo"}
    assert Dataset.open(root).version.tombstones == Dataset.open(two[0]).version.tombstones
    trace = Traces([sha256_of("ben.mp4"), "/videos/ben.mp4", "ben again"], [], np.full(128, 9.0))
    assert leaks(root, trace) == []


def test_labels_are_united_and_the_later_dataset_counts(tmp_path, two) -> None:
    (cleo,) = [
        row["clip_id"]
        for row in Dataset.open(two[1]).manifest().to_pylist()
        if row["source_sha256"] == sha256_of("cleo.mp4")
    ]
    for root, label in zip(two, ("keep", "drop"), strict=True):
        words = pa.Table.from_pylist([{"clip_id": cleo, "label": label}], LABELS)
        dataset = Dataset.open(root)
        pack(
            config_of(root, f"filters.min_snr_db={dataset.version.config['filters']['min_snr_db']}"),
            labels=words,
        )
    root = united(tmp_path, *two)
    assert kept(root) == {"ann"}


def test_datasets_that_were_measured_otherwise_are_refused_and_the_difference_is_named(
    tmp_path, two, capsys
) -> None:
    third = tmp_path / "third"
    write_listing(third)
    pack(config_of(third, "encode.crf=30"))
    with pytest.raises(MergeError, match=r"were not measured alike.*encode.crf: 18 and 30"):
        united(tmp_path, two[0], third)
    assert main(["dataset", "merge", *map(str, two), "--output", str(two[0])]) == 1
    assert "is a dataset already" in capsys.readouterr().err
    assert (
        main(["dataset", "merge", *map(str, two), "--output", str(tmp_path / "m"), "--set", "filters.x=1"])
        == 2
    )
    assert "filters.x: unknown key" in capsys.readouterr().err


def test_a_merge_that_died_is_done_by_the_same_command(tmp_path, two, monkeypatch) -> None:
    def died(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_pipeline.pack.commit", died)
    with pytest.raises(KeyboardInterrupt):
        united(tmp_path, *two)
    monkeypatch.undo()
    assert main(["dataset", "merge", *map(str, two), "--output", str(tmp_path / "merged")]) == 0
    assert kept(tmp_path / "merged") == {"ann", "cleo"}


@pytest.mark.slow
def test_a_dataset_on_a_disk_and_one_in_a_store_become_one_in_the_store(tmp_path, two, store) -> None:
    for path in sorted(path for path in two[1].rglob("*") if path.is_file()):
        store.put(f"other/{path.relative_to(two[1])}", path.read_bytes())
    merged = f"{store.root}/merged"
    merge([Dataset.open(two[0]), Dataset.open(f"{store.root}/other")], merged)
    local = united(tmp_path, *two)
    assert Dataset.open(merged).version.shards == Dataset.open(local).version.shards
    assert Dataset.open(merged).manifest().equals(Dataset.open(local).manifest())
    assert list(verify(Dataset.open(merged))) == []
