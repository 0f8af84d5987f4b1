"""Shards: WebDataset tar files, immutable, their digest in their name.

A sample is `{clip_id}` + `.mp4 .flac .npz .json .txt`, its members side by side in this order.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.ledger import MEASUREMENTS, MEDIA

MEMBERS = (*MEDIA, ".json", ".txt")
SAMPLE_FACTS = tuple(
    name
    for name in [*MEASUREMENTS.names, "source_uris", "source_licence", "speaker"]
    if name not in ("thumbnail", "stage_reasons", "complete", "has_media", "error")
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
    """Where a sample's media come from."""

    def size(self, sample: Mapping[str, Any]) -> int: ...
    def read(self, sample: Mapping[str, Any]) -> dict[str, bytes]:
        """By suffix."""
        ...


def write_shards(
    folder: Path, split: str, samples: Sequence[Mapping[str, Any]], media: Media, shard_bytes: float
) -> tuple[dict[str, str], dict[str, Place]]:
    """Write samples in their order as shards of about `shard_bytes`.

    Returns the shards' sha256 by name, and the samples' places by clip_id.
    """
    digests: dict[str, str] = {}
    places: dict[str, Place] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for index, some in enumerate(_cut_to_size(samples, media, shard_bytes)):
        name, digest, held = _write_shard(folder, f"{split}-{index:06d}", some, media)
        digests[name] = digest
        places |= held
    return digests, places


def _cut_to_size(
    samples: Sequence[Mapping[str, Any]], media: Media, shard_bytes: float
) -> Iterator[list[Mapping[str, Any]]]:
    some: list[Mapping[str, Any]] = []
    filled = 0
    for sample in samples:
        size = media.size(sample)
        if some and filled + size > shard_bytes:
            yield some
            some, filled = [], 0
        some.append(sample)
        filled += size
    if some:
        yield some


def _write_shard(
    folder: Path, stem: str, samples: Sequence[Mapping[str, Any]], media: Media
) -> tuple[str, str, dict[str, Place]]:
    ranges: dict[str, tuple[int, int]] = {}
    temporary = folder / f".{stem}.{os.getpid()}"
    try:
        with tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                start = tar.offset
                members = media.read(sample) | {".json": _facts(sample), ".txt": _caption(sample)}
                for suffix in MEMBERS:
                    _add(tar, sample["clip_id"] + suffix, members[suffix])
                ranges[sample["clip_id"]] = (start, tar.offset - start)
        digest = file_sha256(temporary)
        name = f"{stem}-{digest[:8]}.tar"
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return name, digest, {clip_id: Place(name, *where) for clip_id, where in ranges.items()}


def _caption(sample: Mapping[str, Any]) -> bytes:
    return (sample["caption"] or "").encode()


def _facts(sample: Mapping[str, Any]) -> bytes:
    facts = {name: sample[name] for name in SAMPLE_FACTS}
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, indent=1).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0: the same clips make the same shard
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_sample(folder: Path, place: Place) -> dict[str, bytes]:
    """The members of one sample, by file name. Raises ShardError."""
    path = folder / place.shard
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {member.name: _content(tar, member) for member in tar}
    except (OSError, tarfile.TarError) as error:
        raise ShardError(f"{path}: no sample at byte {place.offset}: {error}") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ShardError(f"{member.name}: not a plain file")
    return file.read()


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
