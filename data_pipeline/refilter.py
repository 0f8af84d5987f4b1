"""refilter: other thresholds on a dataset that is there. A preview reads the manifest only."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_pipeline import policy, sync_rules
from data_pipeline.config import CurationConfig, config_with
from data_pipeline.config_file import ConfigError
from data_pipeline.curate import measure_sources, write_report
from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.labels import LabelCheck, check_labels, read_labels, united
from data_pipeline.pack import Packed, pack
from data_pipeline.sources import list_sources
from data_pipeline.storage import Location
from data_pipeline.tally import counts_of, hours_of

COLUMNS = [
    *dict.fromkeys([*(rule.column for rule in policy.RULES), *sync_rules.COLUMNS, *policy.WORTH]),
    *("language", "source_licence", "stage_reasons", "complete", "has_media"),
    *("status", "reason", "source_uris", "duplicate_group"),
]


@dataclass(frozen=True, slots=True)
class Preview:
    """What other thresholds would change. Counts are of clips."""

    kept_before: int
    kept_after: int
    hours_before: float
    hours_after: float
    newly_rejected: dict[str, int]
    """By the reason that would reject them."""
    newly_kept: dict[str, int]
    """By the reason that rejects them now; measured to the end, so nothing is missing."""
    to_measure: dict[str, int]
    """By the reason that stopped them: no rule is against what is known, the rest must be measured."""
    to_measure_uris: frozenset[str]
    labels: LabelCheck


def with_filters(dataset: Dataset, overrides: list[str]) -> CurationConfig:
    """The dataset's own configuration with other filters. Raises ConfigError."""
    for override in overrides:
        if not override.startswith("filters."):
            raise ConfigError(f"{override!r}: refilter changes filters only, as filters.KEY=VALUE")
    return config_with(dataset.version.config, overrides, str(dataset.root))


def with_labels(dataset: Dataset, labels: Location | None) -> pa.Table:
    """The dataset's labels with those of a CSV on top. Raises LabelsError."""
    before = dataset.labels()
    return before if labels is None else united(before, read_labels(labels))


def preview(dataset: Dataset, config: CurationConfig, labels: pa.Table | None = None) -> Preview:
    """What `config.filters` and `labels` would make of the dataset's version."""
    labels = dataset.labels() if labels is None else labels
    rows = dataset.manifest(COLUMNS)
    was_kept = np.array(rows["status"].to_pylist()) == "kept"
    further = policy.needs_measuring(rows, config.filters)
    decided = policy.decide(rows.drop_columns(["status", "reason"]), config.filters, labels)
    is_kept = np.array(decided["status"].to_pylist()) == "kept"
    uris = _filtered(rows, further)["source_uris"].to_pylist()
    return Preview(
        kept_before=int(was_kept.sum()),
        kept_after=int(is_kept.sum()),
        hours_before=hours_of(_filtered(rows, was_kept)),
        hours_after=hours_of(_filtered(rows, is_kept)),
        newly_rejected=counts_of(_filtered(decided, was_kept & ~is_kept)["reason"]),
        newly_kept=counts_of(_filtered(rows, ~was_kept & is_kept)["reason"]),
        to_measure=counts_of(_filtered(rows, further)["reason"]),
        to_measure_uris=frozenset(uri for some in uris for uri in some),
        labels=check_labels(labels, decided),
    )


def apply(
    dataset: Dataset,
    config: CurationConfig,
    to_measure_uris: frozenset[str],
    labels: pa.Table | None = None,
) -> Packed:
    """Make the version that `preview` spoke of. Needs Ray if something must be measured further.

    Raises DatasetError where that could not be done as the rest was measured."""
    if to_measure_uris:
        if config.measure_sha256() != dataset.version.measure_sha256:
            raise DatasetError(
                f"{dataset.root}: clips must be measured further, but this hallo3 or its models are not "
                "those that measured it; `hallo3 curate` measures all of it anew"
            )
        sources = (
            source for source in list_sources(config.sources, config.output) if source.uri in to_measure_uris
        )
        measure_sources(sources, config, dataset.root / "measured" / "refilter.parquet")
    packed = pack(config, labels=labels, like=dataset.version)
    write_report(dataset.root, config, packed, wall_s=None)
    return packed


def _filtered(rows: pa.Table, mask: np.ndarray) -> pa.Table:
    return rows.filter(pa.array(mask, pa.bool_()))
