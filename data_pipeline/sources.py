"""Where videos come from: files, folders, globs, and lists (CSV, JSONL, Parquet), here or in a store.

A source is a video, or with `start_s`/`end_s`/`crop` a part of one. Listing reads no video.
"""

import csv
import glob
import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pyarrow as pa

from data_pipeline.storage import Location, ObjectPath, location, parquet_file

VIDEO_EXTENSIONS = frozenset(
    "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv".split()  # noqa: SIM905
)
LIST_EXTENSIONS = frozenset({"csv", "jsonl", "parquet"})
LIST_COLUMNS = ("uri", "start_s", "end_s", "crop", "licence", "speaker", "caption", "sha256")


class SourcesError(Exception):
    """Sources that cannot be listed; the message names them."""


@dataclass(frozen=True, slots=True)
class Source:
    """A video to curate. Times in seconds; `crop` is x0 y0 x1 y1 in pixels of the upright picture."""

    uri: str
    start_s: float | None = None
    end_s: float | None = None
    crop: tuple[float, float, float, float] | None = None
    licence: str | None = None
    speaker: str | None = None
    caption: str | None = None
    sha256: str | None = None

    @property
    def path(self) -> Location:
        """The file or object. Raises ValueError for a scheme that nothing here can read."""
        return location(self.uri)

    @property
    def window(self) -> str:
        """A short name of the part that is asked for; empty for the whole file."""
        if self.start_s is None and self.end_s is None and self.crop is None:
            return ""
        part = f"{self.start_s} {self.end_s} {self.crop}"
        return hashlib.sha256(part.encode()).hexdigest()[:8]


SOURCES = pa.schema(
    [
        ("uri", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("crop", pa.list_(pa.float64())),
        ("licence", pa.string()),
        ("speaker", pa.string()),
        ("caption", pa.string()),
        ("sha256", pa.string()),
    ]
)


def table_of(sources: Iterable[Source]) -> pa.Table:
    """Sources as rows of SOURCES; a million of them take some 150 MB."""
    rest, batches = iter(sources), []
    while some := list(islice(rest, 10_000)):
        batches.append(pa.RecordBatch.from_pylist([asdict(source) for source in some], SOURCES))
    return pa.Table.from_batches(batches, SOURCES)


def list_sources(spec: str | list[str], output: str | None = None) -> Iterator[Source]:
    """Every source that `spec` names, in a stable order, each (uri, window) once.

    A dataset that lies among its own sources (`output`) is not one of them.

    Raises SourcesError where a name matches nothing or a list is not one; a listed video that is
    missing is no error here: it becomes a row of the dataset.
    """
    seen: set[tuple[str, str]] = set()
    for name in [spec] if isinstance(spec, str) else spec:
        for source in _expand(name, output):
            key = (source.uri, source.window)
            if key not in seen:
                seen.add(key)
                yield source
    if not seen:
        raise SourcesError(
            f"sources: {spec!r} holds no video; known are {', '.join(sorted(VIDEO_EXTENSIONS))}"
        )


def check_reachable(spec: str | list[str]) -> None:
    """Ask the stores among the sources whether they answer. Raises OSError and SourcesError."""
    for name in [spec] if isinstance(spec, str) else spec:
        path = _location(name)
        if isinstance(path, ObjectPath) and not (path.exists() or glob.has_magic(name)):
            raise SourcesError(f"sources: '{path}' is no object, and nothing lies under it")


def _location(name: str) -> Location:
    try:
        return location(name)
    except ValueError as error:
        raise SourcesError(f"sources: {error}") from None


def _expand(name: str, output: str | None) -> Iterator[Source]:
    path = _location(name)
    if path.suffix[1:].lower() in LIST_EXTENSIONS and path.is_file():
        yield from _in_list(path)
    elif path.is_file():
        yield Source(_uri(path))
    elif isinstance(path, ObjectPath):
        yield from _in_store(path, output)
    elif path.is_dir():
        yield from _in_folder(path, output)
    else:
        yield from _matching(name, output)


def _matching(pattern: str, output: str | None) -> Iterator[Source]:
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise SourcesError(f"sources: {pattern!r} is no file or folder and no pattern that matches any")
    for match in found:
        if os.path.isdir(match):
            yield from _in_folder(Path(match), output)
        else:
            yield Source(_uri(Path(match)))


def _in_store(path: ObjectPath, output: str | None) -> Iterator[Source]:
    """Videos under a prefix, by their extension; or the objects that a pattern names, whatever they are."""
    folders = path.key.parts
    fixed = next((n for n, part in enumerate(folders) if glob.has_magic(part)), None)
    if fixed is None:
        found: Iterator[ObjectPath] = (each for each in path.walk() if _is_video(each.name))
    else:
        base = ObjectPath(path.scheme, path.key.parents[len(folders) - fixed - 1])
        found = base.glob("/".join(folders[fixed:]))
    own = location(output) if output else None
    objects = (each for each in found if not (isinstance(own, ObjectPath) and each.is_relative_to(own)))
    first = next(objects, None)
    if first is None:
        raise SourcesError(f"sources: '{path}' is no object, and no video lies under it or is matched by it")
    yield Source(_uri(first))
    for each in objects:
        yield Source(_uri(each))


def _in_folder(folder: Path, output: str | None) -> Iterator[Source]:
    """Videos under a folder, by their extension. Links are followed, a folder is entered once."""
    entered = {os.path.realpath(output)} if output and "://" not in output else set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        real = os.path.realpath(where)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        for file in sorted(files):
            if _is_video(file):
                yield Source(_uri(Path(where) / file))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix[1:].lower() in VIDEO_EXTENSIONS


def _cannot_list(error: OSError) -> None:
    raise SourcesError(f"sources: {error.filename!r} cannot be listed: {error.strerror}")


def _uri(path: Location) -> str:
    if isinstance(path, ObjectPath):
        return str(path)
    absolute = os.path.abspath(path)
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(absolute))
    return absolute


