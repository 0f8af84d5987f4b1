"""The actors of the measuring graph: what each does with the clips that come by.

    Decode   rows of a listing -> clips, each source closed by a row of its own
    Listen   speech;  Look   faces, then fingerprints: each holds its models
    Synchronise   sync, of clips that passed every rule so far
    Encode   media of clips that passed every rule, and the ledger; only sources' own rows go on

Whatever goes wrong with a clip or source becomes its outcome. Clips that a rule has stopped pass through.
"""

import logging
import pickle
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from data_pipeline import policy
from data_pipeline.clip import ERROR_REASONS, RETRIED_REASONS, Clip, Reason
from data_pipeline.config import CurationConfig
from data_pipeline.dataset import tombstones_of
from data_pipeline.ledger import Ledger, Record
from data_pipeline.shards import file_sha256
from data_pipeline.sources import SOURCES, Source
from data_pipeline.storage import filling, location

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SourceRow:
    """What the graph says of one source when it is through with it."""

    source: Source
    clip: Clip
    clip_ids: list[str] = field(default_factory=list)
    size: int | None = None
    modified_ns: int | None = None
    skipped: bool = False
    """Its record was there."""
    purged: bool = False
    """A tombstone covers all that it gives: it is neither measured nor listed."""


@dataclass(frozen=True, slots=True)
class Item:
    """What travels: a clip with the source it comes from, or at last the source's own row."""

    source: Source
    clip: Clip
    end: SourceRow | None = None


class Decode:
    """Rows of a listing -> clips, each source closed by its own row."""

    def __init__(self, config: CurationConfig) -> None:
        self.config = config
        self.ledger = Ledger(location(config.output), config.measure_sha256())
        self.tombstones = tombstones_of(location(config.output))
        self.sandbox = _sandbox(config)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            for item in self._source(source_of(row), row):
                yield packed([item])

    def _source(self, source: Source, known: dict[str, Any]) -> Iterator[Item]:
        end = SourceRow(source, _as_clip(source), purged=self.tombstones.cover_uri(source.uri))
        if end.purged:
            yield Item(source, end.clip, end)
            return
        try:
            self._identify(end, known)
        except Exception as error:  # noqa: BLE001 - becomes the source's outcome
            _fail(end.clip, error)
        end.purged = self.tombstones.cover_content(end.clip.source_sha256)
        if end.clip.source_sha256 is None or end.purged:
            yield Item(source, end.clip, end)
            return
        record = self.ledger.record(end.clip.source_sha256, source.window)
        if record is not None and self._is_done(record):
            end.skipped, end.clip_ids = True, record.clip_ids
            yield Item(source, end.clip, end)
            return
        self.ledger.forget(end.clip.source_sha256, source.window)
        yield from self._clips(end)
        yield Item(source, end.clip, end)

    def _identify(self, end: SourceRow, known: dict[str, Any]) -> None:
        from data_pipeline.media import MediaError
        from data_pipeline.stages.caption import sidecar_caption

        try:
            path = end.source.path
        except ValueError as error:
            raise MediaError(Reason.UNSUPPORTED, str(error)) from None
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would never end
                raise MediaError(Reason.UNSUPPORTED, f"{path}: not a plain file")
            end.size, end.modified_ns = status.st_size, status.st_mtime_ns
            unchanged = (end.size, end.modified_ns) == (known["known_size"], known["known_modified_ns"])
            end.clip.source_sha256 = (known["known_sha256"] if unchanged else None) or file_sha256(path)
        except FileNotFoundError:
            raise MediaError(Reason.MISSING, f"{path}: no such file") from None
        except OSError as error:
            raise MediaError(Reason.STORAGE, f"{path}: cannot be read: {error.strerror}") from None
        if end.source.caption is None:
            end.source = replace(end.source, caption=sidecar_caption(path))
        if end.source.sha256 not in (None, end.clip.source_sha256):
            found, end.clip.source_sha256 = end.clip.source_sha256, None
            raise MediaError(
                Reason.CORRUPT, f"{path}: the list says sha256 {end.source.sha256}, the file has {found}"
            )

    def _is_done(self, record: Record) -> bool:
        if record.reason is not None:  # no threshold made it, so none can change it
            return record.reason not in RETRIED_REASONS
        rows = self.ledger.measurements(record)
        return not policy.needs_measuring(rows, self.config.filters, self.config.measure_all).any()

    def _clips(self, end: SourceRow) -> Iterator[Item]:
        from data_pipeline.stages.segment import probe_source, segment_alive

        config, given, started = self.config, end.source, time.perf_counter()
        max_pixels = config.limits.max_pixels
        try:
            end.clip = self.sandbox.call(probe_source, given.path, end.clip, max_pixels)
            if not policy.reasons_of(end.clip, config.filters):
                given_to = (given.path, end.clip, config.segment, max_pixels)
                for piece in self.sandbox.stream(segment_alive, *given_to):
                    if piece is None:
                        continue
                    if piece.clip_id is None:
                        end.clip = piece
                    elif self.tombstones.cover_clip(piece.source_sha256, piece.start_s, piece.end_s):
                        end.purged = True
                    else:
                        end.clip_ids.append(piece.clip_id)
                        yield Item(given, _lightened(piece, config))
        except Exception as error:  # noqa: BLE001 - becomes the source's outcome
            _fail(end.clip, error)
        if end.clip.reasons:  # a source that broke half-way is not half a source
            end.clip_ids.clear()
        end.purged = end.purged and not (end.clip_ids or end.clip.reasons)
        end.clip.stage_seconds["decode"] = time.perf_counter() - started


