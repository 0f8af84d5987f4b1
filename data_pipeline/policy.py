"""What is kept: thresholds over stored measurements. Pure: no files, no clocks, no randomness.

`decide(table)` takes one row for every clip and for every source that gave none, and adds `status`,
`reason`, `reasons` and `split`. The same rules, asked of one clip while it is being measured, say
when measuring it further would be wasted (`reasons_of`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.clip import ERROR_REASONS, Clip, Reason
from data_pipeline.config import FiltersConfig

REASONS = tuple(Reason)


@dataclass(frozen=True, slots=True)
class Rule:
    """`column` must not be beyond the limit that the filters hold under `filter_key`."""

    reason: Reason
    column: str
    bound: Literal["min", "max"]
    filter_key: str
    label: str
    unit: str = ""

    def violated(self, value: Any, limit: float) -> Any:
        """Works on a number and on an array alike; NaN, not measured, violates nothing."""
        return value < limit if self.bound == "min" else value > limit


RULES = (
    Rule(Reason.LOW_RESOLUTION, "source_width", "min", "min_short_side_px", "source width", "px"),
    Rule(Reason.LOW_RESOLUTION, "source_height", "min", "min_short_side_px", "source height", "px"),
    Rule(Reason.LOW_FRAME_RATE, "source_fps", "min", "min_source_fps", "source frame rate", "fps"),
    Rule(Reason.SILENT, "loudness_dbfs", "min", "min_loudness_dbfs", "loudness", "dBFS"),
    Rule(Reason.NO_SPEECH, "speech_ratio", "min", "min_speech_ratio", "speech share"),
    Rule(Reason.SINGING, "singing_ratio", "max", "max_singing_ratio", "singing share"),
    Rule(Reason.NOISY, "music_ratio", "max", "max_music_ratio", "music share"),
    Rule(Reason.NOISY, "snr_db", "min", "min_snr_db", "speech to noise", "dB"),
    Rule(Reason.NOISY, "speech_quality", "min", "min_speech_quality", "speech quality", "MOS"),
    Rule(Reason.DARK, "luminance", "min", "min_luminance", "luminance"),
    Rule(Reason.DARK, "luminance", "max", "max_luminance", "luminance"),
    Rule(Reason.LOW_MOTION, "motion", "min", "min_motion", "motion"),
    Rule(Reason.LOW_MOTION, "repeated_frame_ratio", "max", "max_repeated_frame_ratio", "repeated frames"),
    Rule(Reason.HIGH_MOTION, "motion", "max", "max_motion", "motion"),
    Rule(Reason.NO_FACE, "face_detected_ratio", "min", "min_face_detected_ratio", "face seen"),
    Rule(Reason.NO_FACE, "face_gap_s", "max", "max_face_gap_s", "longest time without face", "s"),
    Rule(Reason.MULTI_FACE, "other_face_ratio", "max", "max_other_face_ratio", "second face's width"),
    Rule(Reason.FACE_TOO_SMALL, "face_fraction", "min", "min_face_fraction", "face height / frame"),
    Rule(Reason.FACE_TOO_SMALL, "face_height_px", "min", "min_face_height_px", "face height", "px"),
    Rule(Reason.PROFILE, "yaw_deg_p95", "max", "max_yaw_deg", "yaw, 95th percentile", "°"),
    Rule(Reason.PROFILE, "pitch_deg_p95", "max", "max_pitch_deg", "pitch, 95th percentile", "°"),
    Rule(Reason.PROFILE, "roll_deg_p95", "max", "max_roll_deg", "roll, 95th percentile", "°"),
    Rule(Reason.OCCLUDED, "face_confidence", "min", "min_face_confidence", "detector's confidence"),
    Rule(Reason.NOT_HUMAN, "human_score", "min", "min_human_score", "human face score"),
    Rule(
        Reason.UNSTABLE_IDENTITY, "identity_consistency", "min", "min_identity_consistency", "same identity"
    ),
    Rule(Reason.BLURRY, "sharpness", "min", "min_sharpness", "sharpness"),
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A rule with its limit, as the report draws it."""

    column: str
    label: str
    unit: str
    bound: Literal["min", "max"]
    value: float | None
    reason: str