def _in_list(path: Location) -> Iterator[Source]:
    rows = {"csv": _csv_rows, "jsonl": _jsonl_rows, "parquet": _parquet_rows}[path.suffix[1:].lower()]
    for number, row in enumerate(rows(path), 1):
        yield _from_row(row, path, number)


def _csv_rows(path: Location) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _jsonl_rows(path: Location) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip():
                    yield json.loads(line)
            except json.JSONDecodeError as error:
                raise SourcesError(f"{path}, line {number}: not JSON: {error}") from None


def _parquet_rows(path: Location) -> Iterable[dict[str, Any]]:
    for batch in parquet_file(path).iter_batches():
        yield from batch.to_pylist()


def _from_row(row: Any, path: Location, number: int) -> Source:
    if not isinstance(row, dict) or not row.get("uri"):
        raise SourcesError(
            f"{path}, row {number}: no `uri`; a list has the columns {', '.join(LIST_COLUMNS)}"
        )
    given = {key: row[key] for key in LIST_COLUMNS if row.get(key) not in (None, "")}
    try:
        times = {key: float(given.pop(key)) for key in ("start_s", "end_s") if key in given}
        crop = _crop(given.pop("crop", None))
    except (TypeError, ValueError) as error:
        raise SourcesError(f"{path}, row {number}: start_s, end_s or crop is not a number: {error}") from None
    if not 0 <= times.get("start_s", 0.0) < times.get("end_s", float("inf")):
        raise SourcesError(f"{path}, row {number}: {times} is no time range")
    words = {key: str(value) for key, value in given.items()}
    source = Source(words.pop("uri"), times.get("start_s"), times.get("end_s"), crop, **words)
    if "://" in source.uri:
        return source
    if not isinstance(path, ObjectPath):
        return replace(source, uri=_uri(path.parent / source.uri))
    if source.uri.startswith("/"):  # a local file, also where the list lies in a store
        return source
    return replace(source, uri=f"{path.scheme}://{posixpath.normpath(path.parent.key / source.uri)}")


def _crop(value: Any) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    numbers = value.replace(",", " ").split() if isinstance(value, str) else value
    x0, y0, x1, y1 = (float(number) for number in numbers)
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"crop {value!r} is no box x0 y0 x1 y1")
    return x0, y0, x1, y1


def sample_of(sources: Iterable[Source], count: int) -> list[Source]:
    """`count` sources, spread over the list by a hash of their names: the same ones every time."""
    import heapq

    return heapq.nsmallest(count, sources, key=lambda s: hashlib.sha256(s.uri.encode()).digest())
