"""curate: the whole journey, sources -> measure -> pack -> report, and a pilot on a few sources."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline import policy, weights
from data_pipeline.config import CurationConfig, FacesConfig, WhisperXConfig
from data_pipeline.dataset import Dataset
from data_pipeline.duplicates import with_groups
from data_pipeline.excluded_people import check_entries
from data_pipeline.labels import check_labels, lines_of_check, read_labels, united
from data_pipeline.ledger import Ledger, listing_path
from data_pipeline.measure import measure
from data_pipeline.pack import Packed, measured_rows, pack
from data_pipeline.progress import Progress
from data_pipeline.report import render_report
from data_pipeline.sources import Source, check_reachable, list_sources, sample_of, table_of
from data_pipeline.stages.sync import load_syncnet
from data_pipeline.storage import Location, check_writable, location, read_table
from data_pipeline.tally import counts_of, hours_of


class BackendMissing(Exception):
    """A configured backend needs a library that is not installed."""


class TooManyErrors(Exception):
    """The dataset is made, but more sources failed than `max_error_fraction` allows."""


def prepare(config: CurationConfig) -> None:
    """Make sure, before anything starts, that what the configured backends need is here, and that stores
    answer.

    Raises BackendMissing, or WeightsUnavailable for a model that is neither cached nor to be had; OSError
    or SourcesError for a store that refuses, or has no such sources; ExcludedPeopleError for people to
    exclude who are not there.
    """
    check_reachable(config.sources)
    check_writable(location(config.output))
    check_entries(config.splits.exclude)
    if config.segment.backend == "transnetv2" and find_spec("torch") is None:
        raise BackendMissing(
            "segment.backend: transnetv2 runs on torch, which is not installed; install hallo3[train], "
            "or choose segment.backend=pyscenedetect"
        )
    if config.sync.backend == "syncnet" and find_spec("torch") is None:
        raise BackendMissing(
            "sync.backend: syncnet runs on torch, which is not installed; install hallo3[train], "
            "or choose sync.backend=lip_correlation"
        )
    if config.speech.runs_whisperx:
        _prepare_whisperx(config.speech.whisperx)
    if config.faces.backend == "insightface":
        _prepare_insightface(config.faces)
    config.measure_sha256()  # reads users' own models
    if config.sync.own_network:
        load_syncnet(config.sync)  # once, so that what is wrong with the file is said here
    weights.pull(sorted(weights.digests_of_backends(config)))


def _prepare_whisperx(config: WhisperXConfig) -> None:
    from data_pipeline.models.whisperx import WhisperX
    from data_pipeline.models.whisperx_environment import EnvironmentMissing, python

    try:
        python()
        if config.device != "cuda":  # which this machine need not have
            WhisperX(config).close()  # loaded once: what is missing is said, and downloaded, here
    except (EnvironmentMissing, RuntimeError) as missing:
        raise BackendMissing(f"speech.backend: {missing}; or choose speech.backend=embedded") from None


def _prepare_insightface(config: FacesConfig) -> None:
    from data_pipeline.models import insightface_pack
    from data_pipeline.models.face_models import face_models

    try:
        import insightface.app  # noqa: F401
    except ImportError as missing:
        way = "install hallo3[insightface]"
        if "libGL" in str(missing):  # it depends on opencv-python, whose cv2 takes the headless one's place
            way = "run pip install --force-reinstall --no-deps opencv-python-headless"
        raise BackendMissing(
            f"faces.backend: insightface cannot be imported ({missing}); {way}, "
            "or choose faces.backend=embedded"
        ) from None
    insightface_pack.obtain(config.insightface)
    face_models(config)  # loaded once, so that what a pack lacks is said before anything starts


def curate(config: CurationConfig) -> Packed:
    """Curate every source of the configuration into the next version of its dataset.

    Needs Ray to be connected. Raises SourcesError, LabelsError, PackError, and TooManyErrors at the end.
    """
    started = time.monotonic()
    root = location(config.output)
    labels = _labels(root, config)
    measure_sources(list_sources(config.sources, config.output), config, listing_path(root))
    packed = pack(config, labels=labels)
    if labels is not None:
        print("\n".join(lines_of_check(check_labels(labels, packed.clips))), end="")
    write_report(root, config, packed, time.monotonic() - started)
    if packed.error_fraction > config.max_error_fraction:
        raise TooManyErrors(
            f"{packed.error_fraction:.1%} of the sources failed for want of storage, time or a working "
            f"stage; max_error_fraction allows {config.max_error_fraction:.1%}. The errors are in "
            f"{root}/report.html; the same command tries those again that may be better now"
        )
    return packed


def _labels(root: Location, config: CurationConfig) -> pa.Table | None:
    """The configured CSV on top of the labels that the dataset has; None where none is configured."""
    if config.labels is None:
        return None
    given = read_labels(location(config.labels))
    there = (root / "dataset.json").exists()
    return united(Dataset.open(root).labels(), given) if there else given


def measure_sources(sources: Iterable[Source], config: CurationConfig, listing: Location) -> None:
    """Measure sources with progress shown."""
    table = table_of(sources)
    with Progress(table.num_rows) as progress:
        measure(table, config, listing, progress.add)


def write_report(root: Location, config: CurationConfig, packed: Packed, wall_s: float | None) -> Location:
    """`report.html` of a version."""
    thumbnails = zip(packed.clips["clip_id"].to_pylist(), packed.clips["thumbnail"].to_pylist(), strict=True)
    html = render_report(
        name=config.name,
        version=packed.version,
        clips=packed.clips.drop_columns("thumbnail"),
        thumbnails={clip_id: strip for clip_id, strip in thumbnails if clip_id and strip},
        thresholds=policy.thresholds(config.filters, config.sync.backend),
        stage_seconds=packed.stage_seconds,
        wall_s=wall_s,
        header={
            "preset": config.name,
            "measure": config.measure_sha256()[:12],
            "policy": config.policy_sha256()[:12],
            "faces": config.faces.backend,
            "speech": config.speech.backend,
            "sync": config.sync.backend,
        },
    )
    path = root / "report.html"
    path.write_text(html, "utf-8")
    return path


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a few sources say about all of them."""

    sources: int
    sources_in_all: int
    source_hours: float
    kept_hours: float
    reasons: dict[str, int]
    """Clips, and sources that gave none, by first reason."""
    seconds_by_stage: dict[str, float]
    wall_s: float


def pilot(config: CurationConfig, count: int) -> Pilot:
    """Measure `count` sources, spread over the list, and say what the whole would yield and cost.

    What is measured stays in the ledger; no version is made.
    """
    started = time.monotonic()
    root = location(config.output)
    every = list(list_sources(config.sources, config.output))
    listing = root / "measured" / "pilot.parquet"
    measure_sources(sample_of(every, count), config, listing)
    ledger = Ledger(root, config.measure_sha256())
    rows, records = measured_rows(ledger, read_table(listing))
    rows = policy.decide(with_groups(rows, config.duplicates), config.filters)
    seconds: dict[str, float] = {}
    for record in records:
        for stage, spent in record.stage_seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return Pilot(
        sources=min(count, len(every)),
        sources_in_all=len(every),
        source_hours=sum(record.duration_s for record in records) / 3600,
        kept_hours=hours_of(rows.filter(pc.equal(rows["status"], "kept"))),
        reasons=counts_of(rows["reason"]),
        seconds_by_stage=seconds,
        wall_s=time.monotonic() - started,
    )
