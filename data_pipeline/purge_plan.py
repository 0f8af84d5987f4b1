"""What a purge would take out: found by a source's URI, an identity, or a picture of a face.

    every version's manifest, every listing, the ledger -> what is asked for -> copies of the same takes,
    clips of these sources in which nobody looked for a face -> whole sources -> tombstones

Nothing is written. A clip that no longer belongs to the current version is found, too.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.config import CurationConfig
from data_pipeline.dataset import Dataset
from data_pipeline.ledger import MEASUREMENTS, conformed
from data_pipeline.storage import Location, read_table
from data_pipeline.sweep import doomed_versions, source_folders
from data_pipeline.tombstones import Tombstones, clip_tombstone, content_tombstone, uri_tombstone

READERS = 8
MANIFEST_COLUMNS = [
    *("clip_id", "source_sha256", "start_s", "end_s", "source_uris", "identity_consistency"),
    *("identity_id", "duplicate_group", "status"),
]
LEDGER_COLUMNS = [
    *("clip_id", "source_sha256", "start_s", "end_s", "identity_consistency"),
    *("identity_embedding", "face_backend"),
]
MOST_OF_AN_IDENTITY = 0.5


class PurgeError(Exception):
    """Nothing that could be purged; the message names what was asked and says what to do."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """One clip that goes, and why."""

    clip_id: str
    source_sha256: str
    start_s: float
    end_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a purge would take out."""

    asked: str
    """`source`, `identity` or `face`."""
    clips: list[Doomed]
    contents: dict[str, list[str]]
    """Sources that go as a whole: their URIs by content."""
    uris: list[str]
    """Names under which nothing may come back."""
    tombstones: list[str]
    versions: list[int]
    """Those that name any of it, so go once there is one that does not."""
    unmatched: int = 0
    """Clips in which no face was measured, so that a picture of a face cannot be compared with them."""

    def __bool__(self) -> bool:
        return bool(self.clips or self.contents or self.uris)


NOTHING = Plan(asked="nothing", clips=[], contents={}, uris=[], tombstones=[], versions=[])
"""The plan of a purge that only finishes what another one began."""


def plan_of_source(dataset: Dataset, uri: str) -> Plan:
    """The source called `uri`, under every other name of the same content, and all copies of its takes.

    Raises PurgeError where the dataset has never heard of it."""
    known = _Known(dataset)
    name = uri if "://" in uri else str(Path(uri).absolute())
    contents = known.contents_of({uri, name})
    if not contents and name in known.unread | known.names:
        return _plan(known, "source", {}, {}, [name])
    if not contents and Tombstones(dataset.version.tombstones).cover_uri(name):
        raise PurgeError(f"{dataset.root}: the source {uri!r} was purged before, and nothing of it is left")
    if not contents:
        raise PurgeError(
            f"{dataset.root}: no version and no listing names the source {uri!r}; "
            "`hallo3 dataset explain` finds sources by their file name"
        )
    clips = {clip_id: "the source" for clip_id, row in known.clips.items() if row.source_sha256 in contents}
    return _plan(known, "source", clips, contents, [name])


def plan_of_identity(dataset: Dataset, identity_id: str) -> Plan:
    """Everybody's clips who has this identity in any version. Raises PurgeError where nobody has."""
    known = _Known(dataset)
    known.read_ledger(["clip_id", "source_sha256", "start_s", "end_s", "identity_consistency"])
    clips = {clip_id: "the identity" for clip_id, row in known.clips.items() if identity_id in row.identities}
    if not clips:
        raise PurgeError(f"{dataset.root}: no clip belongs to an identity {identity_id!r}")
    return _plan(known, "identity", clips, {}, [])


