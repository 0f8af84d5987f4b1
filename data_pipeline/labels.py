"""Reviewers' labels: a person's word on single clips, which overrules the policy.

    CSV with clip_id, label (keep | drop), optionally note and reviewer
    -> labels/{digest8}.parquet in the dataset, named by the version that was decided with it

`drop` rejects a clip as `labelled_out`. `keep` overrules every rule and a lost place among duplicates;
it cannot overrule an error, nor bring a clip whose media were never encoded. Where a clip is labelled
twice, the later line counts, and a later file over an earlier one.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.storage import Location

LABELS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("label", pa.string()),
        ("note", pa.string()),
        ("reviewer", pa.string()),
    ]
)
"""In order of clip_id, each once."""

KEEP, DROP = "keep", "drop"
REQUIRED = ("clip_id", "label")
NAMED_AT_MOST = 5


class LabelsError(Exception):
    """Labels that cannot be used; the message names file, line, value and what is allowed."""


def no_labels() -> pa.Table:
    """The labels of a dataset that nobody has reviewed."""
    return LABELS.empty_table()


def read_labels(path: Location) -> pa.Table:
    """The labels of a CSV as rows of LABELS. Raises LabelsError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_header(path, list(reader.fieldnames or []))
            rows = [_checked(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"labels: {path} cannot be read: {error}") from None
    return united(no_labels(), pa.Table.from_pylist(rows, LABELS))


def _check_header(path: Location, names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in LABELS.names]
    if missing or unknown:
        wrong = f"no column {missing[0]!r}" if missing else f"an unknown column {unknown[0]!r}"
        raise LabelsError(
            f"labels: {path}: {wrong}; found {', '.join(names) or 'nothing'}; "
            f"allowed are {', '.join(LABELS.names)}, the first two are needed"
        )


def _checked(path: Location, line: int, row: dict[str | None, str | None]) -> dict[str, str | None]:
    where = f"labels: {path}, line {line}"
    if None in row:
        raise LabelsError(f"{where}: more values than columns; quote a note that holds a comma")
    given = {str(key): (value or "").strip() or None for key, value in row.items()}
    clip_id, label = given["clip_id"], (given["label"] or "").lower()
    if clip_id is None or not re.fullmatch(r"[0-9a-f]{16}", clip_id):
        raise LabelsError(f"{where}: clip_id {clip_id!r} is no clip's name; it has 16 digits 0-9 a-f")
    if label not in (KEEP, DROP):
        raise LabelsError(f"{where}: label {given['label']!r}; allowed are {KEEP} and {DROP}")
    return given | {"label": label}


def united(*tables: pa.Table) -> pa.Table:
    """One table in which the later word on a clip counts."""
    last = {row["clip_id"]: row for table in tables for row in table.to_pylist()}
    return pa.Table.from_pylist([last[clip_id] for clip_id in sorted(last)], LABELS)


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """What of the labels does not take effect on a table of clips."""

    unknown: list[str]
    """Labelled clip_ids that the dataset does not know."""
    without_media: list[str]
    """Labelled `keep`, but stopped before they were encoded, or failed."""


def check_labels(labels: pa.Table, clips: pa.Table) -> LabelCheck:
    """Compare labels with `clips` (`clip_id`, `has_media`, `status`)."""
    ids = labels["clip_id"]
    known = pc.is_in(ids, clips["clip_id"])
    kept = clips.filter(pc.equal(clips["status"], "kept"))["clip_id"]
    wanted = labels.filter(pc.and_(known, pc.equal(labels["label"], KEEP)))["clip_id"]
    return LabelCheck(
        unknown=ids.filter(pc.invert(known)).to_pylist(),
        without_media=wanted.filter(pc.invert(pc.is_in(wanted, kept))).to_pylist(),
    )


def lines_of_check(check: LabelCheck) -> list[str]:
    """What a reviewer must know, in words."""
    lines = []
    if check.unknown:
        lines.append(f"labels: {_named(check.unknown)} unknown here, and kept for later sources")
    if check.without_media:
        lines.append(
            f"labels: {_named(check.without_media)} labelled keep, but never measured to the "
            "end and encoded; `hallo3 dataset explain` says what stopped a clip, refilter with a looser "
            "rule measures it"
        )
    return lines


def _named(ids: Sequence[str]) -> str:
    some = ", ".join(ids[:NAMED_AT_MOST])
    more = f" and {len(ids) - NAMED_AT_MOST} more" if len(ids) > NAMED_AT_MOST else ""
    return f"{len(ids)} clip{'' if len(ids) == 1 else 's'} ({some}{more})"
