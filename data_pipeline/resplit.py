"""resplit: other shares, or other people to exclude, on a dataset that is there.

This is the one command that may move people between splits; `curate` with the same shares never does.
A preview reads the manifest, the identities, and the excluded people's faces.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.config import CurationConfig, SplitsConfig, config_with
from data_pipeline.config_file import ConfigError
from data_pipeline.curate import write_report
from data_pipeline.dataset import Dataset
from data_pipeline.excluded_people import excluded_people
from data_pipeline.pack import Packed, pack
from data_pipeline.splits import SPLITS, assign, with_splits
from data_pipeline.tally import hours_of

COLUMNS = ["clip_id", "start_s", "end_s", "status", "identity_id", "split"]


@dataclass(frozen=True, slots=True)
class Share:
    """What one split holds."""

    clips: int
    hours: float
    identities: int


@dataclass(frozen=True, slots=True)
class Resplit:
    """What other splits would change; of kept clips."""

    before: Mapping[str, Share]
    after: Mapping[str, Share]
    """By split, in the order of SPLITS; those that hold nothing are left out."""
    moved: Mapping[tuple[str, str], Share]
    """By the split before and the split after."""


def with_shares(dataset: Dataset, overrides: list[str]) -> CurationConfig:
    """The dataset's own configuration with other splits. Raises ConfigError."""
    for override in overrides:
        if not override.startswith("splits."):
            raise ConfigError(f"{override!r}: split changes splits only, as splits.KEY=VALUE")
    return config_with(dataset.version.config, overrides, str(dataset.root))


def preview(dataset: Dataset, config: CurationConfig) -> Resplit:
    """What `config.splits` would make of the dataset's current version.

    Raises ExcludedPeopleError; WeightsUnavailable where pictures need models that are not here."""
    known = dataset.identities()
    face_backends = pc.unique(known["face_backend"].drop_null()).sort().to_pylist()
    excluded = excluded_people(config.splits.exclude, config.faces, face_backends)
    was = SplitsConfig.model_validate(dataset.version.config.get("splits", {}))
    identities = assign(known, config.splits, known, was, excluded, config.identities)
    rows = dataset.manifest(COLUMNS)
    rows = rows.filter(pc.equal(rows["status"], "kept"))
    now = np.array(rows["split"].to_pylist(), str)
    then = np.array(with_splits(rows.drop_columns("split"), identities)["split"].to_pylist(), str)
    pairs = [(one, other) for one in SPLITS for other in SPLITS if one != other]
    return Resplit(
        before=_shares(rows, {split: now == split for split in SPLITS}),
        after=_shares(rows, {split: then == split for split in SPLITS}),
        moved=_shares(rows, {(one, other): (now == one) & (then == other) for one, other in pairs}),
    )


def apply(dataset: Dataset, config: CurationConfig) -> Packed:
    """Make the version that `preview` spoke of. Raises PackError."""
    packed = pack(config)
    write_report(dataset.root, config, packed, wall_s=None)
    return packed


def _shares(rows: pa.Table, masks: Mapping) -> dict:
    shares = {}
    for name, mask in masks.items():
        some = rows.filter(pa.array(mask, pa.bool_()))
        if some.num_rows:
            identities = pc.count_distinct(some["identity_id"]).as_py()
            shares[name] = Share(some.num_rows, hours_of(some), identities)
    return shares
