"""diff: what one version of a dataset has that another has not. Reads manifests and version files only.

two manifests -> rows paired by clip (by source, where it gave no clip) -> counts, hours, examples
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.dataset import MANIFEST, Dataset, Version
from data_pipeline.tally import hours_of

MEDIA_FACTS = ("width", "height", "fps", "n_frames", "crop")
"""Where one of these differs, the clip was encoded otherwise."""

DECISIONS = ("status", "reason", "reasons", "split", "identity_id", "duplicate_group", "duplicate_of")
PLACES = ("shard", "byte_offset", "byte_size", "measure_sha256", "policy_sha256", "source_uris", "has_media")
NAMES = ("clip_id", "source_sha256", "start_s", "end_s")

COMPARED = [name for name in MANIFEST.names if name not in (*DECISIONS, *PLACES, *NAMES, *MEDIA_FACTS)]
"""Facts and measurements: what both versions say of the same clip."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions."""

    name: str
    kept: int
    hours: float
    sources: int


@dataclass(frozen=True, slots=True)
class Move:
    """Clips that went from one value to another; an outcome is `kept` or the first reason."""

    before: str | None
    after: str | None
    clips: int
    hours: float
    example: str
    """The first of them."""


@dataclass(frozen=True, slots=True)
class Change:
    """A column in which clips differ. `median` is of the absolute difference, None for text."""

    column: str
    clips: int
    median: float | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the configuration (or a weight's digest) that differs."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything that differs."""

    before: Side
    after: Side
    added: list[Move]
    """Clips, and sources that gave none, that were not there; `before` is None."""
    removed: list[Move]
    outcomes: list[Move]
    splits: list[Move]
    """Of clips that both versions keep."""
    identities_changed: int
    """Clips that both versions keep, whose `identity_id` differs."""
    encoded_otherwise: int
    measurements: list[Change]
    settings: list[Setting]
    tombstones_added: int
    labels_changed: bool

    def __bool__(self) -> bool:
        """Whether anything but the sides' names differs."""
        lists = (self.added, self.removed, self.outcomes, self.splits, self.measurements, self.settings)
        rest = (self.identities_changed, self.encoded_otherwise, self.tombstones_added, self.labels_changed)
        return any(lists) or any(rest)


def diff(before: Dataset, after: Dataset) -> Diff:
    """Compare two versions, of one dataset or of two."""
    old, new = _rows(before), _rows(after)
    place = pc.index_in(old["key"], value_set=new["key"]).to_numpy(zero_copy_only=False)
    there = ~np.isnan(place.astype(float))
    gone = old.filter(pa.array(~there))
    come = new.filter(pc.invert(pc.is_in(new["key"], value_set=old["key"])))
    a, b = old.filter(pa.array(there)), new.take(pa.array(place[there].astype(np.int64)))
    both_kept = np.array(pc.and_(_is_kept(a), _is_kept(b)).to_numpy(zero_copy_only=False), bool)
    kept_a, kept_b = a.filter(pa.array(both_kept)), b.filter(pa.array(both_kept))
    encoded = np.any([_differ(kept_a[name], kept_b[name]) for name in MEDIA_FACTS], axis=0)
    mine, theirs = before.version, after.version
    return Diff(
        before=_side(before, old),
        after=_side(after, new),
        added=_moves(None, come["outcome"], come),
        removed=_moves(gone["outcome"], None, gone),
        outcomes=_moves(a["outcome"], b["outcome"], b),
        splits=_moves(kept_a["split"], kept_b["split"], kept_b),
        identities_changed=int(_differ(kept_a["identity_id"], kept_b["identity_id"]).sum()),
        encoded_otherwise=int(encoded.sum()),
        measurements=[change for name in COMPARED if (change := _change(name, a[name], b[name]))],
        settings=settings_that_differ(_settings(mine), _settings(theirs)),
        tombstones_added=len({*theirs.tombstones} - {*mine.tombstones}),
        labels_changed=mine.labels_sha256 != theirs.labels_sha256,
    )


def _rows(dataset: Dataset) -> pa.Table:
    """The manifest with `key`, once each, and `outcome`."""
    rows = dataset.manifest()
    uris = pc.list_element(rows["source_uris"], 0)
    # A source without clips is known by its content, or by its name where it could not be read.
    keys = pc.coalesce(rows["clip_id"], rows["source_sha256"], uris)
    first = (
        pa.table({"key": keys, "row": np.arange(rows.num_rows)}).group_by("key").aggregate([("row", "min")])
    )
    rows = rows.append_column("key", keys).append_column(
        "outcome", pc.coalesce(rows["reason"], rows["status"])
    )
    return rows.append_column("first_uri", uris).take(first["row_min"].sort())


def _side(dataset: Dataset, rows: pa.Table) -> Side:
    kept = rows.filter(_is_kept(rows))
    sources = pc.count_distinct(pc.coalesce(rows["source_sha256"], rows["first_uri"])).as_py()
    name = f"{dataset.root} version {dataset.version.version}"
    return Side(name=name, kept=kept.num_rows, hours=hours_of(kept), sources=sources)


def _is_kept(rows: pa.Table) -> pa.ChunkedArray:
    return pc.equal(rows["status"], "kept")


def _moves(before: pa.ChunkedArray | None, after: pa.ChunkedArray | None, rows: pa.Table) -> list[Move]:
    """What went where, the most first; `rows` tell the clips' names and lengths."""
    nothing = [None] * rows.num_rows
    froms = nothing if before is None else before.to_pylist()
    tos = nothing if after is None else after.to_pylist()
    hours = _hours(rows)
    clips: Counter[tuple[str | None, str | None]] = Counter()
    spent: Counter[tuple[str | None, str | None]] = Counter()
    examples: dict[tuple[str | None, str | None], str] = {}
    for move, key, length in zip(zip(froms, tos, strict=True), rows["key"].to_pylist(), hours, strict=True):
        if move[0] != move[1]:
            clips[move] += 1
            spent[move] += length
            examples.setdefault(move, key)
    order = sorted(clips, key=lambda move: (-clips[move], str(move)))
    return [Move(*move, clips[move], round(spent[move], 6), examples[move]) for move in order]


def _hours(rows: pa.Table) -> np.ndarray:
    """(rows,) hours of each clip; 0 for a source that gave none."""
    is_clip = rows["clip_id"].is_valid().to_numpy(zero_copy_only=False).astype(bool)
    seconds = pc.subtract(rows["end_s"], rows["start_s"]).to_numpy(zero_copy_only=False).astype(float)
    return np.where(is_clip, np.nan_to_num(seconds), 0.0) / 3600


def _differ(before: pa.ChunkedArray, after: pa.ChunkedArray) -> np.ndarray:
    """(rows,) bool; null is a value of its own."""
    if pa.types.is_nested(before.type):
        pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
        return np.array([one != other for one, other in pairs], bool)
    unequal = pc.not_equal(before, after).fill_null(False)
    one_null = pc.xor(before.is_null(), after.is_null())
    return pc.or_(unequal, one_null).to_numpy(zero_copy_only=False).astype(bool)


def _change(column: str, before: pa.ChunkedArray, after: pa.ChunkedArray) -> Change | None:
    count = int(_differ(before, after).sum())
    if not count:
        return None
    kind = before.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return Change(column, count, None, None)
    gaps = np.abs(
        pc.subtract(after, before).cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    )
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return Change(column, count, None, None)
    return Change(column, count, float(np.median(gaps)), float(gaps.max()))


def _settings(version: Version) -> dict[str, Any]:
    return flat_settings(version.config | {"weights": version.weights, "hallo3": version.package_version})


def settings_that_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Setting]:
    """What differs between two flat configurations, but for where their outputs lie."""
    pairs = ((key, before.get(key), after.get(key)) for key in sorted({*before, *after}) if key != "output")
    return [Setting(*pair) for pair in pairs if pair[1] != pair[2]]