def plan_of_face(dataset: Dataset, picture: Path, config: CurationConfig) -> Plan:
    """Clips of the one person in a picture, by the distance of embeddings in the face backend's space.

    An identity goes as a whole if most of its clips are near enough. Raises PurgeError."""
    known = _Known(dataset)
    embedding, backend, reach = _face_in(picture, config)
    ids, distances, unmatched = _distances(known.read_ledger(LEDGER_COLUMNS), embedding, backend)
    near = {clip_id: distance for clip_id, distance in zip(ids, distances, strict=True) if distance <= reach}
    clips = {clip_id: f"the face, at {distance:.2f}" for clip_id, distance in sorted(near.items())}
    for identity_id, members in known.identities().items():
        measured = members & set(ids)
        if measured and len(measured & near.keys()) > MOST_OF_AN_IDENTITY * len(measured):
            clips = {clip_id: f"identity {identity_id}, most of it near" for clip_id in members} | clips
    plan = _plan(known, "face", clips, {}, [])
    return replace(plan, unmatched=unmatched)


def _face_in(picture: Path, config: CurationConfig) -> tuple[np.ndarray, str, float]:
    import cv2

    from data_pipeline.models.face_models import NotOneFace, face_models, identity_of_picture

    try:
        pixels = cv2.imdecode(np.fromfile(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (OSError, cv2.error) as error:
        raise PurgeError(f"{picture}: cannot be read: {error}") from None
    if pixels is None:
        raise PurgeError(f"{picture}: no picture that can be read; give a JPEG or PNG")
    try:
        embedding = identity_of_picture(pixels, config.faces)
    except NotOneFace as error:
        raise PurgeError(f"{picture}: {error}") from None
    models = face_models(config.faces)
    return embedding, models.name, models.same_person_distance


def _distances(
    tables: Iterable[pa.Table], embedding: np.ndarray, backend: str
) -> tuple[list[str], np.ndarray, int]:
    """Names and distances of the clips that this backend embedded; and how many clips it did not."""
    ids: list[str] = []
    distances: list[float] = []
    unmatched = 0
    for table in tables:
        clips = table.filter(pc.is_valid(table["clip_id"]))
        own = clips.filter(
            pc.and_(pc.is_valid(clips["identity_embedding"]), pc.equal(clips["face_backend"], backend))
        )
        unmatched += clips.num_rows - own.num_rows
        if own.num_rows:
            vectors = np.array(own["identity_embedding"].to_pylist(), np.float32)
            ids += own["clip_id"].to_pylist()
            distances += np.linalg.norm(vectors - embedding, axis=1).tolist()
    return ids, np.array(distances), unmatched


@dataclass(slots=True)
class _Row:
    """A clip, as all versions and the ledger know it."""

    source_sha256: str
    start_s: float
    end_s: float
    has_face: bool
    identities: set[str] = field(default_factory=set)
    groups: set[tuple[int, str]] = field(default_factory=set)
    """Of duplicates: version and name."""


class _Known:
    """Every clip and every source that any version, any listing or the ledger names."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.clips: dict[str, _Row] = {}
        self.uris: dict[str, set[str]] = {}
        """By content."""
        self.unread: set[str] = set()
        """Names of sources without content: none of them could be read."""
        for number in dataset.versions():
            self._read_version(number)
        for path in (dataset.root / "measured").glob("*.parquet"):
            self._read_listing(read_table(path, ["uri", "source_sha256"]))

    @property
    def names(self) -> set[str]:
        return {uri for uris in self.uris.values() for uri in uris}

    def contents_of(self, names: set[str]) -> dict[str, list[str]]:
        """All names of each content that lay, or lies, under one of `names`."""
        return {sha256: sorted(uris) for sha256, uris in self.uris.items() if uris & names}

    def identities(self) -> dict[str, set[str]]:
        """The clips of each identity."""
        members: dict[str, set[str]] = {}
        for clip_id, row in self.clips.items():
            for identity_id in row.identities:
                members.setdefault(identity_id, set()).add(clip_id)
        return members

    def _read_version(self, number: int) -> None:
        rows = Dataset.open(self.dataset.root, number).manifest(MANIFEST_COLUMNS).to_pylist()
        for row in rows:
            if row["source_sha256"] is None:
                self.unread.update(row["source_uris"])
                continue
            self.uris.setdefault(row["source_sha256"], set()).update(row["source_uris"])
            if row["clip_id"] is None:
                continue
            clip = self._add(row)
            if row["identity_id"]:
                clip.identities.add(row["identity_id"])
            if row["duplicate_group"]:
                clip.groups.add((number, row["duplicate_group"]))

    def _read_listing(self, listing: pa.Table) -> None:
        for row in listing.to_pylist():
            if row["source_sha256"] is None:
                self.unread.add(row["uri"])
            else:
                self.uris.setdefault(row["source_sha256"], set()).add(row["uri"])

    def read_ledger(self, columns: list[str]) -> list[pa.Table]:
        """Every source's measurements, under whatever configuration; their clips are known from here on."""
        measured = self.dataset.root / "measured"
        paths = [path for folder in source_folders(measured) for path in folder.glob("measurements*.parquet")]
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda path: _conformed(path, columns), paths))
        for table in tables:
            for row in table.drop_columns([x for x in columns if x == "identity_embedding"]).to_pylist():
                if row["clip_id"] is not None:
                    self._add(row)
        return tables

    def _add(self, row: dict[str, Any]) -> _Row:
        clip = self.clips.get(row["clip_id"])
        if clip is None:
            clip = _Row(row["source_sha256"], row["start_s"], row["end_s"], has_face=False)
            self.clips[row["clip_id"]] = clip
        clip.has_face = clip.has_face or row["identity_consistency"] is not None
        return clip


