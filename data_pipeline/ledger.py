"""What has been measured, on disk: one folder a source, keyed by its content.

    measured/{sha256[:2]}/{sha256}/{clip_id}.mp4 .flac .npz     media of clips that passed every rule
                                  /measurements.parquet         one row a clip (or one without clip_id)
                                  /record.json                  written last: this source is done
    measured/sources.parquet                                    the last listing: uri -> content

Several workers may hold clips of one source. Each writes its clip's row into `parts-…/`; whoever
finds the set complete gathers it. Every write is of a whole file and says the same whoever does it, so a
kill at any moment, or the same work done twice, changes nothing.

A part of a source (a list's time range or crop) has files of its own: `record-{window}.json`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.clip import Clip, Reason, Word
from data_pipeline.storage import Location, read_table, remove_tree, replacing

MEASUREMENTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("source_sha256", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("source_fps", pa.float64()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("repeated_frame_ratio", pa.float64()),
        ("luminance", pa.float64()),
        ("sharpness", pa.float64()),
        ("motion", pa.float64()),
        ("blockiness", pa.float64()),
        ("loudness_dbfs", pa.float64()),
        ("speech_ratio", pa.float64()),
        ("music_ratio", pa.float64()),
        ("singing_ratio", pa.float64()),
        ("snr_db", pa.float64()),
        ("speech_quality", pa.float64()),
        ("language", pa.string()),
        ("language_probability", pa.float64()),
        ("transcript", pa.string()),
        ("n_words", pa.int32()),
        ("asr_logprob", pa.float64()),
        (
            "words",
            pa.list_(
                pa.struct(
                    [
                        ("text", pa.string()),
                        ("start_s", pa.float64()),
                        ("end_s", pa.float64()),
                        ("probability", pa.float64()),
                    ]
                )
            ),
        ),
        ("speech_backend", pa.string()),
        ("n_faces_max", pa.int32()),
        ("other_face_ratio", pa.float64()),
        ("face_fraction", pa.float64()),
        ("face_height_px", pa.float64()),
        ("face_detected_ratio", pa.float64()),
        ("face_gap_s", pa.float64()),
        ("face_confidence", pa.float64()),
        ("yaw_deg_p95", pa.float64()),
        ("pitch_deg_p95", pa.float64()),
        ("roll_deg_p95", pa.float64()),
        ("identity_consistency", pa.float64()),
        ("human_score", pa.float64()),
        ("face_backend", pa.string()),
        ("identity_embedding", pa.list_(pa.float32())),
        ("sync_offset_frames", pa.float64()),
        ("sync_shift_applied_s", pa.float64()),
        ("sync_confidence", pa.float64()),
        ("sync_distance", pa.float64()),
        ("sync_margin", pa.float64()),
        ("sync_backend", pa.string()),
        ("phash", pa.string()),
        ("audio_fingerprint", pa.binary()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("n_frames", pa.int32()),
        ("crop", pa.list_(pa.float64())),
        ("stage_reasons", pa.list_(pa.string())),
        ("complete", pa.bool_()),
        ("has_media", pa.bool_()),
        ("error", pa.string()),
        ("thumbnail", pa.binary()),
        ("measure_sha256", pa.string()),
    ]
)
DECIMALS = 6
"""Stored floats are rounded: no last bit of one machine decides about a dataset."""

MEDIA = (".mp4", ".flac", ".npz")


@dataclass(frozen=True, slots=True)
class Record:
    """A source that is done."""

    source_sha256: str
    window: str
    measure_sha256: str
    clip_ids: list[str]
    reason: Reason | None
    error: str | None
    stage_seconds: dict[str, float]
    duration_s: float


def measurement_row(clip: Clip, measure_sha256: str, complete: bool) -> dict[str, Any]:
    """A clip as a row of MEASUREMENTS."""
    own = {
        field.name: getattr(clip, field.name) for field in fields(Clip) if field.name in MEASUREMENTS.names
    }
    row = {name: round(value, DECIMALS) if isinstance(value, float) else value for name, value in own.items()}
    row["words"] = [_word_row(word) for word in clip.words]
    row["stage_reasons"] = [reason.value for reason in clip.reasons]
    row["has_media"] = clip.n_frames is not None
    return row | {"complete": complete, "measure_sha256": measure_sha256}


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows under a later schema: what did not exist when they were written was not measured, so is null."""
    if rows.schema.equals(schema):
        return rows
    known = rows.column_names
    columns = [
        rows[column.name].cast(column.type) if column.name in known else pa.nulls(rows.num_rows, column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _word_row(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start_s": round(word.start_s, 3),
        "end_s": round(word.end_s, 3),
        "probability": round(word.probability, 4),
    }


class Ledger:
    """The `measured/` folder of a dataset, for one measuring configuration."""

    def __init__(self, dataset: Location, measure_sha256: str) -> None:
        self.root = dataset / "measured"
        self.measure_sha256 = measure_sha256

    def folder(self, sha256: str) -> Location:
        """Where everything of one source lies."""
        return self.root / sha256[:2] / sha256

    def record(self, sha256: str, window: str = "") -> Record | None:
        """The record of a source that is done under this configuration."""
        try:
            record = Record(**json.loads(_record_path(self.folder(sha256), window).read_text()))
        except FileNotFoundError:
            return None
        return record if record.measure_sha256 == self.measure_sha256 else None

    def measurements(self, record: Record) -> pa.Table:
        """The rows of one record."""
        path = _measurements_path(self.folder(record.source_sha256), record.window)
        return conformed(read_table(path), MEASUREMENTS)

    def add_record(self, record: Record, rows: pa.Table) -> None:
        """Take over a source that was measured elsewhere under this configuration."""
        folder = self.folder(record.source_sha256)
        _write_rows(_measurements_path(folder, record.window), rows)
        _write_json(_record_path(folder, record.window), asdict(record))

    def holds(self, sha256: str) -> bool:
        """Whether anything was measured of this content, under whatever configuration."""
        return any(self.folder(sha256).glob("record*.json"))

    def forget(self, sha256: str, window: str = "") -> None:
        """Take back a record whose clips are to be measured further."""
        _record_path(self.folder(sha256), window).unlink(missing_ok=True)

    def add_clip(self, clip: Clip, window: str, complete: bool) -> None:
        """Write one clip's row, and the record if it was the last one."""
        if clip.source_sha256 is None or clip.clip_id is None:
            raise ValueError(f"{clip.source_uri}: a clip without content hash or name cannot be recorded")
        row = measurement_row(clip, self.measure_sha256, complete)
        with self._parts(clip.source_sha256, window) as parts:
            _write_json(parts / f"{clip.clip_id}.json", clip.stage_seconds)
            _write_rows(parts / f"{clip.clip_id}.parquet", pa.Table.from_pylist([row], MEASUREMENTS))
            self._gather(parts, clip.source_sha256, window)

    def add_source(self, source: Clip, clip_ids: list[str], window: str) -> None:
        """Say which clips a source gave, once all of them are on their way; none is an outcome, too."""
        if source.source_sha256 is None:
            raise ValueError(f"{source.source_uri}: a source without content hash cannot be recorded")
        plan = {
            "clip_ids": clip_ids,
            "reason": source.reasons[0] if source.reasons else None,
            "error": source.error,
            "stage_seconds": source.stage_seconds,
            "duration_s": source.source_duration_s or 0.0,
        }
        if not clip_ids:
            row = measurement_row(source, self.measure_sha256, complete=False)
            self._commit(source.source_sha256, window, pa.Table.from_pylist([row], MEASUREMENTS), plan)
            remove_tree(self._parts_folder(source.source_sha256, window), ignore_errors=True)
            return
        with self._parts(source.source_sha256, window) as parts:
            _write_json(parts / "plan.json", plan)
            self._gather(parts, source.source_sha256, window)

    @contextmanager
    def _parts(self, sha256: str, window: str) -> Iterator[Location]:
        """The folder that collects a source's rows.

        The same content under two names may be measured twice at a time. Whoever comes second finds
        the record made and the folder gone: all is said, and what it wrote since is swept away.
        """
        parts = self._parts_folder(sha256, window)
        try:
            yield parts
        except (FileNotFoundError, FileExistsError):  # mkdir says the latter of a folder that goes meanwhile
            if self.record(sha256, window) is None:
                raise
        if self.record(sha256, window) is not None:
            remove_tree(parts, ignore_errors=True)

    def _parts_folder(self, sha256: str, window: str) -> Location:
        return self.folder(sha256) / f"parts-{self.measure_sha256[:8]}{window}"

    def _gather(self, parts: Location, sha256: str, window: str) -> None:
        """Make the record if the plan and the rows of all its clips are there."""
        if not (parts / "plan.json").exists():
            return
        plan = json.loads((parts / "plan.json").read_text())
        rows = [parts / f"{clip_id}.parquet" for clip_id in plan["clip_ids"]]
        here = {path.name for path in parts.iterdir()}
        if not all(path.name in here for path in rows):
            return
        seconds = [json.loads(path.with_suffix(".json").read_text()) for path in rows]
        plan["stage_seconds"] = _summed([plan["stage_seconds"], *seconds])
        table = pa.concat_tables([read_table(path) for path in rows])
        self._commit(
            sha256, window, table.sort_by([("start_s", "ascending"), ("clip_id", "ascending")]), plan
        )

    def _commit(self, sha256: str, window: str, rows: pa.Table, plan: dict[str, Any]) -> None:
        folder = self.folder(sha256)
        _write_rows(_measurements_path(folder, window), rows)
        own = {"source_sha256": sha256, "window": window, "measure_sha256": self.measure_sha256}
        _write_json(_record_path(folder, window), own | plan)


def forget_clips(folder: Location, is_gone: Callable[..., bool]) -> bool:
    """Delete clips for which `is_gone(start_s, end_s)` from one source's folder; whether any clip is left.

    Every trace of them goes, in an order that a kill cannot harm: half-collected rows, rows, media, and
    at last the records' list of names."""
    found: list[Location] = list(folder.iterdir())
    for path in found:
        if path.name.startswith("parts-"):
            remove_tree(path)
        elif path.name.startswith("."):  # of a writer that died
            path.unlink(missing_ok=True)
    left: set[str] = set()
    for path in [path for path in found if path.suffix == ".parquet"]:
        rows = read_table(path)
        times = zip(rows["start_s"].to_pylist(), rows["end_s"].to_pylist(), strict=True)
        stay = rows.filter(pa.array([not is_gone(*time) for time in times], pa.bool_()))
        if stay.num_rows < rows.num_rows:
            _write_rows(path, stay)
        left |= {clip_id for clip_id in stay["clip_id"].to_pylist() if clip_id}
    for path in [path for path in found if path.suffix in MEDIA and path.stem not in left]:
        path.unlink(missing_ok=True)
    for path in folder.glob("record*.json"):
        record = json.loads(path.read_text())
        record["clip_ids"] = [clip_id for clip_id in record["clip_ids"] if clip_id in left]
        _write_json(path, record)
    return bool(left)


def _record_path(folder: Location, window: str) -> Location:
    return folder / (f"record-{window}.json" if window else "record.json")


def _measurements_path(folder: Location, window: str) -> Location:
    return folder / (f"measurements-{window}.parquet" if window else "measurements.parquet")


def _write_rows(path: Location, rows: pa.Table) -> None:
    with replacing(path) as temporary:
        pq.write_table(rows, temporary)


def _write_json(path: Location, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1))


def _summed(parts: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for stage, seconds in part.items():
            total[stage] = round(total.get(stage, 0.0) + seconds, 4)
    return total


LISTING = pa.schema(
    [
        ("uri", pa.string()),
        ("window", pa.string()),
        ("source_sha256", pa.string()),
        ("licence", pa.string()),
        ("speaker", pa.string()),
        ("caption", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("size", pa.int64()),
        ("modified_ns", pa.int64()),
    ]
)
"""One row for every listed source; `reason` and `error` only where there is no content to key by."""


def listing_path(dataset: Location) -> Location:
    """The last listing of a dataset: a Parquet file of LISTING, in order of uri and window."""
    return dataset / "measured" / "sources.parquet"
