"""measure: sources -> measured clips and their ledger, as one Ray Data graph.

    listing (Parquet) -> decode -> speech -> faces -> sync -> encode -> one row a source

decode   hashes a source, skips it if its record is there, else cuts it into clips: small analysis
         frames and 16 kHz sound travel on, full-size pictures never do
speech, faces  each an actor pool of its own, its models loaded once
sync     decodes what no rule has stopped once more, around the face
encode   writes the media of clips that passed every rule, and the ledger

A source ends with a row of its own, after its clips, that names them; it is what the driver counts.
The driver sees one small row a source.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.actors import Decode, Encode, Listen, Look, SourceRow, Synchronise, source_of, unpacked
from data_pipeline.clip import Clip, Reason
from data_pipeline.config import CurationConfig, ResourcesConfig
from data_pipeline.ledger import LISTING
from data_pipeline.storage import Location, read_table, replacing

BLOCK_BYTES = 16 * 2**20  # what travels between actors at a time
PASSES = 3  # a block whose worker died is done again, in ever smaller blocks
Progress = Callable[[SourceRow], None]

log = logging.getLogger(__name__)


def measure(sources: pa.Table, config: CurationConfig, listing: Location, on_source: Progress) -> None:
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
        done = read_table(temporary)
        pq.write_table(done.sort_by([("uri", "ascending"), ("window", "ascending")]), temporary)


def _with_known_digests(rows: pa.Table, listing: Location) -> pa.Table:
    """What the last listing knew of a file, so that an unchanged one is not read through again."""
    known: dict[str, dict[str, Any]] = {}
    if listing.exists():
        columns = ["uri", "source_sha256", "size", "modified_ns"]
        known = {row["uri"]: row for row in read_table(listing, columns).to_pylist()}
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
        done = [item.end for item in unpacked(batch) if item.end is not None]
        for row in done:
            arrived.add((row.source.uri, row.source.window))
            on_source(row)
        if listed := [_listing_row(row) for row in done if not row.purged]:
            writer.write_table(pa.Table.from_pylist(listed, LISTING))
    lost = [(source_of(row).uri, source_of(row).window) not in arrived for row in rows.to_pylist()]
    if any(lost):
        log.warning("%d sources were lost with a worker that died; they are done again", sum(lost))
    return rows.filter(pa.array(lost, pa.bool_()))


def _give_up_on(rows: pa.Table, writer: pq.ParquetWriter, on_source: Progress) -> None:
    for row in rows.to_pylist():
        source = source_of(row)
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
        (Synchronise, config.ray.sync),
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
