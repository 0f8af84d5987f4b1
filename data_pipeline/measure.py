"""measure: sources -> measured clips and their ledger, as one Ray Data graph.

    listing (Parquet) -> decode -> speech -> faces -> encode -> one row a source

decode   hashes a source, skips it if its record is there, else cuts it into clips: small analysis
         frames and 16 kHz sound travel on, full-size pictures never do
speech, faces   each an actor pool of its own, its models loaded once
encode   writes the media of clips that passed every rule, and the ledger

Clips that a rule has stopped pass through untouched. A source ends with a row of its own, after its
clips, that names them; it is what the driver counts. The driver sees one small row a source.
"""

import hashlib
import logging
import pickle
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import policy
from data_pipeline.clip import ERROR_REASONS, RETRIED_REASONS, Clip, Reason
from data_pipeline.config import CurationConfig, ResourcesConfig
from data_pipeline.ledger import LISTING, Ledger, Record, replacing
from data_pipeline.sources import SOURCES, Source

BLOCK_BYTES = 16 * 2**20  # what travels between actors at a time
PASSES = 3  # a block whose worker died is done again, in ever smaller blocks
Progress = Callable[["SourceRow"], None]
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


@dataclass(frozen=True, slots=True)
class Item:
    """What travels: a clip with the source it comes from, or at last the source's own row."""

    source: Source
    clip: Clip
    end: SourceRow | None = None


def measure(sources: pa.Table, config: CurationConfig, listing: Path, on_source: Progress) -> None:
    """Measure every source (rows of SOURCES) that has no record yet, and write the listing.

    Needs Ray to be connected. `on_source` is called in the driver for every source, in order of
    arrival. Raises nothing for a source: whatever happens to one is in its row.
    """
    rows = _with_known_digests(sources, listing)
    with replacing(listing) as temporary:
        with pq.ParquetWriter(temporary, LISTING) as writer:
            for number in range(PASSES):
                rows = _measure_once(rows, config, number, writer, on_source)
                if rows.num_rows == 0:
                    break
            _give_up_on(rows, writer, on_source)
        done = pq.ParquetFile(temporary).read()
        pq.write_table(done.sort_by([("uri", "ascending"), ("window", "ascending")]), temporary)


def _with_known_digests(rows: pa.Table, listing: Path) -> pa.Table:
    """What the last listing knew of a file, so that an unchanged one is not read through again."""
    known: dict[str, dict[str, Any]] = {}
    if listing.exists():
        columns = ["uri", "source_sha256", "size", "modified_ns"]
        known = {row["uri"]: row for row in pq.ParquetFile(listing).read(columns).to_pylist()}
    found = [known.get(uri, {}) for uri in rows["uri"].to_pylist()]
    rows = rows.append_column("known_sha256", pa.array([x.get("source_sha256") for x in found], pa.string()))
    rows = rows.append_column("known_size", pa.array([x.get("size") for x in found], pa.int64()))
    return rows.append_column(
        "known_modified_ns", pa.array([x.get("modified_ns") for x in found], pa.int64())
    )


def _measure_once(
    rows: pa.Table, config: CurationConfig, number: int, writer: pq.ParquetWriter, on_source: Progress
) -> pa.Table:
    """One pass over `rows`; returns those that were lost with a worker."""
    arrived: set[tuple[str, str]] = set()
    for batch in _graph(rows, config, number).iter_batches(batch_format="pyarrow", batch_size=None):
        done = [pickle.loads(item).end for item in batch["item"].to_pylist()]  # noqa: S301 - our own workers'
        for row in done:
            arrived.add((row.source.uri, row.source.window))
            on_source(row)
        if done:
            writer.write_table(pa.Table.from_pylist([_listing_row(row) for row in done], LISTING))
    lost = [(_source(row).uri, _source(row).window) not in arrived for row in rows.to_pylist()]
    if any(lost):
        log.warning("%d sources were lost with a worker that died; they are done again", sum(lost))
    return rows.filter(pa.array(lost, pa.bool_()))


