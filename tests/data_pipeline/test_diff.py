import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.cli import main
from data_pipeline.dataset import MANIFEST, Dataset, Version, commit
from data_pipeline.diff import diff, lines_of_diff
from data_pipeline.ledger import conformed
from data_pipeline.tally import hours_of
from tests.data_pipeline.manifests import manifest


def write_version(root: Path, number: int, rows: pa.Table, **differences) -> Dataset:
    """A version that consists of a manifest only."""
    path = root / "manifest" / str(number) / "part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(conformed(rows, MANIFEST), path)
    facts = {
        "version": number,
        "schema_version": 2,
        "package_version": "1",
        "measure_sha256": "m",
        "policy_sha256": "p",
        "manifest_sha256": {f"manifest/{number}/part-00000.parquet": hashlib.sha256(b"").hexdigest()},
        "shards": {},
        "weights": {},
        "config": {"filters": {"min_snr_db": 8.0}, "output": str(root)},
    }
    commit(root, "made", Version(**(facts | differences)))
    return Dataset.open(root)


def with_column(rows: pa.Table, name: str, values: list) -> pa.Table:
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))


ROWS = conformed(manifest(200), MANIFEST)


def test_a_version_does_not_differ_from_itself(tmp_path) -> None:
    dataset = write_version(tmp_path, 1, ROWS)
    found = diff(dataset, dataset)
    assert not found
    assert list(lines_of_diff(found))[-1] == "nothing differs"


def test_what_came_what_went_and_what_became_otherwise(tmp_path) -> None:
    old = write_version(tmp_path, 1, ROWS.slice(0, 150))
    after = ROWS.slice(10)
    kept = [row["status"] == "kept" for row in after.to_pylist()]
    first = kept.index(True)
    reasons, status, split = (after[name].to_pylist() for name in ("reason", "status", "split"))
    reasons[first], status[first], split[first] = "duplicate", "rejected", None
    new = with_column(after, "reason", reasons)
    new = with_column(with_column(new, "status", status), "split", split)
    found = diff(old, write_version(tmp_path, 2, new))
    assert sum(move.clips for move in found.removed) == 10
    assert sum(move.clips for move in found.added) == ROWS.num_rows - 150
    (move,) = found.outcomes
    assert (move.before, move.after, move.clips) == ("kept", "duplicate", 1)
    assert move.example == after["clip_id"][first].as_py()
    assert move.hours == pytest.approx(hours_of(after.slice(first, 1)), abs=1e-6)
    said = "\n".join(lines_of_diff(found))
    assert f"kept -> duplicate: 1 ({move.hours * 60:.1f} min), e.g. {move.example}" in said


def test_measurements_media_splits_and_settings(tmp_path) -> None:
    is_kept = [row["status"] == "kept" for row in ROWS.to_pylist()]
    frames = with_column(ROWS, "n_frames", [100] * ROWS.num_rows)
    old = write_version(tmp_path, 1, frames)
    moved = [
        "val" if kept and index == is_kept.index(True) else ("train" if kept else None)
        for index, kept in enumerate(is_kept)
    ]
    snr = [None if value is None else value + 0.5 for value in ROWS["snr_db"].to_pylist()]
    new = with_column(with_column(frames, "split", moved), "snr_db", snr)
    settings = {"config": {"filters": {"min_snr_db": 4.0}, "output": "elsewhere"}, "tombstones": ["a:b"]}
    found = diff(old, write_version(tmp_path, 2, new, **settings))
    (change,) = found.measurements
    assert change.column == "snr_db"
    assert change.clips == sum(value is not None for value in snr)
    assert change.median == pytest.approx(0.5)
    assert [(move.before, move.after, move.clips) for move in found.splits] == [("train", "val", 1)]
    assert [asdict(setting) for setting in found.settings] == [
        {"key": "filters.min_snr_db", "before": 8.0, "after": 4.0}
    ]
    assert found.tombstones_added == 1
    assert "setting       filters.min_snr_db: 8.0 -> 4.0" in "\n".join(lines_of_diff(found))


def test_a_kept_clip_that_was_encoded_otherwise_is_counted(tmp_path) -> None:
    old = write_version(tmp_path, 1, with_column(ROWS, "n_frames", [100] * ROWS.num_rows))
    found = diff(old, write_version(tmp_path, 2, with_column(ROWS, "n_frames", [101] * ROWS.num_rows)))
    assert found.encoded_otherwise == found.after.kept > 0


def test_the_command_takes_two_versions_or_two_datasets(tmp_path, capsys) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_version(one, 1, ROWS.slice(0, 100))
    assert main(["dataset", "diff", str(one)]) == 1
    assert "version 1 has no version before it" in capsys.readouterr().err
    write_version(one, 2, ROWS)
    write_version(other, 1, ROWS.slice(0, 100))
    assert main(["dataset", "diff", str(one)]) == 0
    assert f"from  {one} version 1" in capsys.readouterr().out
    assert main(["dataset", "diff", str(one), str(other), "--from", "1"]) == 0
    assert "nothing differs" in capsys.readouterr().out
    assert main(["dataset", "diff", str(one), "--from", "2", "--to", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(move["clips"] for move in told["removed"]) == ROWS.num_rows - 100
    assert main(["dataset", "diff", str(one), "--to", "9"]) == 1
    assert "has no version 9" in capsys.readouterr().err


def test_rows_without_a_clip_are_paired_by_content_or_name(tmp_path) -> None:
    sources = ROWS.filter(pa.array(np.array([x is None for x in ROWS["clip_id"].to_pylist()])))
    old = write_version(tmp_path, 1, sources)
    found = diff(old, write_version(tmp_path, 2, sources.slice(1)))
    assert (sum(move.clips for move in found.removed), found.added) == (1, [])
