"""pack: ledger + policy -> shards, manifest and version. Nothing is measured here.

    listing + records -> one table of measurements -> duplicates -> policy.decide
    -> identities and their splits -> shards in order of clip_id -> manifest/{version}/part-*.parquet
    -> identities/{version}.parquet -> versions/{n}.json -> dataset.json, swapped last

The same ledger and policy give the same bytes. Until `dataset.json` is swapped, readers see the
version before; a pack that died, or found the disk full, leaves files that no version names.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline import duplicates, policy, weights
from data_pipeline.clip import COUNTED_REASONS, Reason
from data_pipeline.config import CurationConfig, SplitsConfig
from data_pipeline.dataset import (
    MANIFEST,
    SCHEMA_VERSION,
    Dataset,
    Version,
    commit,
    identities_path,
    labels_path,
)
from data_pipeline.excluded_people import ExcludedPeopleError, excluded_people
from data_pipeline.identities import IdentitiesError, identify, only_with
from data_pipeline.labels import no_labels
from data_pipeline.ledger import MEASUREMENTS, MEDIA, Ledger, Record, listing_path
from data_pipeline.shards import Place, file_sha256, write_shards
from data_pipeline.splits import assign, with_splits
from data_pipeline.storage import Location, location, read_table, remove_tree, replacing
from data_pipeline.stored_media import MediaLost, StoredMedia
from data_pipeline.tombstones import Tombstones

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


def pack(
    config: CurationConfig,
    *,
    labels: pa.Table | None = None,
    tombstones: Sequence[str] = (),
    like: Version | None = None,
    lenders: Sequence[Dataset] = (),
) -> Packed:
    """Make the dataset's next version from what is measured; the present one if nothing differs.

    `labels` take the place of those of the version before, `tombstones` come on top of its. `like` is a
    version that was measured as this one is, for work that must not depend on the models that are here now.
    `lenders` are datasets whose media this one may take. Raises PackError if the files cannot be written,
    or a kept clip's media are nowhere.
    """
    root = location(config.output)
    try:
        return _pack(root, config, labels, tombstones, like, lenders)
    except (MediaLost, IdentitiesError, ExcludedPeopleError) as error:
        raise PackError(str(error)) from None
    except OSError as error:
        raise PackError(
            f"{root}: cannot be packed: {error.strerror} ({error.filename}). Nothing is lost: the current "
            "version is as it was, and the same command goes on from what is measured"
        ) from error


def _pack(
    root: Location,
    config: CurationConfig,
    labels: pa.Table | None,
    tombstones: Sequence[str],
    like: Version | None,
    lenders: Sequence[Dataset],
) -> Packed:
    before = Dataset.open(root) if (root / "dataset.json").exists() else None
    stones = Tombstones(before.version.tombstones if before else []).with_more(tombstones)
    if labels is None:
        labels = before.labels() if before else no_labels()
    ledger = Ledger(root, like.measure_sha256 if like else config.measure_sha256())
    rows, records = measured_rows(ledger, stones.listing_without(read_table(listing_path(root))))
    rows = duplicates.with_groups(stones.clips_without(rows), config.duplicates)
    rows = policy.decide(rows, config.filters, labels)
    first = before or (lenders[0] if lenders else None)
    forgets = first is not None and stones.entries != first.version.tombstones
    rows, identities = _with_people(rows, config, first, forgets, is_own=like is None)
    kept = rows.filter(pc.equal(rows["status"], "kept"))
    media = StoredMedia(ledger, [*lenders, *([before] if before else [])])
    digests, places = _write_samples(root, kept, media, config)
    if lenders:
        _take_over(rows, media)
    manifest = _manifest(rows, places, config.policy_sha256())
    made = Version(
        version=before.version.version + 1 if before else 1,
        schema_version=SCHEMA_VERSION,
        package_version=package_version("hallo3"),
        measure_sha256=ledger.measure_sha256,
        policy_sha256=config.policy_sha256(),
        manifest_sha256={},
        shards=digests,
        weights=like.weights if like else weights.digests_of_backends(config),
        config=config.model_dump(mode="json"),
        tombstones=stones.entries,
        labels_sha256=_store_labels(root, labels),
    )
    version, changed = _commit(root, config.name, manifest, identities, made, before)
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


def _with_people(
    rows: pa.Table, config: CurationConfig, before: Dataset | None, forgets: bool, is_own: bool
) -> tuple[pa.Table, pa.Table]:
    """The rows with `identity_id` and `split`, and the identities; `forgets` what has no clip any more."""
    known = before.identities() if before else None
    rows, identities = identify(
        rows, config.identities, only_with(known, rows) if known is not None and forgets else known
    )
    was = SplitsConfig.model_validate(before.version.config.get("splits", {})) if before else None
    newcomers = (
        known is None
        or not pc.all(
            pc.is_in(identities["identity_id"], value_set=known["identity_id"].combine_chunks())
        ).as_py()
    )
    # A takedown must not hang on a benchmark's pictures, or on models that are not here.
    entries = config.splits.exclude if is_own or newcomers else []
    face_backends = pc.unique(identities["face_backend"].drop_null()).sort().to_pylist()
    excluded = excluded_people(entries, config.faces, face_backends)
    identities = assign(identities, config.splits, known, was, excluded, config.identities)
    return with_splits(rows, identities), identities


def _write_samples(
    root: Location, kept: pa.Table, media: StoredMedia, config: CurationConfig
) -> tuple[dict[str, str], dict[str, Place]]:
    digests: dict[str, str] = {}
    places: dict[str, Place] = {}
    for split in sorted(set(kept["split"].to_pylist())):
        rows = kept.filter(pc.equal(kept["split"], split)).drop_columns(["thumbnail", "identity_embedding"])
        samples = rows.to_pylist()
        shards, held = write_shards(root / "shards", split, samples, media, config.pack.shard_mb * 1e6)
        digests |= shards
        places |= held
    return digests, places


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


def _take_over(rows: pa.Table, media: StoredMedia) -> None:
    """What no shard holds, but another threshold may want, must not be left with a lender."""
    columns = ["clip_id", "source_sha256", "has_media", "status"]
    for row in rows.select(columns).to_pylist():
        if row["has_media"] and row["status"] != "kept":
            media.bring_home(row)


def _store_labels(root: Location, labels: pa.Table) -> str | None:
    """Digest of the labels' file; None where there are none."""
    if not labels.num_rows:
        return None
    data = io.BytesIO()
    pq.write_table(labels, data)
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    with replacing(labels_path(root, digest)) as temporary:
        temporary.write_bytes(data.getvalue())
    return digest


