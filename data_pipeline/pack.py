"""pack: ledger + policy -> shards, manifest and version. Nothing is measured here.

    listing + records -> one table of measurements -> policy.decide -> shards in order of clip_id
    -> manifest/{version}/part-*.parquet -> versions/{n}.json -> dataset.json, swapped last

The same ledger and policy give the same bytes. Until `dataset.json` is swapped, readers see the
version before; a pack that died, or found the disk full, leaves files that no version names.
"""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline import policy, weights
from data_pipeline.clip import COUNTED_REASONS, Reason
from data_pipeline.config import CurationConfig
from data_pipeline.dataset import MANIFEST, SCHEMA_VERSION, Dataset, Version, commit
from data_pipeline.ledger import MEASUREMENTS, MEDIA, Ledger, Record, listing_path
from data_pipeline.shards import Place, file_sha256, read_sample, write_shards

ROWS_PER_PART = 100_000
READERS = 8


class PackError(Exception):
    """A dataset that could not be packed; the version before is untouched."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a pack made."""

    version: int
    changed: bool
    """False: what is measured and the policy give the version that was there."""
    clips: pa.Table
    """The manifest's rows, with `thumbnail`."""
    stage_seconds: dict[str, float]
    source_hours: float
    error_fraction: float
    """Share of sources that failed for reasons of ours: storage, time-outs, failed stages."""


def pack(config: CurationConfig) -> Packed:
    """Make the dataset's next version from what is measured; the present one if nothing differs.

    Raises PackError if the files cannot be written, or a kept clip's media are nowhere.
    """
    root = Path(config.output)
    try:
        return _pack(root, config)
    except OSError as error:
        raise PackError(
            f"{root}: cannot be packed: {error.strerror} ({error.filename}). Nothing is lost: the current "
            "version is as it was, and the same command goes on from what is measured"
        ) from error


def _pack(root: Path, config: CurationConfig) -> Packed:
    ledger = Ledger(root, config.measure_sha256())
    rows, records = measured_rows(ledger, pq.ParquetFile(listing_path(root)).read())
    rows = policy.decide(rows, config.filters)
    kept = rows.filter(pc.equal(rows["status"], "kept"))
    before = Dataset.open(root) if (root / "dataset.json").exists() else None
    digests, places = _write_samples(
        root, kept, _Media(ledger, root, before.versions() if before else []), config
    )
    manifest = _manifest(rows, places, config.policy_sha256())
    version, changed = _commit(root, config, manifest, digests, before)
    if not config.pack.keep_measured:
        _drop_media(ledger, kept)
    return Packed(
        version=version,
        changed=changed,
        clips=manifest.append_column("thumbnail", rows["thumbnail"]),
        stage_seconds=_stage_seconds(records),
        source_hours=sum(record.duration_s for record in records) / 3600,
        error_fraction=_error_fraction(rows),
    )


def measured_rows(ledger: Ledger, listing: pa.Table) -> tuple[pa.Table, list[Record]]:
    """A row for every clip and for every source that gave none, joined with what the listing says."""
    by_content: dict[tuple[str, str], list[dict[str, Any]]] = {}
    unread = []
    for row in listing.to_pylist():
        if row["source_sha256"] is None:
            unread.append(row)
        else:
            by_content.setdefault((row["source_sha256"], row["window"]), []).append(row)
    contents = sorted(by_content)
    with ThreadPoolExecutor(READERS) as pool:
        records = list(pool.map(lambda content: ledger.record(*content), contents))
        measured = [record for record in records if record is not None]
        found = list(pool.map(ledger.measurements, measured))
    for content, record in zip(contents, records, strict=True):
        if record is None:
            unread += [row | NO_RECORD for row in by_content[content]]
    tables = [_unread_rows(unread, ledger.measure_sha256)]
    for record, rows in zip(measured, found, strict=True):
        tables.append(_with_listing(rows, by_content[record.source_sha256, record.window]))
    rows = pa.concat_tables(tables)
    rows = rows.sort_by([(name, "ascending") for name in ("clip_id", "source_sha256", "first_uri")])
    return _without_repeats(rows.drop_columns("first_uri")), measured


NO_RECORD = {
    "reason": Reason.STORAGE.value,
    "error": "no record of this source could be written; `hallo3 curate` measures it again",
}


def _without_repeats(rows: pa.Table) -> pa.Table:
    """One row a clip: two windows of a list may hold the same range of the same source."""
    seen: set[str] = set()
    new = []
    for clip_id in rows["clip_id"].to_pylist():
        new.append(clip_id is None or clip_id not in seen)
        seen.add(clip_id)
    return rows.filter(pa.array(new, pa.bool_()))


LISTED = pa.schema(
    [
        ("source_uris", pa.list_(pa.string())),
        ("source_licence", pa.string()),
        ("speaker", pa.string()),
        ("first_uri", pa.string()),
    ]
)


def _with_listing(rows: pa.Table, listed: list[dict[str, Any]]) -> pa.Table:
    """Byte-identical files are one source with several names; where they differ the first one counts."""
    listed = sorted(listed, key=lambda row: row["uri"])
    facts = {
        "source_uris": [row["uri"] for row in listed],
        "source_licence": _first(listed, "licence"),
        "speaker": _first(listed, "speaker"),
        "first_uri": listed[0]["uri"],
    }
    for column in LISTED:
        rows = rows.append_column(column, pa.array([facts[column.name]] * rows.num_rows, column.type))
    caption = _first(listed, "caption")
    if caption is None:
        return rows
    given = pc.if_else(pc.is_valid(rows["clip_id"]), caption, pa.scalar(None, pa.string()))
    return rows.set_column(rows.schema.get_field_index("caption"), "caption", given)


