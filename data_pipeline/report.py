"""The dataset report: where a person looks at what was kept, and decides about thresholds.

Comes in: the manifest of one version, pictures of its clips, the thresholds, and what the work cost.
Goes out: one HTML file that needs nothing else, whatever the size of the dataset: numbers are of all
rows, pictures are of a sample that is chosen by `clip_id`. Names of sources and transcripts come from
strangers: the template engine escapes them, and a content security policy lets no script but ours run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.clip import Reason
from data_pipeline.contact_sheets import KEPT_SHOWN, Card, Pictures, Sheet, contact_sheets, source_of, taken
from data_pipeline.page import render_page
from data_pipeline.policy import RULES, Threshold
from data_pipeline.summary import Histogram, Share, Summary, WhatIf
from data_pipeline.wording import TimeUnit, visible_text

TEMPLATES = Path(__file__).with_name("templates")
NEAREST_SHOWN = 3
PICTURES_BYTES = 6_000_000
"""Of all JPEGs in one report; they grow by a third in base64. Past it, every sheet shows fewer clips."""
ERRORS_SHOWN = 200
SHARES_SHOWN = 12
ALWAYS_SHOWN = ("language", "source_licence")
"""Columns that are broken down always: that no licence is known is worth knowing."""
WHEN_KNOWN = ("split", "identity_id", "speaker")
FILTER_KEYS = {
    (rule.column, rule.bound): rule.filter_key
    for rule in RULES
    if [other.filter_key for other in RULES].count(rule.filter_key) == 1
}
"""What to set for another threshold. A key that moves two columns at once is left out: a histogram of one
cannot tell what it would change."""


def render_report(
    *,
    name: str,
    version: int,
    clips: pa.Table,
    thumbnails: Mapping[str, bytes],
    thresholds: Sequence[Threshold],
    stage_seconds: Mapping[str, float],
    wall_s: float | None,
    header: Mapping[str, str],
) -> str:
    """One self-contained HTML page.

    `clips` has the manifest's columns, one row a clip and one a source that gave none; a column that is
    absent counts as not measured. `thumbnails` maps clip_id to a JPEG strip of three frames; only those
    shown are looked up (a few hundred at most), so it may read lazily. `stage_seconds` is the time of
    each stage, summed over workers; `wall_s` the time that passed, None if it was not recorded. `header`
    is shown as it is: where the dataset lies, digests, backends."""
    summary = Summary(clips)
    sheets, scores = _fitting_samples(summary, thresholds, thumbnails)
    cards = {card.row: card for sheet in sheets for card in sheet.cards}
    cards |= {card.row: card for score in scores for card in score.cards()}
    time = TimeUnit.for_total(summary.total_s)
    return render_page(
        TEMPLATES / "report.html.j2",
        style=(TEMPLATES / "report.css",),
        script=TEMPLATES / "report.js",
        filters={
            "time": time.text,
            "words": lambda text: str(text).replace("_", " "),
            "plural": lambda number, noun: f"{number:,} {noun}{'' if number == 1 else 's'}",
        },
        name=name,
        version=version,
        header=header,
        summary=summary,
        funnel=summary.funnel(),
        scores=scores,
        sheets=sheets,
        facts=_facts(summary.clips, sorted(cards)),
        breakdowns=list(_breakdowns(summary)),
        durations=Score.of_durations(summary),
        errors=_errors(summary),
        cost=Cost(summary.total_s, dict(stage_seconds), wall_s),
        time=time,
    )


@dataclass(frozen=True)
class Cut:
    """One threshold in a histogram: its line, its neighbours, what moving it would do."""

    threshold: Threshold
    what_if: WhatIf
    failing: list[Card]
    passing: list[Card]
    n_fails: int

    @property
    def filter_key(self) -> str | None:
        return FILTER_KEYS.get((self.threshold.column, self.threshold.bound))

    @property
    def sides(self) -> list[tuple[str, list[Card]]]:
        """The neighbours as they lie on the axis: below it on the left."""
        sides = [("just fails", self.failing), ("just passes", self.passing)]
        return sides if self.threshold.bound == "min" else sides[::-1]


@dataclass(frozen=True)
class Score:
    """One measured column: its histogram and the thresholds on it."""

    column: str
    label: str
    unit: str
    histogram: Histogram
    cuts: list[Cut]
    values: np.ndarray
    """(N,) float64 of all rows."""
    kept_quantiles: list[float] | None
    """5%, 50%, 95% of the kept clips."""

    @classmethod
    def of_durations(cls, summary: Summary) -> "Score":
        seconds = np.where(summary.is_clip, summary.seconds, np.nan)
        histogram = summary.histogram(seconds, [])
        return cls("duration_s", "clip length", "s", histogram, [], seconds, _quantiles(summary, seconds))

    def cards(self) -> Iterator[Card]:
        for cut in self.cuts:
            yield from (*cut.failing, *cut.passing)

    def place(self, value: float) -> float:
        """Where a value lies on the axis, in percent from the left."""
        low, high = self.histogram.edges[0], self.histogram.edges[-1]
        return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 3)

    @property
    def ticks(self) -> list[float]:
        low, high = float(self.histogram.edges[0]), float(self.histogram.edges[-1])
        step = 10.0 ** math.floor(math.log10((high - low) / 3))
        step = next(step * nice for nice in (5, 2.5, 2, 1) if (high - low) / (step * nice) >= 3)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [tick * step for tick in range(first, last + 1)]

    @property
    def bars(self) -> list[dict[str, Any]]:
        """Bars of a stacked chart, heights in percent of the highest; a lone clip stays visible."""
        top = max(1, int((self.histogram.kept + self.histogram.other).max()))

        def height(count: int) -> float:
            return round(max(1.5, 100 * count / top), 2) if count else 0

        return [
            {
                "kept": kept,
                "other": other,
                "kept_height": height(kept),
                "other_height": height(other),
                "low": float(low),
                "high": float(high),
            }
            for kept, other, low, high in zip(
                self.histogram.kept.tolist(),
                self.histogram.other.tolist(),
                self.histogram.edges[:-1],
                self.histogram.edges[1:],
                strict=True,
            )
        ]


@dataclass(frozen=True)
class Breakdown:
    """Seconds by value of one column; the smallest ones added up."""

    column: str
    shares: list[Share]
    n_more: int
    more_kept_s: float


@dataclass(frozen=True)
class Failure:
    source: str
    reason: str
    message: str


@dataclass(frozen=True)
class Cost:
    """What the measurements cost."""

    clips_s: float
    stage_seconds: dict[str, float]
    wall_s: float | None

    @cached_property
    def stages(self) -> list[tuple[str, float]]:
        return sorted(self.stage_seconds.items(), key=lambda stage: (-stage[1], stage[0]))

    @property
    def total_s(self) -> float:
        return sum(self.stage_seconds.values())

    @property
    def speed(self) -> float | None:
        """Seconds of clips a second."""
        return self.clips_s / self.wall_s if self.wall_s else None


def _fitting_samples(
    summary: Summary, thresholds: Sequence[Threshold], thumbnails: Mapping[str, bytes]
) -> tuple[list[Sheet], list[Score]]:
    """Contact sheets and scores, with as many pictures as PICTURES_BYTES hold."""
    pictures = Pictures(summary, thumbnails)
    share = 1
    while True:
        sheets = contact_sheets(summary, pictures, share)
        scores = _scores(summary, pictures, thresholds, share)
        cards = [card for sheet in sheets for card in sheet.cards]
        cards += [card for score in scores for card in score.cards()]
        if sum(len(card.jpeg or b"") for card in cards) <= PICTURES_BYTES or share >= KEPT_SHOWN:
            return sheets, scores
        share *= 2


def _scores(summary: Summary, pictures: Pictures, thresholds: Sequence[Threshold], share: int) -> list[Score]:
    by_column: dict[str, list[Threshold]] = {}
    for threshold in thresholds:
        by_column.setdefault(threshold.column, []).append(threshold)
    scores = []
    for column, group in by_column.items():
        values = summary.floats(column)
        histogram = summary.histogram(values, group)
        cuts = []
        for threshold in group:
            failing, passing = summary.nearest(threshold, values, max(1, NEAREST_SHOWN // share))
            cuts.append(
                Cut(
                    threshold=threshold,
                    what_if=summary.what_if(values, histogram.edges, threshold, thresholds),
                    failing=pictures.cards(failing),
                    passing=pictures.cards(passing),
                    n_fails=int(summary.fails(threshold, values).sum()),
                )
            )
        quantiles = _quantiles(summary, values)
        scores.append(Score(column, group[0].label, group[0].unit, histogram, cuts, values, quantiles))
    return sorted(scores, key=lambda score: all(cut.threshold.value is None for cut in score.cuts))


def _quantiles(summary: Summary, values: np.ndarray) -> list[float] | None:
    kept = values[summary.kept & np.isfinite(values)]
    return np.quantile(kept, [0.05, 0.5, 0.95]).tolist() if len(kept) else None


def _breakdowns(summary: Summary) -> Iterator[Breakdown]:
    for column in (*ALWAYS_SHOWN, *(name for name in WHEN_KNOWN if summary.has_values(name))):
        shares = summary.shares(column)
        if column in WHEN_KNOWN:  # what was rejected gets no split: a row of unknowns would say nothing
            shares = [share for share in shares if share.value is not None or share.n_kept]
        shown, more = shares[:SHARES_SHOWN], shares[SHARES_SHOWN:]
        yield Breakdown(column, shown, len(more), sum(share.kept_s for share in more))


def _errors(summary: Summary) -> list[Failure]:
    rows = taken(summary.clips, summary.first(summary.failed, ERRORS_SHOWN))
    order = {str(reason): place for place, reason in enumerate(Reason)}
    failures = [
        Failure(source_of(row), row.get("reason") or "unknown", row.get("error") or "no message")
        for row in rows
    ]
    return sorted(failures, key=lambda f: (order.get(f.reason, len(order)), f.source, f.message))


def _facts(clips: pa.Table, rows: Sequence[int]) -> dict[str, Any]:
    """What the close-up of a clip says: one list of labels, and for each row its values as text."""
    hidden = {
        "words",
        "shard",
        "byte_offset",
        "byte_size",
        "measure_sha256",
        "policy_sha256",
        "phash",
        "duplicate_group",
    }
    labels = [
        column
        for column in clips.column_names
        if column not in hidden and not pa.types.is_binary(clips.schema.field(column).type)
    ]
    values = taken(clips.select(labels), rows)
    return {
        "labels": [label.replace("_", " ") for label in labels],
        "clips": {
            str(index): [_fact_text(row[label]) for label in labels]
            for index, row in zip(rows, values, strict=True)
        },
    }


def _fact_text(value: Any) -> str | None:
    """None hides the line: it was not measured."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_fact_text(item) or "\N{EN DASH}" for item in value) or None
    return visible_text(str(value)) or None