def _conformed(path: Location, columns: list[str]) -> pa.Table:
    return conformed(read_table(path), MEASUREMENTS).select(columns)


def _plan(
    known: _Known, asked: str, clips: dict[str, str], contents: dict[str, list[str]], uris: Sequence[str]
) -> Plan:
    """Complete what was found by what must go with it, and word it as tombstones."""
    _add_same_takes(known, clips)
    if asked != "source":
        _add_unseen_neighbours(known, clips)
        _add_same_takes(known, clips)
    contents = dict(contents)
    left = {row.source_sha256 for clip_id, row in known.clips.items() if clip_id not in clips}
    for clip_id in clips:
        sha256 = known.clips[clip_id].source_sha256
        if sha256 not in left:
            contents.setdefault(sha256, sorted(known.uris.get(sha256, ())))
    barred = {*uris, *_names_of_nothing_else(known, contents)}
    if asked == "source":
        barred |= {uri for names in contents.values() for uri in names}
    doomed = [
        Doomed(clip_id, row.source_sha256, row.start_s, row.end_s, why)
        for clip_id, why in sorted(clips.items())
        if (row := known.clips[clip_id])
    ]
    salt = Tombstones(known.dataset.version.tombstones).salt()
    stones = [content_tombstone(salt, sha256) for sha256 in contents]
    stones += [uri_tombstone(salt, uri) for uri in barred]
    stones += [
        clip_tombstone(salt, clip.source_sha256, clip.start_s, clip.end_s)
        for clip in doomed
        if clip.source_sha256 not in contents
    ]
    return Plan(
        asked=asked,
        clips=doomed,
        contents=contents,
        uris=sorted(barred),
        tombstones=sorted(stones),
        versions=doomed_versions(known.dataset, Tombstones(stones)),
    )


def _add_same_takes(known: _Known, clips: dict[str, str]) -> None:
    """Copies of a take show the same person saying the same words."""
    members: dict[tuple[int, str], list[str]] = {}
    for clip_id, row in known.clips.items():
        for group in row.groups:
            members.setdefault(group, []).append(clip_id)
    waiting = list(clips)
    while waiting:
        found = waiting.pop()
        for group in known.clips[found].groups:
            for clip_id in members.pop(group, []):
                if clip_id not in clips:
                    clips[clip_id] = f"the same take as {found}"
                    waiting.append(clip_id)


def _add_unseen_neighbours(known: _Known, clips: dict[str, str]) -> None:
    """Of a source that shows the person, clips without a measured face: nobody can say who is in them."""
    sources = {known.clips[clip_id].source_sha256 for clip_id in clips}
    for clip_id, row in known.clips.items():
        if row.source_sha256 in sources and not row.has_face and clip_id not in clips:
            clips[clip_id] = "no face was measured in it, and its source shows the person"


def _names_of_nothing_else(known: _Known, contents: Iterable[str]) -> set[str]:
    """URIs of these contents that no other content has, or had."""
    others = {uri for sha256, uris in known.uris.items() if sha256 not in contents for uri in uris}
    return {uri for sha256 in contents for uri in known.uris.get(sha256, ())} - others