def _first(listed: list[dict[str, Any]], key: str) -> Any:
    return next((row[key] for row in listed if row[key] is not None), None)


def _unread_rows(unread: list[dict[str, Any]], measure_sha256: str) -> pa.Table:
    """Sources that could not even be read have no content, so no record: the listing knows them."""
    rows = [
        {
            "stage_reasons": [row["reason"]],
            "error": row["error"],
            "complete": False,
            "has_media": False,
            "measure_sha256": measure_sha256,
            "source_uris": [row["uri"]],
            "source_licence": row["licence"],
            "speaker": row["speaker"],
            "first_uri": row["uri"],
        }
        for row in unread
    ]
    return pa.Table.from_pylist(rows, pa.schema([*MEASUREMENTS, *LISTED]))


def _write_samples(
    root: Path, kept: pa.Table, media: "_Media", config: CurationConfig
) -> tuple[dict[str, str], dict[str, Place]]:
    digests: dict[str, str] = {}
    places: dict[str, Place] = {}
    for split in sorted(set(kept["split"].to_pylist())):
        rows = kept.filter(pc.equal(kept["split"], split)).drop_columns("thumbnail").to_pylist()
        shards, held = write_shards(root / "shards", split, rows, media, config.pack.shard_mb * 1e6)
        digests |= shards
        places |= held
    return digests, places


class _Media:
    """A kept clip's media: beside its measurements, or in a shard of an earlier version."""

    def __init__(self, ledger: Ledger, root: Path, versions: list[int]) -> None:
        self.ledger = ledger
        self.shards = root / "shards"
        self.places: dict[str, Place] = {}
        for number in versions:
            self.places |= Dataset.open(root, number).places()

    def size(self, sample: Mapping[str, Any]) -> int:
        try:
            return sum(self._path(sample, suffix).stat().st_size for suffix in MEDIA)
        except FileNotFoundError:
            return self._place(sample).size

    def read(self, sample: Mapping[str, Any]) -> dict[str, bytes]:
        try:
            return {suffix: self._path(sample, suffix).read_bytes() for suffix in MEDIA}
        except FileNotFoundError:
            members = read_sample(self.shards, self._place(sample))
            return {suffix: members[sample["clip_id"] + suffix] for suffix in MEDIA}

    def _path(self, sample: Mapping[str, Any], suffix: str) -> Path:
        return self.ledger.folder(sample["source_sha256"]) / (sample["clip_id"] + suffix)

    def _place(self, sample: Mapping[str, Any]) -> Place:
        place = self.places.get(sample["clip_id"])
        if place is None:
            raise PackError(
                f"clip {sample['clip_id']} of {sample['source_uris'][0]}: its media are neither in measured/ "
                f"nor in a shard; delete {self._path(sample, '').parent} and run `hallo3 curate` again"
            )
        return place


def _manifest(rows: pa.Table, places: dict[str, Place], policy_sha256: str) -> pa.Table:
    held = [places.get(clip_id) for clip_id in rows["clip_id"].to_pylist()]
    columns = {
        "shard": [place and place.shard for place in held],
        "byte_offset": [place and place.offset for place in held],
        "byte_size": [place and place.size for place in held],
        "policy_sha256": [policy_sha256] * rows.num_rows,
    }
    arrays = []
    for column in MANIFEST:
        if column.name in columns:
            arrays.append(pa.chunked_array([pa.array(columns[column.name], column.type)]))
        elif column.name in rows.schema.names:
            arrays.append(rows[column.name])
        else:
            arrays.append(pa.chunked_array([pa.nulls(rows.num_rows, column.type)]))
    return pa.Table.from_arrays(arrays, schema=MANIFEST)


def _commit(
    root: Path, config: CurationConfig, manifest: pa.Table, shards: dict[str, str], before: Dataset | None
) -> tuple[int, bool]:
    number = before.versions()[-1] + 1 if before else 1
    folder = root / "manifest" / str(number)
    shutil.rmtree(folder, ignore_errors=True)  # of a pack that died before its version was named
    folder.mkdir(parents=True)
    parts = {}
    for index, start in enumerate(range(0, max(manifest.num_rows, 1), ROWS_PER_PART)):
        path = folder / f"part-{index:05d}.parquet"
        pq.write_table(manifest.slice(start, ROWS_PER_PART), path)
        parts[path.relative_to(root).as_posix()] = file_sha256(path)
    version = Version(
        version=number,
        schema_version=SCHEMA_VERSION,
        package_version=package_version("hallo3"),
        measure_sha256=config.measure_sha256(),
        policy_sha256=config.policy_sha256(),
        manifest_sha256=parts,
        shards=shards,
        weights=weights.digests_of_backends(config),
        config=config.model_dump(mode="json"),
    )
    if before and before.version.same_content(version):
        shutil.rmtree(folder)
        return before.version.version, False
    commit(root, config.name, version)
    return number, True


def _drop_media(ledger: Ledger, kept: pa.Table) -> None:
    """What the shards hold now need not be stored twice."""
    for sha256, clip_id in zip(kept["source_sha256"].to_pylist(), kept["clip_id"].to_pylist(), strict=True):
        for suffix in MEDIA:
            (ledger.folder(sha256) / (clip_id + suffix)).unlink(missing_ok=True)


def _stage_seconds(records: list[Record]) -> dict[str, float]:
    total: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.stage_seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def _error_fraction(rows: pa.Table) -> float:
    failed, sources = set(), set()
    columns = (rows[name].to_pylist() for name in ("source_sha256", "source_uris", "reason"))
    for sha256, uris, reason in zip(*columns, strict=True):
        source = sha256 or uris[0]
        sources.add(source)
        if reason in COUNTED_REASONS:
            failed.add(source)
    return len(failed) / max(len(sources), 1)