def thresholds(filters: FiltersConfig) -> list[Threshold]:
    """Every rule with the limit that `filters` gives it."""
    return [
        Threshold(r.column, r.label, r.unit, r.bound, getattr(filters, r.filter_key), r.reason) for r in RULES
    ]


def reasons_of(clip: Clip, filters: FiltersConfig) -> list[Reason]:
    """Every reason against one clip, given what has been measured on it so far."""
    found = set(clip.reasons)
    for rule in RULES:
        value, limit = getattr(clip, rule.column), getattr(filters, rule.filter_key)
        if value is not None and limit is not None and rule.violated(value, limit):
            found.add(rule.reason)
    if filters.languages and clip.language is not None and clip.language not in filters.languages:
        found.add(Reason.WRONG_LANGUAGE)
    return [reason for reason in REASONS if reason in found]


def reasons_of_table(table: pa.Table, filters: FiltersConfig) -> np.ndarray:
    """(rows, len(REASONS)) bool: `reasons_of` for every row of a table of measurements."""
    against = np.zeros((table.num_rows, len(REASONS)), bool)
    column_of = {reason: i for i, reason in enumerate(REASONS)}
    _mark_stage_reasons(against, table["stage_reasons"].combine_chunks(), column_of)
    for rule in RULES:
        limit = getattr(filters, rule.filter_key)
        if limit is not None:
            values = table[rule.column].to_numpy(zero_copy_only=False).astype(np.float64)
            against[:, column_of[rule.reason]] |= rule.violated(values, limit)
    if filters.languages:
        languages = table["language"].to_pylist()
        allowed = {None, *filters.languages}
        against[:, column_of[Reason.WRONG_LANGUAGE]] |= np.array([x not in allowed for x in languages], bool)
    return against


def decide(table: pa.Table, filters: FiltersConfig) -> pa.Table:
    """The table with `status`, `reason`, `reasons` and `split` for every row."""
    against = reasons_of_table(table, filters)
    # A looser rule lets a clip pass whose source could not be read again to measure it to the end.
    against[needs_measuring(table, filters), REASONS.index(Reason.MISSING)] = True
    rejected = against.any(axis=1)
    first = np.where(rejected, against.argmax(axis=1), -1)
    reason = pa.array([None if i < 0 else REASONS[i].value for i in first], pa.string())
    status = pa.array([_status(i) for i in first], pa.string())
    # Splits are by identity, which a later step measures: until then every kept clip is for training.
    split = pa.array(["train" if i < 0 else None for i in first], pa.string())
    columns = {"status": status, "reason": reason, "reasons": _as_lists(against), "split": split}
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _status(first: int) -> str:
    if first < 0:
        return "kept"
    return "error" if REASONS[first] in ERROR_REASONS else "rejected"


def _mark_stage_reasons(against: np.ndarray, stage_reasons: pa.ListArray, column_of: dict) -> None:
    rows = pc.list_parent_indices(stage_reasons).to_pylist()
    for row, reason in zip(rows, stage_reasons.flatten().to_pylist(), strict=True):
        against[row, column_of[Reason(reason)]] = True


def _as_lists(against: np.ndarray) -> pa.ListArray:
    names = np.array([reason.value for reason in REASONS], object)
    offsets = np.concatenate([[0], np.cumsum(against.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(names[np.nonzero(against)[1]], pa.string()))


def needs_measuring(table: pa.Table, filters: FiltersConfig, measure_all: bool = False) -> np.ndarray:
    """(rows,) bool: rows that no rule stops, but whose measuring an earlier, stricter rule had stopped."""
    against = reasons_of_table(table, filters).any(axis=1)
    has_media = table["has_media"].to_numpy(zero_copy_only=False).astype(bool)
    complete = table["complete"].to_numpy(zero_copy_only=False).astype(bool)
    return (~against & ~has_media) | (measure_all & ~complete)
