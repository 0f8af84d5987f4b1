"""A curated dataset on disk: its versions, its manifest, its samples.

`dataset.json` names the current version, `versions/{n}.json` what belongs to one. Both are written
after everything that they name.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.identities import IDENTITIES
from data_pipeline.labels import no_labels
from data_pipeline.ledger import MEASUREMENTS, conformed
from data_pipeline.shards import Place, read_sample
from data_pipeline.storage import Location, location, read_table, replacing
from data_pipeline.tombstones import Tombstones

SCHEMA_VERSION = 2
READABLE = (SCHEMA_VERSION - 1, SCHEMA_VERSION)

HEAVY = ("words", "thumbnail", "identity_embedding", "audio_fingerprint")
"""Measurements that the manifest leaves to `measured/` and the samples: it stays small enough to scan."""

MANIFEST = pa.schema(
    [
        *(column for column in MEASUREMENTS if column.name not in HEAVY),
        ("source_uris", pa.list_(pa.string())),
        ("source_licence", pa.string()),
        ("speaker", pa.string()),
        ("identity_id", pa.string()),
        ("duplicate_group", pa.string()),
        ("duplicate_of", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("byte_offset", pa.int64()),
        ("byte_size", pa.int64()),
        ("policy_sha256", pa.string()),
    ]
)
"""One row for every clip and for every source that gave none. `duplicate_group` holds clips of one
take together, whatever became of them; `duplicate_of` names the one that was kept instead."""


class DatasetError(Exception):
    """A dataset that cannot be opened or used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a dataset: everything that it consists of, by name and digest."""

    version: int
    schema_version: int
    package_version: str
    measure_sha256: str
    policy_sha256: str
    manifest_sha256: dict[str, str]
    """Manifest parts, relative to the dataset."""
    shards: dict[str, str]
    """sha256 by name, under `shards/`."""
    weights: dict[str, str]
    config: dict[str, Any]
    tombstones: list[str] = field(default_factory=list)
    """What was purged and must not come back; see tombstones.py."""
    labels_sha256: str | None = None
    """Of the reviewers' labels that it was decided with; None where there are none."""
    identities_sha256: str | None = None
    """Of the table of identities that its clips belong to; see identities.py."""

    def same_content(self, other: "Version") -> bool:
        """Whether both hold the same samples under the same decisions, now and for what may come."""
        return self._content() == other._content()

    def _content(self) -> tuple[Any, ...]:
        manifest = sorted(self.manifest_sha256.values())
        return self.shards, self.policy_sha256, manifest, self.tombstones, self.labels_sha256


class Dataset:
    """A dataset at one of its versions."""

    def __init__(self, root: Location, name: str, version: Version) -> None:
        self.root = root
        self.name = name
        self.version = version

    @classmethod
    def open(cls, root: str | Location, version: int | None = None) -> "Dataset":
        """The dataset at `root`, at its current version unless told. Raises DatasetError."""
        try:
            root = location(root)
        except ValueError as error:
            raise DatasetError(str(error)) from None
        about = _read_json(root / "dataset.json", f"{root} is no dataset: ")
        if about["schema_version"] not in READABLE:
            raise DatasetError(
                f"{root}: schema version {about['schema_version']}, this hallo3 reads "
                f"{' and '.join(map(str, READABLE))}; use the hallo3 that made it, or a newer one"
            )
        number = about["version"] if version is None else version
        state = _read_json(root / "versions" / f"{number}.json", f"{root} has no version {number}: ")
        state["config"]["output"] = str(root)  # a dataset may be moved: it lies where it is found
        return cls(root, about["name"], Version(**state))

    def manifest(self, columns: list[str] | None = None) -> pa.Table:
        """One row for every clip and for every source that gave none, in order of clip_id."""
        schema = MANIFEST if columns is None else pa.schema([MANIFEST.field(name) for name in columns])
        parts = (self.root / part for part in sorted(self.version.manifest_sha256))
        if self.version.schema_version == SCHEMA_VERSION:
            return pa.concat_tables(read_table(part, columns) for part in parts)
        return pa.concat_tables(conformed(read_table(part), schema) for part in parts)

    def places(self) -> dict[str, Place]:
        """Where every kept clip's sample lies."""
        columns = ["clip_id", "shard", "byte_offset", "byte_size"]
        table = self.manifest(columns)
        held = table.filter(pc.is_valid(table["shard"]))
        return {row["clip_id"]: Place(*(row[name] for name in columns[1:])) for row in held.to_pylist()}

    def identities(self) -> pa.Table:
        """The people of this version, as rows of IDENTITIES, the oldest first."""
        if self.version.identities_sha256 is None:
            return IDENTITIES.empty_table()
        return read_table(identities_path(self.root, self.version.version))

    def labels(self) -> pa.Table:
        """The reviewers' labels that this version was decided with, as rows of LABELS."""
        digest = self.version.labels_sha256
        return no_labels() if digest is None else read_table(labels_path(self.root, digest))

    def versions(self) -> list[int]:
        """The numbers of all versions, oldest first."""
        return sorted(int(path.stem) for path in (self.root / "versions").glob("*.json"))

    def sample(self, place: Place) -> dict[str, bytes]:
        """The members of one sample, by file name. Raises ShardError."""
        return read_sample(self.root / "shards", place)

    def sample_of(self, clip_id: str) -> dict[str, bytes]:
        """The members of a kept clip's sample. Raises DatasetError."""
        place = self.places().get(clip_id)
        if place is None:
            raise DatasetError(f"{self.root}: version {self.version.version} holds no sample {clip_id}")
        return self.sample(place)


def tombstones_of(root: Location) -> Tombstones:
    """What must not come into the dataset at `root`; nothing where there is none yet."""
    if not (root / "dataset.json").exists():
        return Tombstones([])
    return Tombstones(Dataset.open(root).version.tombstones)


def identities_path(root: Location, version: int) -> Location:
    """Where the identities of a version lie in a dataset."""
    return root / "identities" / f"{version}.parquet"


def labels_path(root: Location, sha256: str) -> Location:
    """Where labels of this digest lie in a dataset."""
    return root / "labels" / f"{sha256[:8]}.parquet"


def commit(root: Location, name: str, version: Version) -> None:
    """Make `version` the current one; everything that it names is there already."""
    write_json(root / "versions" / f"{version.version}.json", asdict(version))
    about = {"name": name, "schema_version": SCHEMA_VERSION, "version": version.version}
    write_json(root / "dataset.json", about)


def write_json(path: Location, value: Mapping[str, Any]) -> None:
    """Write a file that is there whole or not at all, the same bytes for the same value."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False), "utf-8")


def _read_json(path: Location, otherwise: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{otherwise}there is no {path}; `hallo3 curate` makes one") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{otherwise}{path} cannot be read: {error}") from None