def flat_settings(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """Nested sections under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= flat_settings(value, f"{under}{key}.") if nested else {under + key: value}
    return flat


def lines_of_diff(found: Diff) -> Iterator[str]:
    """What a person wants to know of it, the most important first."""
    one, two = found.before, found.after
    yield f"from  {one.name}: {one.kept} clips kept, {_time(one.hours)}, {one.sources} sources"
    yield f"to    {two.name}: {two.kept} clips kept, {_time(two.hours)}, {two.sources} sources"
    if not found:
        yield "nothing differs"
        return
    yield f"  kept          {two.kept - one.kept:+d} clips, {_signed_time(two.hours - one.hours)}"
    yield from _lines_of_moves("added", found.added)
    yield from _lines_of_moves("removed", found.removed)
    yield from _lines_of_moves("outcome", found.outcomes)
    yield from _lines_of_moves("split", found.splits)
    if found.identities_changed:
        yield f"  identity      {found.identities_changed} kept clips belong to another identity"
    if found.encoded_otherwise:
        yield f"  media         {found.encoded_otherwise} kept clips were encoded otherwise"
    for change in found.measurements:
        by = (
            ""
            if change.median is None
            else f", by {change.median:.3g} (median), {change.largest:.3g} at most"
        )
        yield f"  measured      {change.column}: {change.clips} differ{by}"
    for setting in found.settings:
        yield f"  setting       {setting.key}: {_short(setting.before)} -> {_short(setting.after)}"
    if found.labels_changed:
        yield "  labels        other reviewers' labels"
    if found.tombstones_added:
        yield f"  tombstones    {found.tombstones_added} more"


def _lines_of_moves(label: str, moves: list[Move]) -> Iterator[str]:
    for move in moves:
        both = move.before is not None and move.after is not None
        what = f"{move.before} -> {move.after}" if both or label == "split" else move.after or move.before
        yield f"  {label:<13} {what}: {move.clips} ({_time(move.hours)}), e.g. {move.example}"


def _time(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _signed_time(hours: float) -> str:
    return ("-" if hours < 0 else "+") + _time(abs(hours))


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
