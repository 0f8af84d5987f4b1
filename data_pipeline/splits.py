"""Splits: which part of the dataset a person belongs to. Nobody is in two.

    identities, those of the version before -> a split for each identity -> a split for each kept clip

An identity's split is a stable hash of its name, so new data moves nobody. Three things come on top: who
is in an excluded benchmark gets `benchmark`, and trains nothing. Two identities of different splits that
turn out to be one person get `quarantine`: moved to either side they would have been on both. And other
shares are a new start: validation grows from one end of the hash's range, test from the other, and those
in between are for training, so as few as possible move; who was in quarantine is given a split again.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.config import IdentitiesConfig, SplitsConfig
from data_pipeline.identities import groups_of, same_person_distance
from data_pipeline.near_groups import Groups, concatenated, nearest_groups

TRAIN, VAL, TEST, BENCHMARK, QUARANTINE = "train", "val", "test", "benchmark", "quarantine"
SPLITS = (TRAIN, VAL, TEST, BENCHMARK, QUARANTINE)


def split_of(identity_id: str, config: SplitsConfig) -> str:
    """The split of an identity by its name alone."""
    place = int.from_bytes(hashlib.sha256(f"split {identity_id}".encode()).digest()[:8], "big") / 2**64
    if place < config.val:
        return VAL
    return TEST if place >= 1 - config.test else TRAIN


def assign(
    identities: pa.Table,
    config: SplitsConfig,
    before: pa.Table | None = None,
    was: SplitsConfig | None = None,
    excluded: Mapping[str, Groups] | None = None,
    joining: IdentitiesConfig | None = None,
) -> pa.Table:
    """IDENTITIES with `split`. `before` are those of the version before, split as `was` says.

    `excluded` are the people, by face backend, who may not be trained on; `joining` says how near two
    faces of one person are. Raises IdentitiesError."""
    names = identities["identity_id"].to_pylist()
    split = [split_of(name, config) for name in names]
    if before is not None and was is not None:
        _keep(split, identities, config, before, was)
    for face_backend, people in (excluded or {}).items():
        distance = same_person_distance(face_backend, joining or IdentitiesConfig())
        for row in _rows_near(identities, face_backend, people, distance):
            split[row] = BENCHMARK
    column = identities.schema.get_field_index("split")
    return identities.set_column(column, "split", pa.array(split, pa.string()))


def with_splits(rows: pa.Table, identities: pa.Table) -> pa.Table:
    """The rows with `split`: their identity's where they are kept, null elsewhere."""
    place = pc.index_in(rows["identity_id"], value_set=identities["identity_id"].combine_chunks())
    split = pc.take(identities["split"].combine_chunks(), place.combine_chunks())
    kept = pc.equal(rows["status"], "kept").combine_chunks()
    return rows.append_column("split", pc.if_else(kept, split, pa.scalar(None, pa.string())))


def _keep(
    split: list[str], identities: pa.Table, config: SplitsConfig, before: pa.Table, was: SplitsConfig
) -> None:
    """What the version before decided and still holds."""
    old = dict(zip(before["identity_id"].to_pylist(), before["split"].to_pylist(), strict=True))
    same_shares = (was.val, was.test) == (config.val, config.test)
    still_excluded = bool(was.exclude) and set(was.exclude) <= set(config.exclude)
    parts = zip(identities["identity_id"].to_pylist(), identities["merged"].to_pylist(), strict=True)
    for row, (name, merged) in enumerate(parts):
        had = {old.get(part) for part in (name, *merged)} - {None}
        if still_excluded and BENCHMARK in had:
            split[row] = BENCHMARK
        elif same_shares and (QUARANTINE in had or len(had - {BENCHMARK}) > 1):
            split[row] = QUARANTINE


def _rows_near(identities: pa.Table, face_backend: str, people: Groups, distance: float) -> list[int]:
    """Rows of identities that would be one person with one of `people`."""
    rows, looks = groups_of(identities, face_backend)
    if len(rows) == 0 or len(people) == 0:
        return []
    both = concatenated(looks, people)
    asked, among = np.arange(len(looks)), np.arange(len(looks), len(both))
    _, nearest = nearest_groups(both, asked, among, 1)
    return rows[both.squared_distances(asked, nearest[:, 0]) <= distance**2].tolist()
