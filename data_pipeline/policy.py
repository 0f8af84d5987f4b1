"""What is kept: thresholds over stored measurements. Pure: no files, no clocks, no randomness.

`decide(table)` takes one row for every clip and for every source that gave none, and adds `status`,
`reason` and `reasons`. The same rules, asked of one clip while it is being measured, say when measuring
it further would be wasted (`reasons_of`).
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline import sync_rules
from data_pipeline.clip import ERROR_REASONS, Clip, Reason
from data_pipeline.config import FiltersConfig
from data_pipeline.labels import DROP, KEEP
from data_pipeline.sync_rules import SyncScores

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


WORTH = (
    *("clip_id", "start_s", "end_s", "face_height_px", "source_width", "source_height"),
    *("repeated_frame_ratio", "sharpness", "sync_confidence"),
)
"""What says which of several copies is the best."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A rule with its limit, as the report draws it."""

    column: str
    label: str
    unit: str
    bound: Literal["min", "max"]
    value: float | None
    reason: str


def thresholds(filters: FiltersConfig, sync_backend: str = "lip_correlation") -> list[Threshold]:
    """Every rule with the limit that `filters` gives it; those about sync for rows of `sync_backend`."""
    limits = [
        Threshold(r.column, r.label, r.unit, r.bound, getattr(filters, r.filter_key), r.reason) for r in RULES
    ]
    offset, off = filters.max_sync_offset_frames, Reason.OFF_SYNC
    early = None if offset is None else -offset
    confidence = sync_rules.min_confidence(filters, sync_backend)
    distance = sync_rules.max_distance(filters, sync_backend)
    return [
        *limits,
        Threshold("sync_offset_frames", "sync offset", "frames", "min", early, off),
        Threshold("sync_offset_frames", "sync offset", "frames", "max", offset, off),
        Threshold("sync_distance", "sync distance", "", "max", distance, off),
        Threshold("sync_confidence", "sync confidence", "", "min", confidence, Reason.SYNC_UNMEASURED),
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
    if clip.sync_backend is not None:
        off, unmeasured = sync_rules.sync_verdicts(_scores_of(clip), filters)
        found |= {Reason.OFF_SYNC} if off[0] else set()
        found |= {Reason.SYNC_UNMEASURED} if unmeasured[0] else set()
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
    off, unmeasured = sync_rules.sync_verdicts(_scores_of_table(table), filters)
    against[:, column_of[Reason.OFF_SYNC]] |= off
    against[:, column_of[Reason.SYNC_UNMEASURED]] |= unmeasured
    if "source_licence" in table.column_names:  # the listing's, so not known while measuring
        of_clips = table["clip_id"].is_valid().to_numpy(zero_copy_only=False).astype(bool)
        against[:, column_of[Reason.LICENCE]] |= of_clips & _unlicensed(table["source_licence"], filters)
    return against


def _scores_of(clip: Clip) -> SyncScores:
    values = (getattr(clip, name) for name in sync_rules.COLUMNS[1:])
    floats = (np.array([np.nan if value is None else value]) for value in values)
    return SyncScores(np.array([clip.sync_backend], object), *floats)


def _scores_of_table(table: pa.Table) -> SyncScores:
    floats = (
        table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in sync_rules.COLUMNS[1:]
    )
    return SyncScores(np.array(table["sync_backend"].to_pylist(), object), *floats)


def licence_allowed(licence: str | None, filters: FiltersConfig) -> bool:
    """Whether clips under this licence may be kept. Patterns as in a shell; case, and the difference
    between a blank, `_` and `-`, do not count, so `cc-by-*` is "CC BY 4.0" and CC-BY-SA-3.0 alike."""
    name = _licence_name(licence or "")
    if not name:
        return filters.allow_unknown_licence
    if any(fnmatchcase(name, _licence_name(pattern)) for pattern in filters.denied_licences):
        return False
    return not filters.licences or any(fnmatchcase(name, _licence_name(p)) for p in filters.licences)


def _licence_name(text: str) -> str:
    return re.sub(r"[\s_-]+", "-", text.strip()).casefold()


def _unlicensed(licences: pa.ChunkedArray, filters: FiltersConfig) -> np.ndarray:
    verdicts = {licence: not licence_allowed(licence, filters) for licence in licences.unique().to_pylist()}
    return np.array([verdicts[licence] for licence in licences.to_pylist()], bool)


def decide(table: pa.Table, filters: FiltersConfig, labels: pa.Table | None = None) -> pa.Table:
    """The table with `status`, `reason`, `reasons` and `duplicate_of` for every row.

    `labels` (rows of LABELS) are reviewers' words, which overrule every rule."""
    against = reasons_of_table(table, filters)
    # A looser rule lets a clip pass whose source could not be read again to measure it to the end.
    against[needs_measuring(table, filters), REASONS.index(Reason.MISSING)] = True
    must_stay = _overrule(against, table, labels)
    duplicate_of = _originals(table, np.logical_not(against.any(axis=1)), must_stay, filters)
    against[[clip_id is not None for clip_id in duplicate_of], REASONS.index(Reason.DUPLICATE)] = True
    rejected = against.any(axis=1)
    first = np.where(rejected, against.argmax(axis=1), -1)
    reason = pa.array([None if i < 0 else REASONS[i].value for i in first], pa.string())
    status = pa.array([_status(i) for i in first], pa.string())
    columns = {"status": status, "reason": reason, "reasons": _as_lists(against)}
    columns["duplicate_of"] = pa.array(duplicate_of, pa.string())
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _overrule(against: np.ndarray, table: pa.Table, labels: pa.Table | None) -> np.ndarray:
    """Change `against` by reviewers' words; returns (rows,) bool: those that must be kept.

    No word makes good an error, or media that were never encoded."""
    if labels is None or not labels.num_rows:
        return np.zeros(table.num_rows, bool)
    words = dict(zip(labels["clip_id"].to_pylist(), labels["label"].to_pylist(), strict=True))
    given = np.array([words.get(clip_id) for clip_id in table["clip_id"].to_pylist()], object)
    against[given == DROP, REASONS.index(Reason.LABELLED_OUT)] = True
    has_media = table["has_media"].to_numpy(zero_copy_only=False).astype(bool)
    failed = against[:, [reason in ERROR_REASONS for reason in REASONS]].any(axis=1)
    keep: np.ndarray = (given == KEEP) & has_media & ~failed
    against[keep] = False
    return keep


def _originals(
    table: pa.Table, passing: np.ndarray, must_stay: np.ndarray, filters: FiltersConfig
) -> np.ndarray:
    """(rows,) object: for each clip that must give way, the clip_id of its group's best; else None.

    Only clips that no rule is against compete, so that the next one moves up when the best one goes."""
    originals = np.full(table.num_rows, None, object)
    if filters.keep_duplicates or "duplicate_group" not in table.column_names:
        return originals
    rows = np.flatnonzero(passing & table["duplicate_group"].is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return originals
    worth = table.select([name for name in WORTH if name in table.column_names])
    best_first = rows[_best_first(worth.take(pa.array(rows)), must_stay[rows])]
    groups = table["duplicate_group"].take(pa.array(best_first)).to_pylist()
    ids = table["clip_id"].take(pa.array(best_first)).to_pylist()
    best: dict[str, str] = {}
    for row, group, clip_id in zip(best_first, groups, ids, strict=True):
        if best.setdefault(group, clip_id) != clip_id and not must_stay[row]:
            originals[row] = best[group]
    return originals


def _best_first(table: pa.Table, must_stay: np.ndarray) -> np.ndarray:
    """(rows,) places in order of worth.

    Before all a reviewer's word; then the larger face, in steps of a quarter, so that a detector's last
    pixel does not decide; the larger source, which is the one that nobody cropped; fewer repeated frames,
    the rate it was filmed at; the longer; the sharper; the surer in sync; the smaller clip_id."""

    def column(name: str, missing: float = -np.inf) -> np.ndarray:
        if name not in table.column_names:
            return np.full(table.num_rows, missing)
        values = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        return np.where(np.isnan(values), missing, values)

    face = np.floor(np.log(np.maximum(column("face_height_px", 1.0), 1.0)) / np.log(1.25))
    size = column("source_width") * column("source_height", 1.0)
    repeats = np.round(column("repeated_frame_ratio", 1.0), 1)
    seconds = np.round(column("end_s") - column("start_s", 0.0), 1)
    worth = (~must_stay, -face, -size, repeats, -seconds, -column("sharpness"), -column("sync_confidence"))
    by_id = np.argsort(np.array(table["clip_id"].to_pylist(), object), kind="stable")
    return by_id[np.lexsort([key[by_id] for key in reversed(worth)])]


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