def _commit(
    root: Location,
    name: str,
    manifest: pa.Table,
    identities: pa.Table,
    made: Version,
    before: Dataset | None,
) -> tuple[int, bool]:
    folder = f"manifest/{made.version}"
    remove_tree(root / folder, ignore_errors=True)  # of a pack that died before its version was named
    for index, start in enumerate(range(0, max(manifest.num_rows, 1), ROWS_PER_PART)):
        part = f"{folder}/part-{index:05d}.parquet"
        with replacing(root / part) as temporary:
            pq.write_table(manifest.slice(start, ROWS_PER_PART), temporary)
            made.manifest_sha256[part] = file_sha256(temporary)
    if before and before.version.same_content(made):
        remove_tree(root / folder)
        return before.version.version, False
    with replacing(identities_path(root, made.version)) as temporary:
        pq.write_table(identities, temporary)
        digest = file_sha256(temporary)
    made = replace(made, identities_sha256=digest)
    commit(root, name, made)
    return made.version, True


def _drop_media(ledger: Ledger, kept: pa.Table) -> None:
    """What the shards hold now need not be stored twice."""

    def drop(sha256: str, clip_id: str) -> None:
        for suffix in MEDIA:
            (ledger.folder(sha256) / (clip_id + suffix)).unlink(missing_ok=True)

    with ThreadPoolExecutor(READERS) as pool:  # in a store each takes a while
        list(pool.map(drop, kept["source_sha256"].to_pylist(), kept["clip_id"].to_pylist()))


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
