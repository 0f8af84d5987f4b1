"""A curated dataset on disk: its versions, its manifest, its samples.

`dataset.json` names the current version, `versions/{n}.json` what belongs to one. Both are written
after everything that they name.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.ledger import MEASUREMENTS, replacing
from data_pipeline.shards import Place, read_sample

SCHEMA_VERSION = 1

MANIFEST = pa.schema(
    [
        *(column for column in MEASUREMENTS if column.name not in ("words", "thumbnail")),
        ("source_uris", pa.list_(pa.string())),
        ("source_licence", pa.string()),
        ("speaker", pa.string()),
        ("identity_id", pa.string()),
        ("sync_offset_frames", pa.float64()),
        ("sync_shift_applied_s", pa.float64()),
        ("sync_confidence", pa.float64()),
        ("sync_distance", pa.float64()),
        ("sync_margin", pa.float64()),
        ("sync_backend", pa.string()),
        ("phash", pa.string()),
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
"""One row for every clip and for every source that gave none. Sync, duplicates and identities are
null until the steps that measure them are part of the graph."""


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

    def same_content(self, other: "Version") -> bool:
        """Whether both hold the same samples under the same decisions."""
        mine = (self.shards, self.policy_sha256, sorted(self.manifest_sha256.values()))
        return mine == (other.shards, other.policy_sha256, sorted(other.manifest_sha256.values()))


class Dataset:
    """A dataset at one of its versions."""

    def __init__(self, root: Path, name: str, version: Version) -> None:
        self.root = root
        self.name = name
        self.version = version

    @classmethod
    def open(cls, root: str | Path, version: int | None = None) -> "Dataset":
        """The dataset at `root`, at its current version unless told. Raises DatasetError."""
        root = Path(root)
        about = _read_json(root / "dataset.json", f"{root} is no dataset: ")
        if about["schema_version"] != SCHEMA_VERSION:
            raise DatasetError(
                f"{root}: schema version {about['schema_version']}, this hallo3 reads {SCHEMA_VERSION}; "
                "use the hallo3 that made it, or a newer one"
            )
        number = about["version"] if version is None else version
        state = _read_json(root / "versions" / f"{number}.json", f"{root} has no version {number}: ")
        return cls(root, about["name"], Version(**state))

    def manifest(self, columns: list[str] | None = None) -> pa.Table:
        """One row for every clip and for every source that gave none, in order of clip_id."""
        parts = [
            pq.ParquetFile(self.root / part).read(columns) for part in sorted(self.version.manifest_sha256)
        ]
        return pa.concat_tables(parts)

    def places(self) -> dict[str, Place]:
        """Where every kept clip's sample lies."""
        columns = ["clip_id", "shard", "byte_offset", "byte_size"]
        table = self.manifest(columns)
        held = table.filter(pc.is_valid(table["shard"]))
        return {row["clip_id"]: Place(*(row[name] for name in columns[1:])) for row in held.to_pylist()}

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


def commit(root: Path, name: str, version: Version) -> None:
    """Make `version` the current one; everything that it names is there already."""
    write_json(root / "versions" / f"{version.version}.json", asdict(version))
    about = {"name": name, "schema_version": SCHEMA_VERSION, "version": version.version}
    write_json(root / "dataset.json", about)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file that is there whole or not at all, the same bytes for the same value."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False), "utf-8")


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{otherwise}there is no {path}; `hallo3 curate` makes one") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{otherwise}{path} cannot be read: {error}") from None