def _give_up_on(rows: pa.Table, writer: pq.ParquetWriter, on_source: Progress) -> None:
    for row in rows.to_pylist():
        source = _source(row)
        error = f"the worker that held it died in each of {PASSES} passes"
        lost = SourceRow(source, Clip(source.uri, reasons=[Reason.STAGE_FAILED], error=error))
        on_source(lost)
        writer.write_table(pa.Table.from_pylist([_listing_row(lost)], LISTING))


def _graph(rows: pa.Table, config: CurationConfig, number: int) -> Any:
    import ray
    from ray.data import DataContext

    # Its plan, its advice, and a traceback for each block that is lost; all of it is in Ray's own log files.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    # A block whose worker died twice is dropped. Nothing is lost by this: the driver counts the sources, and
    # does those again that did not arrive.
    context.max_errored_blocks = -1
    cpus = int(ray.cluster_resources().get("CPU", 1))
    per_block = 1 if number else max(1, min(32, rows.num_rows // (8 * cpus)))
    blocks = [rows.slice(at, per_block) for at in range(0, rows.num_rows, per_block)]
    # Ray has no named parameter for restarts yet, and warns of the only way there is.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    graph: Any = ray.data.from_arrow(blocks)
    for stage, resources in (
        (Decode, config.ray.decode),
        (Listen, config.ray.speech),
        (Look, config.ray.faces),
        (Encode, config.ray.encode),
    ):
        graph = graph.map_batches(
            stage,
            fn_constructor_args=(config,),
            batch_format="pyarrow",
            batch_size=None,
            **_actors(resources),
        )
    return graph


def _actors(resources: ResourcesConfig) -> dict[str, Any]:
    from ray.data import ActorPoolStrategy

    pool = ActorPoolStrategy(min_size=1, max_size=resources.max_actors)
    return {
        "compute": pool,
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus or None,
        "max_restarts": -1,  # with 0, a pool whose idle actor was killed waits for ever
        "max_task_retries": 1,  # a clip that kills every actor is dropped with its block, not tried for ever
    }


class Decode:
    """Rows of a listing -> clips, each source closed by its own row."""

    def __init__(self, config: CurationConfig) -> None:
        self.config = config
        self.ledger = Ledger(Path(config.output), config.measure_sha256())
        self.sandbox = _sandbox(config)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            for item in self._source(_source(row), row):
                yield _packed([item])

    def _source(self, source: Source, known: dict[str, Any]) -> Iterator[Item]:
        end = SourceRow(source, _as_clip(source))
        try:
            self._identify(end, known)
        except Exception as error:  # noqa: BLE001 - becomes the source's outcome
            _fail(end.clip, error)
        if end.clip.source_sha256 is None:
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

        path = end.source.path
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would never end
                raise MediaError(Reason.UNSUPPORTED, f"{path}: not a plain file")
            end.size, end.modified_ns = status.st_size, status.st_mtime_ns
            unchanged = (end.size, end.modified_ns) == (known["known_size"], known["known_modified_ns"])
            end.clip.source_sha256 = (known["known_sha256"] if unchanged else None) or _sha256(path)
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
        if record.reason in RETRIED_REASONS:
            return False
        rows = self.ledger.measurements(record)
        return not policy.needs_measuring(rows, self.config.filters, self.config.measure_all).any()

    def _clips(self, end: SourceRow) -> Iterator[Item]:
        from data_pipeline.stages.segment import probe_source, segment

        config, given, started = self.config, end.source, time.perf_counter()
        max_pixels = config.limits.max_pixels
        try:
            end.clip = self.sandbox.call(probe_source, given.path, end.clip, max_pixels)
            if not policy.reasons_of(end.clip, config.filters):
                for piece in self.sandbox.stream(segment, given.path, end.clip, config.segment, max_pixels):
                    if piece.clip_id is None:
                        end.clip = piece
                    else:
                        end.clip_ids.append(piece.clip_id)
                        yield Item(given, _lightened(piece, config))
        except Exception as error:  # noqa: BLE001 - becomes the source's outcome
            _fail(end.clip, error)
        if end.clip.reasons:  # a source that broke half-way is not half a source
            end.clip_ids.clear()
        end.clip.stage_seconds["decode"] = time.perf_counter() - started


class Listen:
    """The speech stage in an actor."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.speech import Speech

        self.config, self.stage = config, Speech(config.speech)
        self.stage.setup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _through("speech", self.stage, batch, self.config)


class Look:
    """The faces stage in an actor."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.faces import Faces

        self.config, self.stage = config, Faces(config.faces)
        self.stage.setup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _through("faces", self.stage, batch, self.config)


class Encode:
    """Writes media and ledger; only sources' own rows go on."""

    def __init__(self, config: CurationConfig) -> None:
        from data_pipeline.stages.caption import Caption

        self.config = config
        self.ledger = Ledger(Path(config.output), config.measure_sha256())
        self.sandbox = _sandbox(config)
        self.caption = Caption(config.caption)
        self.caption.setup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        ends = []
        for item in _unpacked(batch):
            if item.end is None:
                self._clip(item)
                continue
            self._source(item.end)
            ends.append(item)
        return _packed(ends)

    def _source(self, end: SourceRow) -> None:
        if end.clip.source_sha256 is None or end.skipped:
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
            clip = _advanced("encode", lambda clip: self._encoded(item.source, clip), clip, self.config)
        try:
            self.ledger.add_clip(clip, item.source.window, complete)
        except OSError as error:  # its source stays without a record; pack and the next run see to it
            log.error("%s: clip %s cannot be recorded: %s", item.source.uri, clip.clip_id, error)

    def _encoded(self, source: Source, clip: Clip) -> Clip:
        from data_pipeline.stages.encode import encode

        folder = self.ledger.folder(str(clip.source_sha256))
        folder.mkdir(parents=True, exist_ok=True)
        return self.sandbox.call(encode, clip, source.path, folder, self.config.encode)


def _through(name: str, stage: Callable[[Clip], Clip], batch: pa.Table, config: CurationConfig) -> pa.Table:
    items = []
    for item in _unpacked(batch):
        if item.end is None:
            item = Item(item.source, _lightened(_advanced(name, stage, item.clip, config), config))
        items.append(item)
    return _packed(items)


def _advanced(name: str, stage: Callable[[Clip], Clip], clip: Clip, config: CurationConfig) -> Clip:
    """The clip after a stage; untouched where a rule has stopped it."""
    if _stopped(clip, config):
        return clip
    started, advanced = time.perf_counter(), clip
    try:
        advanced = stage(clip)
    except Exception as error:  # noqa: BLE001 - becomes the clip's outcome
        _fail(clip, error)
    advanced.stage_seconds[name] = time.perf_counter() - started
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_clip(source: Source) -> Clip:
    crop = list(source.crop) if source.crop else None
    return Clip(source.uri, start_s=source.start_s, end_s=source.end_s, crop=crop)


def _source(row: dict[str, Any]) -> Source:
    given = {name: row[name] for name in SOURCES.names}
    given["crop"] = tuple(given["crop"]) if given["crop"] else None
    return Source(**given)


def _packed(items: list[Item]) -> pa.Table:
    return pa.table({"item": pa.array([pickle.dumps(item) for item in items], pa.large_binary())})


def _unpacked(batch: pa.Table) -> Iterator[Item]:
    for item in batch["item"]:
        yield pickle.loads(item.as_py())  # noqa: S301 - our own workers'


def _listing_row(row: SourceRow) -> dict[str, Any]:
    unread = row.clip.source_sha256 is None
    return {
        "uri": row.source.uri,
        "window": row.source.window,
        "source_sha256": row.clip.source_sha256,
        "licence": row.source.licence,
        "speaker": row.source.speaker,
        "caption": row.source.caption,
        "reason": row.clip.reasons[0].value if unread else None,
        "error": row.clip.error if unread else None,
        "size": row.size,
        "modified_ns": row.modified_ns,
    }
