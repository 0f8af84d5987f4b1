"""purge: take a person or a source out of a dataset, for good.

    plan -> audit record, begun -> a version without what it names, with tombstones -> sweep -> report
    -> audit record, finished

The new version's tombstones say all that is still to be deleted, so a purge that was killed at any point
is either not begun, or goes on with the same command. Sources lie outside the dataset and stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.audit import begin_audit, finish_audits, unfinished_audits
from data_pipeline.config import CurationConfig, config_with
from data_pipeline.curate import write_report
from data_pipeline.dataset import Dataset
from data_pipeline.ledger import Ledger
from data_pipeline.pack import pack
from data_pipeline.purge_plan import Plan, PurgeError
from data_pipeline.storage import Location
from data_pipeline.sweep import Swept, sweep


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge made and deleted."""

    version: int
    swept: Swept
    audit: Location


def config_without(dataset: Dataset, uris: Sequence[str]) -> CurationConfig:
    """The version's configuration, whose `sources` do not name these any more. Raises ConfigError."""
    config = config_with(dataset.version.config, [], str(dataset.root))
    given = [config.sources] if isinstance(config.sources, str) else config.sources
    left = [name for name in given if name not in uris and str(Path(name).absolute()) not in uris]
    sources = config.sources if left == given else left
    return config.model_copy(update={"output": str(dataset.root), "sources": sources})


def purge(dataset: Dataset, plan: Plan, reason: str | None = None) -> Purged:
    """Carry out a plan on the dataset's current version; with none, finish what a killed purge began.

    Raises PackError, and OSError for what cannot be deleted; the same command goes on from there."""
    if dataset.version.version != (current := Dataset.open(dataset.root)).version.version:
        raise PurgeError(f"{dataset.root}: purge works on the current version, {current.version.version}")
    goes_on = {*plan.tombstones} <= {*current.version.tombstones} and any(unfinished_audits(current))
    audit = None if goes_on else begin_audit(current, plan, reason)
    doomed = {clip.clip_id for clip in plan.clips}
    labels = current.labels()
    labels = labels.filter(pc.invert(pc.is_in(labels["clip_id"], value_set=pa.array(doomed, pa.string()))))
    config = config_without(current, plan.uris)
    packed = pack(config, labels=labels, tombstones=plan.tombstones, like=current.version)
    made = Dataset.open(dataset.root)
    swept = sweep(made, Ledger(made.root, made.version.measure_sha256))
    write_report(made.root, config, packed, wall_s=None)
    finished = finish_audits(made, swept)
    return Purged(made.version.version, swept, audit or finished[-1])
