"""What a dataset holds, what a pilot foretells, what other thresholds would change: lines of text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from data_pipeline.dataset import Dataset
from data_pipeline.labels import lines_of_check
from data_pipeline.tally import counts_of, hours_of

if TYPE_CHECKING:
    from data_pipeline.curate import Pilot
    from data_pipeline.refilter import Preview
    from data_pipeline.resplit import Resplit, Share


def show(dataset: Dataset) -> Iterator[str]:
    """A dataset's version in ten lines."""
    columns = [
        "clip_id",
        "source_uris",
        "start_s",
        "end_s",
        "status",
        "reason",
        "split",
        "language",
        "speaker",
    ]
    rows = dataset.manifest(columns)
    kept = rows.filter(pc.equal(rows["status"], "kept"))
    sources = {tuple(uris) for uris in rows["source_uris"].to_pylist()}
    size = sum((dataset.root / "shards" / name).stat().st_size for name in dataset.version.shards)
    versions = dataset.versions()
    yield f"{dataset.root}: {dataset.name}, version {dataset.version.version} of {len(versions)}"
    yield f"  sources   {len(sources)}"
    stored = f"{size / 1e6:.1f} MB in {_shards(dataset)}"
    yield f"  kept      {kept.num_rows} clips, {_hours(hours_of(kept))}, {stored}"
    for status in ("rejected", "error"):
        some = rows.filter(pc.equal(rows["status"], status))
        reasons = ", ".join(f"{reason} {n}" for reason, n in counts_of(some["reason"]).items())
        yield f"  {status:<9} {some.num_rows}" + (f": {reasons}" if reasons else "")
    for name in ("split", "language"):
        counts = ", ".join(f"{key} {n}" for key, n in counts_of(kept[name]).items())
        yield f"  {name:<9} {counts or 'unknown'}"
    measured, decided = dataset.version.measure_sha256, dataset.version.policy_sha256
    yield f"  measured under {measured[:12]}, decided under {decided[:12]}"


def lines_of_pilot(pilot: "Pilot") -> Iterator[str]:
    """What a few sources say about all of them."""
    yield f"pilot: {pilot.sources} of {pilot.sources_in_all} sources, {_hours(pilot.source_hours)} of video"
    if not pilot.source_hours:
        yield "  no source could be decoded; nothing can be foretold"
        return
    factor = pilot.sources_in_all / max(pilot.sources, 1)
    share = pilot.kept_hours / pilot.source_hours
    seconds = sum(pilot.seconds_by_stage.values())
    yield f"  yield     {share:.0%} of the hours; all sources: about {_hours(pilot.kept_hours * factor)}"
    for reason, count in pilot.reasons.items():
        yield f"            {reason} {count}"
    yield f"  cost      {seconds / pilot.source_hours / 3600:.2f} core-hours per hour of video"
    for stage, spent in sorted(pilot.seconds_by_stage.items(), key=lambda item: -item[1]):
        yield f"            {stage:<8} {spent / pilot.source_hours / 3600:.3f}"
    yield f"  all sources: about {seconds * factor / 3600:.2f} core-hours"


def lines_of_preview(preview: "Preview") -> Iterator[str]:
    """What other thresholds would change."""
    yield f"kept now      {preview.kept_before} clips, {_hours(preview.hours_before)}"
    yield f"kept then     {preview.kept_after} clips, {_hours(preview.hours_after)}"
    for label, counts in (
        ("to reject", preview.newly_rejected),
        ("to keep", preview.newly_kept),
        ("to measure", preview.to_measure),
    ):
        if counts:
            yield f"{label:<13} {sum(counts.values())}: " + ", ".join(f"{r} {n}" for r, n in counts.items())
    if preview.to_measure:
        yield "(to measure: stopped before all was known of them; --apply measures them to the end first)"
    yield from lines_of_check(preview.labels)


def lines_of_resplit(change: "Resplit") -> Iterator[str]:
    """What other splits would change."""
    for label, shares in (("now", change.before), ("then", change.after)):
        for split, share in shares.items():
            yield f"{label:<6}{split:<11} {_share(share)}"
    for (before, after), share in change.moved.items():
        yield f"moved {before} -> {after}: {_share(share)}"
    if any(before == "train" for before, _ in change.moved):
        yield "(whoever has trained on an earlier version has seen those who leave train now)"


def _share(share: "Share") -> str:
    return f"{share.identities} identities, {share.clips} clips, {_hours(share.hours)}"


def _hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _shards(dataset: Dataset) -> str:
    count = len(dataset.version.shards)
    return f"{count} shard" if count == 1 else f"{count} shards"
