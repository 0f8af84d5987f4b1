"""The numbers of a manifest that people decide by.

Comes in: a manifest table, one row for every clip and one for every source that gave none.
Goes out: the retention funnel, a histogram per score with what another threshold would change, hours
by language or licence, and the rows worth looking at. Everything is vectorised over the columns, so a
million rows take seconds; every choice of rows is by `clip_id`, so the same table gives the same page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.clip import Reason

if TYPE_CHECKING:
    from data_pipeline.policy import Threshold

BINS = 40
"""Bars of a histogram, about: the step is rounded so that thresholds fall on edges."""


@dataclass(frozen=True)
class FunnelStep:
    """What one reason took away; each row counts once, at its first reason."""

    reason: str
    n_clips: int
    n_sources: int
    """Sources that gave no clip at all."""
    lost_s: float
    left_s: float
    """Seconds that go on to the next step."""
    n_only: int
    """Clips that have no second reason: what lifting this rule alone could bring back."""


@dataclass(frozen=True)
class Histogram:
    """Counts of one score. The first and last bar also hold what lies beyond the axis."""

    edges: np.ndarray
    """(B + 1,) float64, increasing."""
    kept: np.ndarray
    """(B,) int64."""
    other: np.ndarray
    """(B,) int64: rejected, or failed in a later stage."""
    n_below: int
    n_above: int
    n_missing: int
    """Clips without this measurement."""

    @property
    def n_measured(self) -> int:
        return int(self.kept.sum() + self.other.sum())


@dataclass(frozen=True)
class WhatIf:
    """What moving one threshold to each edge of its histogram would do, in cumulated form.

    `lost` counts kept clips that would go; `gained` clips that this threshold alone holds back. The
    gain is an upper bound: stages that were skipped after the rejection may find another reason."""

    index: int
    """The edge where the threshold is now; for a rule that is off, the edge where all pass."""
    lost: np.ndarray
    """(B + 1,) int64."""
    lost_s: np.ndarray
    gained: np.ndarray
    """(B + 1,) int64."""
    gained_s: np.ndarray


@dataclass(frozen=True)
class Share:
    """Seconds of one value of a column; `value` is None for rows that have none."""

    value: str | None
    n_clips: int
    n_kept: int
    total_s: float
    kept_s: float


class Summary:
    """A manifest table, read once for all the questions that are asked of it."""

    def __init__(self, clips: pa.Table) -> None:
        self.clips = clips.combine_chunks()
        self.is_clip = self._strings("clip_id").is_valid().to_numpy(zero_copy_only=False)
        status = self._strings("status")
        self.kept = _mask(pc.equal(status, "kept")) & self.is_clip
        self.failed = _mask(pc.equal(status, "error"))
        seconds = self.floats("end_s") - self.floats("start_s")
        self.seconds = np.where(self.is_clip & np.isfinite(seconds), seconds, 0.0)

    @property
    def n_clips(self) -> int:
        return int(self.is_clip.sum())

    @property
    def total_s(self) -> float:
        return float(self.seconds.sum())

    @property
    def kept_s(self) -> float:
        return float(self.seconds[self.kept].sum())

    def n_sources(self, among: np.ndarray | None = None) -> int:
        """Distinct sources of all rows, or of those where the mask `among` (N,) is true."""
        sources = self._sources if among is None else self._sources.filter(pa.array(among))
        return int(pc.count_distinct(sources, mode="only_valid").as_py())

    def floats(self, column: str) -> np.ndarray:
        """A numeric column as (N,) float64, NaN where it was not measured or is absent."""
        if column not in self.clips.column_names:
            return np.full(self.clips.num_rows, np.nan)
        values = pc.cast(self.clips[column], pa.float64()).fill_null(np.nan).to_numpy()
        return np.where(np.isfinite(values), values, np.nan)

    def has_values(self, column: str) -> bool:
        return column in self.clips.column_names and self.clips[column].null_count < self.clips.num_rows

    def funnel(self) -> list[FunnelStep]:
        """The reasons that took something, in the order of `Reason`; the last `left_s` is what is kept."""
        names, codes = self._reasons
        order = {str(reason): place for place, reason in enumerate(Reason)}
        left_s = self.total_s
        steps = []
        for code in sorted(range(len(names)), key=lambda c: (order.get(names[c], len(order)), names[c])):
            rows = codes == code
            lost_s = float(self.seconds[rows].sum())
            left_s = max(0.0, left_s - lost_s)
            clips = rows & self.is_clip
            n_sources = int(rows.sum() - clips.sum())
            n_only = int((clips & (self._n_reasons == 1)).sum())
            steps.append(FunnelStep(names[code], int(clips.sum()), n_sources, lost_s, left_s, n_only))
        return steps

    def histogram(self, values: np.ndarray, thresholds: Sequence["Threshold"]) -> Histogram:
        """Counts of `values` (N,), with an edge on every threshold that is on."""
        measured = np.isfinite(values)
        edges = _edges(values[measured], [t.value for t in thresholds if t.value is not None])
        bins = _bin(values[measured], edges, thresholds)
        kept = np.bincount(bins[self.kept[measured]], minlength=len(edges) - 1)
        return Histogram(
            edges=edges,
            kept=kept,
            other=np.bincount(bins, minlength=len(edges) - 1) - kept,
            n_below=int((values[measured] < edges[0]).sum()),
            n_above=int((values[measured] > edges[-1]).sum()),
            n_missing=int((self.is_clip & ~measured).sum()),
        )

    def what_if(
        self,
        values: np.ndarray,
        edges: np.ndarray,
        threshold: "Threshold",
        thresholds: Sequence["Threshold"],
    ) -> WhatIf:
        """Move `threshold` over `edges`; `thresholds` are all rules, `values` (N,) this one's column."""
        same_column = [t for t in thresholds if t.column == threshold.column]
        held_back = self.rows_of(threshold.reason) & (self._n_reasons == 1) & self.fails(threshold, values)
        for other in thresholds:
            same = (other.column, other.bound) == (threshold.column, threshold.bound)
            if other.reason == threshold.reason and not same:
                held_back &= ~self.fails(other, self.floats(other.column))

        def cumulate(rows: np.ndarray, weights: np.ndarray | None, passing: bool) -> np.ndarray:
            rows = rows & np.isfinite(values)
            bins = _bin(values[rows], edges, same_column)
            counts = np.bincount(bins, None if weights is None else weights[rows], len(edges) - 1)
            below = np.concatenate([[0], np.cumsum(counts)])
            return below if (threshold.bound == "max") == passing else below[-1] - below

        index = 0 if threshold.bound == "min" else len(edges) - 1
        if threshold.value is not None:
            index = int(np.abs(edges - threshold.value).argmin())
        return WhatIf(
            index=index,
            lost=cumulate(self.kept, None, passing=False),
            lost_s=cumulate(self.kept, self.seconds, passing=False),
            gained=cumulate(held_back, None, passing=True),
            gained_s=cumulate(held_back, self.seconds, passing=True),
        )

    def fails(self, threshold: "Threshold", values: np.ndarray) -> np.ndarray:
        """(N,) bool: on the wrong side. What was not measured does not fail."""
        if threshold.value is None:
            return np.zeros(len(values), bool)
        return values < threshold.value if threshold.bound == "min" else values > threshold.value

    def nearest(
        self, threshold: "Threshold", values: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row indices of the `count` clips nearest the threshold that fail, and that pass; nearest first."""
        if threshold.value is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        fails = self.fails(threshold, values)
        distance = np.abs(values - threshold.value)
        measured = self.is_clip & np.isfinite(values)
        return self._closest(measured & fails, distance, count), self._closest(
            measured & ~fails, distance, count
        )

    def shares(self, column: str) -> list[Share]:
        """Seconds by value of a text column, the most kept first, rows without a value last."""
        names, codes = _encode(self._strings(column).filter(pa.array(self.is_clip)))
        codes = np.where(codes < 0, len(names), codes)
        kept, seconds = self.kept[self.is_clip], self.seconds[self.is_clip]

        def total(rows: np.ndarray, weights: np.ndarray | None = None) -> list[Any]:
            weights = None if weights is None else weights[rows]
            return np.bincount(codes[rows], weights, len(names) + 1).tolist()

        every = np.ones(len(codes), bool)
        columns = (total(every), total(kept), total(every, seconds), total(kept, seconds))
        values = [*names, None]
        shares = [Share(value, *numbers) for value, *numbers in zip(values, *columns, strict=True)]
        shares = [share for share in shares if share.n_clips]
        return sorted(shares, key=lambda s: (s.value is None, -s.kept_s, -s.total_s, s.value or ""))

    def rows_of(self, reason: str) -> np.ndarray:
        """(N,) bool: rows whose first reason this is."""
        names, codes = self._reasons
        return codes == names.index(reason) if reason in names else np.zeros(len(codes), bool)

    def first(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Indices of the first `count` rows of the mask `rows` (N,), by clip_id."""
        return self._order[rows[self._order]][:count]

    def _closest(self, rows: np.ndarray, distance: np.ndarray, count: int) -> np.ndarray:
        indices = np.flatnonzero(rows)
        if len(indices) > count:
            reach = np.partition(distance[indices], count - 1)[count - 1]
            indices = indices[distance[indices] <= reach]
        return indices[np.lexsort((self._rank[indices], distance[indices]))][:count]

    def _strings(self, column: str) -> pa.Array:
        if column not in self.clips.column_names:
            return pa.nulls(self.clips.num_rows, pa.string())
        return pc.cast(self.clips[column], pa.string()).combine_chunks()

    @cached_property
    def _sources(self) -> pa.Array:
        """What tells sources apart: their content, or where one lies that could not be read."""
        if "source_uris" not in self.clips.column_names:
            return self._strings("source_sha256")
        uris = pc.cast(self.clips["source_uris"], pa.list_(pa.string())).combine_chunks()
        return pc.coalesce(self._strings("source_sha256"), pc.binary_join(uris, "\n"))

    @cached_property
    def _order(self) -> np.ndarray:
        keys = pc.coalesce(self._strings("clip_id"), self._sources)
        return pc.sort_indices(keys).to_numpy()

    @cached_property
    def _rank(self) -> np.ndarray:
        rank = np.empty(len(self._order), np.int64)
        rank[self._order] = np.arange(len(self._order))
        return rank

    @cached_property
    def _reasons(self) -> tuple[list[str], np.ndarray]:
        names, codes = _encode(self._strings("reason"))
        return names, np.where(self.kept, -1, codes)

    @cached_property
    def _n_reasons(self) -> np.ndarray:
        if "reasons" not in self.clips.column_names:
            return np.zeros(self.clips.num_rows, np.int64)
        lists = pc.cast(self.clips["reasons"], pa.list_(pa.string()))
        return pc.list_value_length(lists).fill_null(0).to_numpy()


def _mask(values: pa.Array) -> np.ndarray:
    return values.fill_null(False).to_numpy(zero_copy_only=False)


def _encode(values: pa.Array) -> tuple[list[str], np.ndarray]:
    """Distinct values, and for each row the index of its value; -1 for null."""
    encoded = values.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)


