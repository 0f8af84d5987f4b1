"""Tombstones: what was purged and must not come back, told by salted hashes only.

    SALT:HASH              a source, by the sha256 of its content or by its URI
    SALT:HASH:FROM-TO      a stretch of a source's content, in milliseconds: any clip that overlaps it

HASH is sha256 over salt, kind and name. A tombstone tells nothing by itself; who already has the file
or its URI can ask whether it was purged, which is its purpose. Nothing of a face is kept: an embedding
that could recognise a person again would itself be the biometric data that the purge has to delete.
"""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from functools import lru_cache

import pyarrow as pa

SALT_BYTES = 8


class Tombstones:
    """The tombstones of a dataset, ready to be asked about many sources and clips."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = list(entries)
        self._ranges_ms: dict[str, list[tuple[int, int]]] = {}
        self._sources: set[str] = set()
        for entry in entries:
            salt, hashed, *stretch = entry.split(":")
            if stretch:
                start, end = stretch[0].split("-")
                self._ranges_ms.setdefault(f"{salt}:{hashed}", []).append((int(start), int(end)))
            else:
                self._sources.add(f"{salt}:{hashed}")
        self._salts = sorted({entry.split(":")[0] for entry in entries})

    def __bool__(self) -> bool:
        return bool(self.entries)

    def cover_content(self, sha256: str | None) -> bool:
        """Whether all of this content was purged."""
        return sha256 is not None and any(name in self._sources for name in self._names("content", sha256))

    def cover_uri(self, uri: str) -> bool:
        """Whether the source of this name was purged, whatever it holds now."""
        return any(name in self._sources for name in self._names("uri", uri))

    def cover_clip(self, sha256: str | None, start_s: float | None, end_s: float | None) -> bool:
        """Whether a stretch of a content has anything in common with one that was purged."""
        if not self.entries or sha256 is None:
            return False
        if self.cover_content(sha256):
            return True
        if start_s is None or end_s is None:
            return False
        start, end = round(start_s * 1000), round(end_s * 1000)
        purged = (stretch for name in self._names("content", sha256) for stretch in self._ranges_of(name))
        return any(start < last and first < end for first, last in purged)

    def touch_content(self, sha256: str) -> bool:
        """Whether all or a part of this content was purged."""
        names = self._names("content", sha256)
        return any(name in self._sources or name in self._ranges_ms for name in names)

    def listing_without(self, listing: pa.Table) -> pa.Table:
        """The rows of a listing (`uri`, `source_sha256`) that were not purged."""
        if not self:
            return listing
        names = zip(listing["source_sha256"].to_pylist(), listing["uri"].to_pylist(), strict=True)
        stay = [not (self.cover_content(sha256) or self.cover_uri(uri)) for sha256, uri in names]
        return listing.filter(pa.array(stay, pa.bool_()))

    def clips_without(self, rows: pa.Table) -> pa.Table:
        """The rows of measurements that were not purged."""
        if not self:
            return rows
        names = ("clip_id", "source_sha256", "start_s", "end_s")
        clips = zip(*(rows[name].to_pylist() for name in names), strict=True)
        return rows.filter(
            pa.array([not (clip[0] and self.cover_clip(*clip[1:])) for clip in clips], pa.bool_())
        )

    def salt(self) -> str:
        """The salt for further tombstones of this dataset: one for all, so that asking stays cheap."""
        return self._salts[0] if self._salts else secrets.token_hex(SALT_BYTES)

    def with_more(self, entries: Iterable[str]) -> "Tombstones":
        """These and others, each once, in a fixed order."""
        return Tombstones(sorted({*self.entries, *entries}))

    def _names(self, kind: str, name: str) -> list[str]:
        return [_hashed(salt, kind, name) for salt in self._salts]

    def _ranges_of(self, name: str) -> list[tuple[int, int]]:
        return self._ranges_ms.get(name, [])


def content_tombstone(salt: str, sha256: str) -> str:
    """All of a source's content, under whatever name it comes."""
    return _hashed(salt, "content", sha256)


def uri_tombstone(salt: str, uri: str) -> str:
    """A source's name, whatever lies there later."""
    return _hashed(salt, "uri", uri)


def clip_tombstone(salt: str, sha256: str, start_s: float, end_s: float) -> str:
    """A stretch of a content; another segmentation's clips that overlap it are covered, too."""
    return f"{_hashed(salt, 'content', sha256)}:{round(start_s * 1000)}-{round(end_s * 1000)}"


@lru_cache(4096)  # a source is asked for once a clip
def _hashed(salt: str, kind: str, name: str) -> str:
    return f"{salt}:{hashlib.sha256(f'{salt} {kind} {name}'.encode()).hexdigest()}"