class Listen:
    """The speech stage in an actor."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.speech import Speech

        self.config, self.stage = config, Speech(config.speech, config.limits.transcribe_timeout_s)
        self.stage.setup()
        self.clock = time.perf_counter if config.speech.runs_whisperx else time.process_time

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _through({"speech": self.stage}, batch, self.config, self.clock)


class Look:
    """The faces stage in an actor, and the fingerprint, which looks at the same frames."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.faces import Faces
        from data_pipeline.stages.fingerprint import fingerprint

        faces = Faces(config.faces)
        faces.setup()
        self.config = config
        self.stages: dict[str, Callable[[Clip], Clip]] = {"faces": faces, "fingerprint": fingerprint}

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _through(self.stages, batch, self.config)


class Synchronise:
    """The sync stage in an actor: decodes a clip again, around its face, in a child process."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.sync import Sync

        self.config = config
        self.sandbox = _sandbox(config)
        self.stage = Sync(config.sync)
        self.stage.setup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        items = []
        for item in unpacked(batch):
            if item.end is None:
                measure = partial(self._measured, item.source)
                clip = _advanced("sync", measure, item.clip, self.config, clock=time.perf_counter)
                item = Item(item.source, _lightened(clip, self.config))
            items.append(item)
        return packed(items)

    def _measured(self, source: Source, clip: Clip) -> Clip:
        from data_pipeline.stages.face_crops import face_crops

        bare = replace(clip, frames=None, audio=None, words=[], thumbnail=None)  # what the child needs of it
        given_to = (bare, source.path, self.config.limits.max_pixels)
        return self.stage(clip, partial(self.sandbox.stream, face_crops, *given_to))


class Encode:
    """Writes media and ledger; only sources' own rows go on."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.caption import Caption

        self.config = config
        self.ledger = Ledger(location(config.output), config.measure_sha256())
        self.sandbox = _sandbox(config)
        self.caption = Caption(config.caption)
        self.caption.setup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        ends = []
        for item in unpacked(batch):
            if item.end is None:
                self._clip(item)
                continue
            self._source(item.end)
            ends.append(item)
        return packed(ends)

    def _source(self, end: SourceRow) -> None:
        if end.clip.source_sha256 is None or end.skipped or end.purged:
            return
        try:
            self.ledger.add_source(end.clip, end.clip_ids, end.source.window)
        except OSError as error:  # no record: for the listing it is as if it had not been read
            end.clip.source_sha256 = None
            end.clip.reasons, end.clip.error = [Reason.STORAGE], f"cannot be recorded: {error}"

    def _clip(self, item: Item) -> None:
        clip = _advanced("caption", self.caption, item.clip, self.config)
        complete = not _stopped(clip, self.config)
        if not policy.reasons_of(clip, self.config.filters):
            encode = partial(self._encoded, item.source)
            clip = _advanced("encode", encode, clip, self.config, clock=time.perf_counter)
        try:
            self.ledger.add_clip(clip, item.source.window, complete)
        except OSError as error:  # its source stays without a record; pack and the next run see to it
            log.error("%s: clip %s cannot be recorded: %s", item.source.uri, clip.clip_id, error)

    def _encoded(self, source: Source, clip: Clip) -> Clip:
        from data_pipeline.stages.encode import encode

        with filling(self.ledger.folder(str(clip.source_sha256))) as folder:
            return self.sandbox.call(encode, clip, source.path, folder, self.config.encode)


