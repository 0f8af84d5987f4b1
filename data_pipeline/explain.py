"""explain: the story of one clip or one source, from the listing to the shard, in lines of text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline import policy
from data_pipeline.config import CurationConfig
from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.ledger import Ledger


def explain(dataset: Dataset, name: str) -> Iterator[str]:
    """What is known of `name`: a clip_id, a source's path, its file name or its sha256 (or beginnings).

    Raises DatasetError where nothing is called so.
    """
    rows = [row for row in dataset.manifest().to_pylist() if _is_called(row, name)]
    if not rows:
        raise DatasetError(f"{dataset.root}: version {dataset.version.version} knows nothing called {name!r}")
    config = CurationConfig.model_validate(dataset.version.config)
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_source.setdefault(row["source_sha256"] or row["source_uris"][0], []).append(row)
    for own in by_source.values():
        yield from _source(dataset, own[0])
        for row in own:
            yield from _clip(row, config)


def _is_called(row: dict[str, Any], name: str) -> bool:
    if len(name) >= 6 and any((row[key] or "").startswith(name) for key in ("clip_id", "source_sha256")):
        return True
    return any(
        uri == name or Path(uri).name == name or uri == str(Path(name).absolute())
        for uri in row["source_uris"]
    )


def _source(dataset: Dataset, row: dict[str, Any]) -> Iterator[str]:
    yield f"source {' = '.join(row['source_uris'])}"
    if row["source_sha256"] is None:
        return
    yield f"  sha256 {row['source_sha256']}"
    if row["source_width"]:
        yield f"  {row['source_width']} x {row['source_height']} at {row['source_fps']:.5g} fps"
    record = Ledger(dataset.root, row["measure_sha256"]).record(row["source_sha256"])
    if record is not None:
        spent = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in record.stage_seconds.items())
        yield f"  measured under {row['measure_sha256'][:12]}: {len(record.clip_ids)} clips; {spent}"


def _clip(row: dict[str, Any], config: CurationConfig) -> Iterator[str]:
    if row["clip_id"] is None:
        yield f"  gave no clip: {_verdict(row)}"
    else:
        yield f"  clip {row['clip_id']}, {row['start_s']:.3f} to {row['end_s']:.3f} s: {_verdict(row)}"
    if row["error"]:
        yield f"    {row['error']}"
    if row["duplicate_of"]:
        yield f"    the same take as clip {row['duplicate_of']}, which is the better one"
    for threshold in policy.thresholds(config.filters, row["sync_backend"] or config.sync.backend):
        yield from _rule(row[threshold.column], threshold)
    if row["clip_id"] and not row["complete"]:
        yield "    not measured further: a rule had stopped it (measure_all=true goes on)"
    if row["transcript"]:
        yield f"    says: {row['transcript']}"
    if row["shard"]:
        place = f"shards/{row['shard']}, {row['byte_size']} bytes from {row['byte_offset']}"
        yield f"    in {place}, split {row['split']}"


def _verdict(row: dict[str, Any]) -> str:
    if row["status"] == "kept":
        return "kept"
    return f"{row['status']}, {', '.join(row['reasons'])}"


def _rule(value: float | None, threshold: policy.Threshold) -> Iterator[str]:
    if value is None or threshold.value is None:
        return
    against = value < threshold.value if threshold.bound == "min" else value > threshold.value
    sign = "at least" if threshold.bound == "min" else "at most"
    mark = f"<- {threshold.reason}" if against else ""
    measured = f"{threshold.label:<28} {value:>10.4g} {threshold.unit:<5}"
    yield f"    {measured} {sign} {threshold.value:g} {mark}".rstrip()
