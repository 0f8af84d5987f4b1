"""merge: one dataset from several that were measured alike. Nothing is measured or encoded again.

    listings -> one listing; records and rows of each content, the further measured one of two -> ledger
    -> pack: duplicates, identities and splits anew over all; media straight from the datasets' shards

Sources that are in several datasets become one. What was purged from any is purged from all; where
reviewers disagree about a clip, the later dataset counts. The merged dataset is whole without the others:
media that no shard of it holds are copied into its measured/.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.config import MEASURED_SECTIONS, config_with
from data_pipeline.curate import write_report
from data_pipeline.dataset import Dataset
from data_pipeline.diff import Setting, flat_settings, settings_that_differ
from data_pipeline.labels import united
from data_pipeline.ledger import LISTING, Ledger, Record, listing_path
from data_pipeline.pack import Packed, pack
from data_pipeline.storage import Location, location, read_table, replacing
from data_pipeline.tombstones import Tombstones

WORKERS = 8


class MergeError(Exception):
    """Datasets that cannot become one; the message says why."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge made."""

    packed: Packed
    shared_sources: int
    """Contents that were in more than one dataset."""
    other_policies: list[Setting]
    """Where a later dataset's rules differ from the first one's, which are those that count."""


def merge(datasets: Sequence[Dataset], output: str, overrides: Sequence[str] = ()) -> Merged:
    """Make a dataset at `output` from the current versions of `datasets`, under the first one's rules.

    `overrides` are `key=value` for what decides, not for what measures. Raises MergeError, ConfigError and
    PackError; the same call goes on where one was killed."""
    first, root = datasets[0], location(output)
    _check(datasets, root)
    names = [name for dataset in datasets for name in _as_list(dataset.version.config["sources"])]
    config = config_with(first.version.config | {"sources": [], "output": output}, list(overrides), output)
    config = config.model_copy(update={"sources": list(dict.fromkeys(names)), "labels": None})
    stones = Tombstones([]).with_more(stone for dataset in datasets for stone in dataset.version.tombstones)
    ledger = Ledger(root, first.version.measure_sha256)
    listings = [stones.listing_without(read_table(listing_path(dataset.root))) for dataset in datasets]
    shared = _copy_records(ledger, datasets, listings, stones)
    with replacing(listing_path(root)) as temporary:
        pq.write_table(_one_listing(listings), temporary)
    labels = united(*(dataset.labels() for dataset in datasets))
    packed = pack(config, labels=labels, tombstones=stones.entries, like=first.version, lenders=datasets)
    write_report(root, config, packed, wall_s=None)
    return Merged(packed, shared, list(_other_policies(datasets)))


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _check(datasets: Sequence[Dataset], root: Location) -> None:
    first = datasets[0]
    if (root / "dataset.json").exists():
        raise MergeError(f"{root} is a dataset already; merge makes a new one: give another --output")
    for other in datasets[1:]:
        if other.version.measure_sha256 == first.version.measure_sha256:
            continue
        mine, theirs = (_measuring(dataset) for dataset in (first, other))
        found = "; ".join(f"{x.key}: {x.before} and {x.after}" for x in settings_that_differ(mine, theirs))
        raise MergeError(
            f"{first.root} and {other.root} were not measured alike, so their scores cannot be compared: "
            f"{found or 'their hallo3 or its models differ'}. Curate one of them again as the other was"
        )


def _measuring(dataset: Dataset) -> dict[str, Any]:
    config, version = dataset.version.config, dataset.version
    parts = {name: config.get(name, {}) for name in MEASURED_SECTIONS}
    return flat_settings(parts | {"weights": version.weights, "hallo3": version.package_version})


def _other_policies(datasets: Sequence[Dataset]) -> Iterator[Setting]:
    sections = ("filters", "duplicates", "identities", "splits")
    parts = [{name: dataset.version.config.get(name, {}) for name in sections} for dataset in datasets]
    for other in parts[1:]:
        yield from settings_that_differ(flat_settings(parts[0]), flat_settings(other))


def _copy_records(
    ledger: Ledger, datasets: Sequence[Dataset], listings: Sequence[pa.Table], stones: Tombstones
) -> int:
    """Fill the ledger; returns how many contents were in more than one dataset."""
    holders: dict[tuple[str, str], list[Ledger]] = {}
    for dataset, listing in zip(datasets, listings, strict=True):
        own = Ledger(dataset.root, ledger.measure_sha256)
        contents = {
            (sha256, window)
            for sha256, window in zip(
                listing["source_sha256"].to_pylist(), listing["window"].to_pylist(), strict=True
            )
            if sha256 is not None
        }
        for content in contents:
            holders.setdefault(content, []).append(own)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda content: _copy(ledger, content, holders[content], stones), sorted(holders)))
    return sum(len(own) > 1 for own in holders.values())


def _copy(ledger: Ledger, content: tuple[str, str], holders: Sequence[Ledger], stones: Tombstones) -> None:
    records = [(own, record) for own in holders if (record := own.record(*content)) is not None]
    # A source that failed in one dataset, and went well in another, went well.
    good = [(own, record) for own, record in records if record.reason is None] or records[:1]
    if not good:
        return
    rows = _furthest(pa.concat_tables(own.measurements(record) for own, record in good))
    rows = stones.clips_without(rows)
    ledger.add_record(_named(good[0][1], rows), rows)


def _named(record: Record, rows: pa.Table) -> Record:
    return replace(record, clip_ids=[clip_id for clip_id in rows["clip_id"].to_pylist() if clip_id])


def _furthest(rows: pa.Table) -> pa.Table:
    """Each clip once, by the row of the dataset that measured it furthest."""
    order = [("has_media", "descending"), ("complete", "descending")]
    seen: set[str | None] = set()
    best = []
    for row in rows.sort_by(order).to_pylist():
        if row["clip_id"] not in seen:
            seen.add(row["clip_id"])
            best.append(row)
    return pa.Table.from_pylist(best, rows.schema).sort_by(
        [("start_s", "ascending"), ("clip_id", "ascending")]
    )


def _one_listing(listings: Sequence[pa.Table]) -> pa.Table:
    """Every name once for each content; one that could not be read only where nobody could read it."""
    found: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for listing in listings:
        for row in listing.to_pylist():
            found.setdefault((row["uri"], row["window"], row["source_sha256"]), row)
    read = {(uri, window) for uri, window, sha256 in found if sha256 is not None}
    rows = [row for (uri, window, sha256), row in found.items() if sha256 or (uri, window) not in read]
    table = pa.Table.from_pylist(rows, LISTING)
    return table.sort_by([(name, "ascending") for name in ("uri", "window", "source_sha256")])