def _through(
    stages: Mapping[str, Callable[[Clip], Clip]],
    batch: pa.Table,
    config: CurationConfig,
    clock: Callable[[], float] = time.process_time,
) -> pa.Table:
    items = []
    for item in unpacked(batch):
        if item.end is None:
            clip = item.clip
            for name, stage in stages.items():
                clip = _advanced(name, stage, clip, config, clock)
            item = Item(item.source, _lightened(clip, config))
        items.append(item)
    return packed(items)


def _advanced(
    name: str,
    stage: Callable[[Clip], Clip],
    clip: Clip,
    config: CurationConfig,
    clock: Callable[[], float] = time.process_time,
) -> Clip:
    """The clip after a stage; untouched where a rule has stopped it.

    Models run in this process, so their cost is its CPU time; what runs in a child is timed by the wall.
    """
    if _stopped(clip, config):
        return clip
    started, advanced = clock(), clip
    try:
        advanced = stage(clip)
    except Exception as error:  # noqa: BLE001 - becomes the clip's outcome
        _fail(clip, error)
    advanced.stage_seconds[name] = clock() - started
    return advanced


def _stopped(clip: Clip, config: CurationConfig) -> bool:
    reasons = policy.reasons_of(clip, config.filters)
    return any(r in ERROR_REASONS for r in reasons) or (bool(reasons) and not config.measure_all)


def _lightened(clip: Clip, config: CurationConfig) -> Clip:
    """Without what no later stage will look at."""
    if _stopped(clip, config):
        clip.frames = clip.audio = clip.track = None
    elif clip.track is not None:
        clip.frames = None
    return clip


def _fail(clip: Clip, error: Exception) -> None:
    """One poisoned item harms only itself: whatever goes wrong with it becomes its outcome."""
    from data_pipeline.isolation import ChildCrashed, ChildTimeout
    from data_pipeline.media import MediaError

    if isinstance(error, MediaError):
        clip.reasons, clip.error = [error.reason], str(error)
        return
    known = (
        (ChildTimeout, Reason.DECODE_TIMEOUT),
        (ChildCrashed, Reason.DECODER_CRASH),
        (MemoryError, Reason.UNSUPPORTED),  # more than limits.address_space_gb
        (OSError, Reason.STORAGE),
    )
    reason = next((reason for kind, reason in known if isinstance(error, kind)), Reason.STAGE_FAILED)
    clip.reasons, clip.error = [reason], f"{type(error).__name__}: {error}"


def _sandbox(config: CurationConfig) -> Any:
    from data_pipeline.isolation import Sandbox

    limits = config.limits
    return Sandbox(
        address_space_bytes=int(limits.address_space_gb * 2**30),
        timeout_s=limits.decode_timeout_s,
        stall_timeout_s=limits.stall_timeout_s,
    )


def _as_clip(source: Source) -> Clip:
    crop = list(source.crop) if source.crop else None
    return Clip(source.uri, start_s=source.start_s, end_s=source.end_s, crop=crop)


def source_of(row: dict[str, Any]) -> Source:
    """The source that a row of a listing describes."""
    given = {name: row[name] for name in SOURCES.names}
    given["crop"] = tuple(given["crop"]) if given["crop"] else None
    return Source(**given)


def packed(items: list[Item]) -> pa.Table:
    return pa.table({"item": pa.array([pickle.dumps(item) for item in items], pa.large_binary())})


def unpacked(batch: pa.Table) -> Iterator[Item]:
    for item in batch["item"]:
        yield pickle.loads(item.as_py())  # noqa: S301 - our own workers'
