"""Contact sheets of the report: clips as cards with a strip of three frames, by what became of them."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.summary import Summary
from data_pipeline.wording import visible_text

KEPT_SHOWN, REJECTED_SHOWN = 24, 12


@dataclass(frozen=True)
class Card:
    """One clip in a contact sheet."""

    row: int
    clip_id: str | None
    source: str
    status: str
    reason: str | None
    duration_s: float | None
    transcript: str | None
    jpeg: bytes | None

    @property
    def source_name(self) -> str:
        return self.source.rstrip("/").rsplit("/", 1)[-1]

    @property
    def data_uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg or b"").decode()

    @property
    def alt(self) -> str:
        state = self.reason.replace("_", " ") if self.reason else self.status
        return f"Three frames of a clip from {visible_text(self.source_name)}: {state}"


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: all that was kept, or all that one reason took."""

    name: str
    total: int
    cards: list[Card]


class Pictures:
    """Cards of rows, each made once."""

    def __init__(self, summary: Summary, thumbnails: Mapping[str, bytes]) -> None:
        self.clips = summary.clips
        self.seconds = summary.seconds
        self.thumbnails = thumbnails
        self._cards: dict[int, Card] = {}

    def cards(self, rows: np.ndarray) -> list[Card]:
        missing = [int(row) for row in rows if int(row) not in self._cards]
        for row, values in zip(missing, taken(self.clips, missing), strict=True):
            self._cards[row] = self._card(row, values)
        return [self._cards[int(row)] for row in rows]

    def _card(self, row: int, values: dict[str, Any]) -> Card:
        clip_id = values["clip_id"]
        duration_s = float(self.seconds[row])
        return Card(
            row=row,
            clip_id=clip_id,
            source=source_of(values),
            status=values["status"] or "unknown",
            reason=values.get("reason"),
            duration_s=duration_s or None,
            transcript=values.get("transcript"),
            jpeg=None if clip_id is None else self.thumbnails.get(clip_id),
        )


def contact_sheets(summary: Summary, pictures: Pictures, share: int) -> list[Sheet]:
    """What was kept, then what each reason rejected, in the order of the funnel."""
    n_kept = int(summary.kept.sum())
    kept = summary.first(summary.kept, max(1, KEPT_SHOWN // share))
    sheets = [Sheet("kept", n_kept, pictures.cards(kept))]
    for step in summary.funnel():
        rejected = summary.rows_of(step.reason) & ~summary.failed
        if rejected.any():
            shown = summary.first(rejected, max(1, REJECTED_SHOWN // share))
            sheets.append(Sheet(step.reason, int(rejected.sum()), pictures.cards(shown)))
    return sheets


def taken(clips: pa.Table, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Some rows of the manifest, as values."""
    return clips.take(pa.array(rows, pa.int64())).to_pylist()


def source_of(row: Mapping[str, Any]) -> str:
    """Where a row's video came from, in one name."""
    uris = row.get("source_uris")
    return uris[0] if uris else row.get("source_sha256") or "unnamed source"
