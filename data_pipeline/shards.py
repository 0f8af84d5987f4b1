"""Shards: WebDataset tar files, immutable, their digest in their name.

A sample is `{clip_id}` + `.mp4 .flac .npz .json .txt`, its members side by side in this order.
"""

import hashlib
import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.ledger import MEASUREMENTS, MEDIA
from data_pipeline.storage import Location, ObjectPath, filling, read_range

MEMBERS = (*MEDIA, ".json", ".txt")
READERS = 8  # of samples that are written next
NOT_FACTS = frozenset(
    "thumbnail stage_reasons complete has_media error identity_embedding audio_fingerprint".split()  # noqa: SIM905
)
SAMPLE_FACTS = tuple(
    name
    for name in [*MEASUREMENTS.names, "source_uris", "source_licence", "speaker"]
    if name not in NOT_FACTS
)
"""A sample's `.json`: what was measured, never what was decided."""


class ShardError(Exception):
    """A shard that is not as it was written; the message names it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: bytes `offset` to `offset + size` of a shard."""

    shard: str
    offset: int
    size: int


class Media(Protocol):
    """Where a sample's media come from. Read by several threads."""

    def read(self, sample: Mapping[str, Any]) -> dict[str, bytes]:
        """By suffix."""
        ...


def write_shards(
    folder: Location, split: str, samples: Sequence[Mapping[str, Any]], media: Media, shard_bytes: float
) -> tuple[dict[str, str], dict[str, Place]]:
    """Write samples in their order as shards of at most `shard_bytes`, or of one sample that is larger.

    Returns the shards' sha256 by name, and the samples' places by clip_id.
    """
    digests: dict[str, str] = {}
    places: dict[str, Place] = {}
    with ThreadPoolExecutor(READERS) as readers:
        rest = _read_ahead(readers, samples, media)
        sample = next(rest, None)
        while sample is not None:
            stem = f"{split}-{len(digests):06d}"
            name, digest, held, sample = _write_shard(folder, stem, sample, rest, shard_bytes)
            digests[name] = digest
            places |= held
    return digests, places


@dataclass(frozen=True, slots=True)
class _Sample:
    clip_id: str
    members: dict[str, bytes]
    """By suffix, in their order."""

    @property
    def size(self) -> int:
        """In a shard: each member has a header, and is padded to whole blocks."""
        return sum(
            tarfile.BLOCKSIZE * (1 - -len(data) // tarfile.BLOCKSIZE) for data in self.members.values()
        )


def _read_ahead(
    readers: ThreadPoolExecutor, samples: Sequence[Mapping[str, Any]], media: Media
) -> Iterator[_Sample]:
    """The samples in their order; some of the next ones are on their way meanwhile."""

    def read(sample: Mapping[str, Any]) -> _Sample:
        members = media.read(sample) | {".json": _facts(sample), ".txt": _caption(sample)}
        return _Sample(sample["clip_id"], {suffix: members[suffix] for suffix in MEMBERS})

    coming: deque[Future[_Sample]] = deque()
    for sample in samples:
        coming.append(readers.submit(read, sample))
        if len(coming) > READERS:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _write_shard(
    folder: Location, stem: str, sample: _Sample, rest: Iterator[_Sample], shard_bytes: float
) -> tuple[str, str, dict[str, Place], _Sample | None]:
    """A shard of `sample` and as many of the rest as it holds: name, digest, places, and who comes next."""
    ranges: dict[str, tuple[int, int]] = {}
    after: _Sample | None = sample
    with filling(folder) as local:
        temporary = local / f".{stem}.{os.getpid()}"
        try:
            with tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                while after is not None and (not ranges or tar.offset + after.size <= shard_bytes):
                    ranges[after.clip_id] = (tar.offset, after.size)
                    for suffix, data in after.members.items():
                        _add(tar, after.clip_id + suffix, data)
                    after = next(rest, None)
            digest = file_sha256(temporary)
            name = f"{stem}-{digest[:8]}.tar"
            os.replace(temporary, local / name)
        finally:
            temporary.unlink(missing_ok=True)
    return name, digest, {clip_id: Place(name, *where) for clip_id, where in ranges.items()}, after


def _caption(sample: Mapping[str, Any]) -> bytes:
    return (sample["caption"] or "").encode()


def _facts(sample: Mapping[str, Any]) -> bytes:
    facts = {name: sample[name] for name in SAMPLE_FACTS}
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, indent=1).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0: the same clips make the same shard
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_sample(folder: Location, place: Place) -> dict[str, bytes]:
    """The members of one sample, by file name. Raises ShardError."""
    path = folder / place.shard
    try:
        data = read_range(path, place.offset, place.size)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {member.name: _content(tar, member) for member in tar}
    except (OSError, tarfile.TarError) as error:
        raise ShardError(f"{path}: no sample at byte {place.offset}: {error}") from error


def read_members(folder: Location, place: Place, suffixes: Collection[str]) -> dict[str, bytes]:
    """Some members of one sample, by suffix; on a local disk no others are read. Raises ShardError."""
    path = folder / place.shard
    found: dict[str, bytes] = {}
    if isinstance(path, ObjectPath):  # a store answers one request sooner than three
        for name, data in read_sample(folder, place).items():
            found["." + name.partition(".")[2]] = data
    else:
        found = _local_members(path, place, suffixes)
    missing = [suffix for suffix in suffixes if suffix not in found]
    if missing:
        raise ShardError(f"{path}: the sample at byte {place.offset} has no {' '.join(missing)}")
    return {suffix: found[suffix] for suffix in suffixes}


def _local_members(path: Path, place: Place, suffixes: Collection[str]) -> dict[str, bytes]:
    """From header to header, until all are found or the sample ends."""
    found: dict[str, bytes] = {}
    try:
        with path.open("rb", buffering=0) as file:
            at = place.offset
            while at < place.offset + place.size and len(found) < len(suffixes):
                file.seek(at)
                header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "strict")
                suffix = "." + header.name.partition(".")[2]
                if suffix in suffixes:
                    found[suffix] = file.read(header.size)
                    if len(found[suffix]) != header.size:
                        raise ShardError(f"{path}: {header.name} is cut off")
                at += tarfile.BLOCKSIZE * (1 - -header.size // tarfile.BLOCKSIZE)
    except (OSError, tarfile.TarError) as error:
        raise ShardError(f"{path}: no sample at byte {place.offset}: {error}") from error
    return found


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ShardError(f"{member.name}: not a plain file")
    return file.read()


def file_sha256(path: Location) -> str:
    """Digest of a file's bytes."""
    file: Any
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