def _edges(values: np.ndarray, anchors: Sequence[float]) -> np.ndarray:
    """Even edges over the bulk of `values`, with one exactly on each anchor where a step allows it.

    A few outliers would squeeze everything else into one bar, so past 1.5 times the range of the
    middle 99% the axis ends there."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if len(values):
        bulk_low, bulk_high = np.quantile(values, [0.005, 0.995])
        if high - low > 1.5 * (bulk_high - bulk_low) > 0:
            low, high = float(bulk_low), float(bulk_high)
    low, high = min([low, *anchors]), max([high, *anchors])
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-12):  # one value: give it room to be seen
        room = max(0.5 * abs(low), 0.5)
        low, high = low - room, high + room

    step = _round_step((high - low) / BINS)
    if len(values) and not np.any(values % 1):
        step = float(max(1, math.ceil(step)))
    origin = anchors[0] if anchors else 0.0
    gap = max(anchors) - min(anchors) if anchors else 0.0
    if gap >= step:
        step = gap / round(gap / step)
    first, last = math.floor((low - origin) / step + 1e-9), math.ceil((high - origin) / step - 1e-9)
    if anchors:  # a line on the rim of a chart reads as its frame
        first = min(first, math.ceil((min(anchors) - origin) / step - 1e-9) - 1)
        last = max(last, math.floor((max(anchors) - origin) / step + 1e-9) + 1)
    edges = origin + np.arange(first, max(last, first + 1) + 1) * step
    if gap >= step:
        for anchor in anchors:
            edges[np.abs(edges - anchor).argmin()] = anchor
    return edges


def _bin(values: np.ndarray, edges: np.ndarray, thresholds: Sequence["Threshold"]) -> np.ndarray:
    """Bar of each value. A bound admits its own value: under a lone maximum, bars hold their upper edge."""
    only_max = bool(thresholds) and all(t.bound == "max" for t in thresholds)
    places = np.searchsorted(edges, values, side="left" if only_max else "right") - 1
    return np.clip(places, 0, len(edges) - 2)


def _round_step(step: float) -> float:
    """The nearest step at or above `step` that people count in: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= step * (1 - 1e-9))
