"""Feature shards: what frozen models made of a dataset's clips, in shards that lie parallel to its own.

    features/{kind}-{digest8}/{shard stem}.tar      arrays as .npy, in the order of the shard's clips
    features/{kind}-{digest8}/{shard stem}.parquet  where each lies, or why it is not there; written last

A key is a clip_id, or where a clip is cut into windows `clip_id/000025`: the window's first frame. A shard's
features are done when their index is there. The index gives the place of an array's numbers behind their
.npy header, so that a few rows of it (some frames of a clip's speech) are one ranged read. Floating numbers
are stored as float16, where their range allows it.

What is computed is not known here: a `FeatureSet` names it by the digest of everything that it depends on.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.dataset import Dataset
from data_pipeline.shards import file_sha256
from data_pipeline.storage import Location, parquet_file, read_into, read_table, replacing

FEATURES = "features"
DIGITS = 8  # of a digest in a name
INDEXES_KEPT = 256  # of shards, in memory; a few hundred kB each
ABOUT = b"hallo3"

INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("shape", pa.list_(pa.int64())),
        ("dtype", pa.string()),
        ("error", pa.string()),
    ]
)
"""Bytes of the array's numbers in the tar; null where it is missing, and `error` says why."""


class FeatureMissing(Exception):
    """No features of this key; the message says why."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """One kind of features of a dataset, made in one way."""

    kind: str
    digest: str
    """Of all that changes the numbers: weights, sizes, settings."""
    window_frames: int | None = None
    """Frames of a window; None: one array a clip."""
    window_stride: int = 1
    variants: int | None = None
    """Of each array, stacked along its first axis; None: there is but one, not stacked."""

    @property
    def folder_name(self) -> str:
        """Under `features/`."""
        return f"{self.kind}-{self.digest[:DIGITS]}"

    def folder(self, root: Location) -> Location:
        """Where they lie in the dataset at `root`."""
        return root / FEATURES / self.folder_name

    def starts(self, n_frames: int) -> range:
        """The first frames of a clip's windows; 0 alone where there are no windows."""
        if self.window_frames is None:
            return range(1)
        return range(0, n_frames - self.window_frames + 1, self.window_stride)

    def keys(self, clip_id: str, n_frames: int) -> list[str]:
        """The keys of one clip, in order; none for a clip that is shorter than a window."""
        if self.window_frames is None:
            return [clip_id]
        return [window_key(clip_id, start) for start in self.starts(n_frames)]


def window_key(clip_id: str, start: int) -> str:
    """The key of the window that begins with this frame."""
    return f"{clip_id}/{start:06d}"


@dataclass(frozen=True, slots=True)
class Feature:
    """One array by its key, or why there is none."""

    key: str
    array: np.ndarray | None
    error: str | None = None


def is_done(root: Location, features: FeatureSet, shard: str) -> bool:
    """Whether a shard's features are there, made in this very way."""
    path = features.folder(root) / f"{_stem(shard)}.parquet"
    return path.exists() and _set_of(path) == features


class FeatureWriter:
    """Takes one shard's features, clip after clip in the shard's order. Made by `writing_features`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.rows: list[dict[str, Any]] = []
        """Of the index."""

    def add(self, feature: Feature) -> None:
        """The next one."""
        place = {} if feature.array is None else _add(self._tar, feature.key, feature.array)
        self.rows.append({"key": feature.key, "error": feature.error} | place)

    @property
    def arrays(self) -> int:
        return len(self.rows) - self.missing

    @property
    def missing(self) -> int:
        return sum(row["error"] is not None for row in self.rows)


@contextmanager
def writing_features(root: Location, features: FeatureSet, shard: str) -> Iterator[FeatureWriter]:
    """What is added lies in the dataset when the writing has succeeded: first the arrays, then the index."""
    path = features.folder(root) / f"{_stem(shard)}.tar"
    with replacing(path) as temporary:
        with tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            writer = FeatureWriter(tar)
            yield writer
        about = {"set": asdict(features), "shard": shard, "sha256": file_sha256(temporary)}
    index = pa.Table.from_pylist(writer.rows, INDEX)
    with replacing(path.with_suffix(".parquet")) as temporary:
        pq.write_table(index.replace_schema_metadata({ABOUT: json.dumps(about).encode()}), temporary)


def bytes_of(root: Location, features: FeatureSet, shard: str) -> int:
    """What a shard's features, and their index, take on disk."""
    path = features.folder(root) / f"{_stem(shard)}.tar"
    return path.stat().st_size + path.with_suffix(".parquet").stat().st_size


def _add(tar: tarfile.TarFile, key: str, array: np.ndarray) -> dict[str, Any]:
    """Put an array into a tar; the place of its numbers there."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "f" and np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
        array = array.astype(np.float16)
    data = io.BytesIO()
    np.lib.format.write_array(data, array, allow_pickle=False)
    member = tarfile.TarInfo(f"{key}.npy")  # mtime, uid and gid are 0: the same numbers, the same bytes
    member.size = data.tell()
    header = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(data.getvalue()))
    return {
        "offset": header + member.size - array.nbytes,
        "size": array.nbytes,
        "shape": list(array.shape),
        "dtype": array.dtype.str,
    }


def remove_features(root: Location, features: FeatureSet, shard: str) -> None:
    """Delete a shard's features, the index first."""
    path = features.folder(root) / f"{_stem(shard)}.parquet"
    path.unlink(missing_ok=True)
    path.with_suffix(".tar").unlink(missing_ok=True)


def remove_unfinished(root: Location, features: FeatureSet, shard: str | None = None) -> None:
    """Delete what killed workers had begun to write, of one shard or all. Nothing else may be writing it."""
    for path in features.folder(root).glob(f".{_stem(shard)}.*" if shard else ".*"):
        path.unlink(missing_ok=True)


def open_features(dataset: Dataset, kind: str, digest: str) -> "StoredFeatures | None":
    """The features of this kind and digest that the dataset's version has; None where it has none at all."""
    folder = FeatureSet(kind, digest).folder(dataset.root)
    stems = {_stem(shard) for shard in dataset.version.shards}
    there = {path.stem for path in folder.glob("*.parquet")} & stems
    if not there:
        return None
    sets = (_set_of(folder / f"{stem}.parquet") for stem in sorted(there))
    found = next((each for each in sets if each is not None), None)
    if found is None or found.digest != digest:  # all damaged, or two that begin with the same digits
        return None
    shard_of = {clip_id: _stem(place.shard) for clip_id, place in dataset.places().items()}
    return StoredFeatures(folder, found, shard_of, sorted(stems - there))


@dataclass(frozen=True, slots=True)
class _Place:
    tar: Location
    offset: int
    shape: tuple[int, ...]
    row_bytes: int
    """Of one index along the first axis."""
    dtype: np.dtype
    error: str | None


class StoredFeatures:
    """Reads features by their keys; from several threads. Made by `open_features`."""

    def __init__(
        self, folder: Location, features: FeatureSet, shard_of: dict[str, str], absent: Sequence[str]
    ) -> None:
        self.folder = folder
        self.features = features
        self.absent = absent
        """Stems of shards of the version that have none yet."""
        self._shard_of = shard_of
        self._indexes: dict[str, dict[str, _Place]] = {}

    def __contains__(self, key: str) -> bool:
        try:
            self._place(key)
        except FeatureMissing:
            return False
        return True

    def read(self, key: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """An array as it is stored (float16, or float32 where that did not do), or `count` of its rows from
        `first` on; no others are read. (torch makes float32 of it three times as fast as numpy.)

        Raises FeatureMissing where there is none or it is cut off, OSError for a store that cannot be read,
        and ValueError for rows that it does not have."""
        place = self._place(key)
        rows = place.shape[0]
        count = rows - first if count is None else count
        if first < 0 or count < 0 or first + count > rows:
            raise ValueError(f"{key}: rows {first} to {first + count} were asked for, it has {rows}")
        data = np.empty(count * place.row_bytes, np.uint8)
        try:
            found = read_into(place.tar, place.offset + first * place.row_bytes, data.data)
        except FileNotFoundError:
            raise FeatureMissing(f"{key}: {place.tar} is gone") from None
        if found != len(data):
            raise FeatureMissing(f"{key}: {place.tar} is cut off")
        return data.view(place.dtype).reshape(count, *place.shape[1:])

    def _place(self, key: str) -> _Place:
        stem = self._shard_of.get(key.partition("/")[0])
        place = self._index(stem).get(key) if stem else None
        if place is None:
            raise FeatureMissing(f"{key}: {self.folder} has nothing of it")
        if place.error is not None:
            raise FeatureMissing(f"{key}: could not be computed: {place.error}")
        return place

    def _index(self, stem: str) -> dict[str, _Place]:
        index = self._indexes.get(stem)
        if index is None:
            if len(self._indexes) >= INDEXES_KEPT:
                self._indexes.pop(next(iter(self._indexes)), None)
            index = self._indexes[stem] = self._read_index(stem)
        return index

    def _read_index(self, stem: str) -> dict[str, _Place]:
        try:
            rows = read_table(self.folder / f"{stem}.parquet").to_pylist()
        except (FileNotFoundError, pa.ArrowException):
            return {}
        tar = self.folder / f"{stem}.tar"
        return {row["key"]: _place_of(tar, row) for row in rows}


def _place_of(tar: Location, row: dict[str, Any]) -> _Place:
    """A row of an index."""
    shape = tuple(row["shape"] or (0,))
    row_bytes = (row["size"] or 0) // max(shape[0], 1)
    return _Place(tar, row["offset"] or 0, shape, row_bytes, np.dtype(row["dtype"]), row["error"])


def wrong_features(root: Location, index: Location, clips: Sequence[tuple[str, int]]) -> list[str]:
    """Problems of one shard's features, whose clips are these (clip_id, n_frames) in their order."""
    return list(_problems(root, index, clips))


def _problems(root: Location, path: Location, clips: Sequence[tuple[str, int]]) -> Iterator[str]:
    name = path.relative_to(root).as_posix()  # type: ignore[arg-type]
    try:
        about = _about(path)
        features = FeatureSet(**about["set"])
        rows = read_table(path).to_pylist()
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        yield f"{name}: cannot be read as an index of features: {error}"
        return
    if path.parent.name != features.folder_name:
        yield f"{name}: holds {features.kind} of the digest {features.digest}, which is not its folder's"
    wanted = [key for clip_id, n_frames in clips for key in features.keys(clip_id, n_frames)]
    if [row["key"] for row in rows] != wanted:
        yield f"{name}: its keys are not those of the shard's clips, in their order"
    tar = path.with_suffix(".tar")
    if not tar.exists():
        yield f"{name}: there is no {tar.name} beside it"
    elif (found := file_sha256(tar)) != about["sha256"]:
        told = about["sha256"]
        yield f"{tar.name} of {path.parent.name}: its sha256 is {found[:12]}…, its index says {told[:12]}…"
    else:
        yield from _wrong_arrays(tar, [row for row in rows if row["error"] is None])


def _wrong_arrays(path: Location, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    name = f"{path.name} of {path.parent.name}"
    with path.open("rb") as file, tarfile.open(fileobj=file) as tar:
        names = [member.name for member in tar]
        if names != [f"{row['key']}.npy" for row in rows]:
            yield f"{name}: its members are not those of its index"
            return
        for row, member in zip(rows, tar.getmembers(), strict=True):
            content = tar.extractfile(member)
            array = np.lib.format.read_array(
                io.BytesIO(content.read() if content else b""), allow_pickle=False
            )
            found = (member.offset_data + member.size - array.nbytes, list(array.shape), array.dtype.str)
            if found != (row["offset"], row["shape"], row["dtype"]):
                yield f"{name}: {row['key']} is {found}, its index says otherwise"
            if not np.isfinite(array).all():
                yield f"{name}: {row['key']} holds more than finite numbers"


def indexes_of(dataset: Dataset) -> Iterator[tuple[Location, str]]:
    """The indexes of all features of the dataset's version, each with the shard that it is parallel to."""
    shards = {_stem(shard): shard for shard in dataset.version.shards}
    paths: list[Location] = list((dataset.root / FEATURES).glob("*/*.parquet"))
    for path in sorted(paths, key=str):
        if path.stem in shards:
            yield path, shards[path.stem]


def _about(path: Location) -> dict[str, Any]:
    with parquet_file(path) as file:
        return json.loads((file.schema_arrow.metadata or {}).get(ABOUT, b"{}"))


def _set_of(path: Location) -> FeatureSet | None:
    """Whose index this is; None for one that is damaged."""
    try:
        return FeatureSet(**_about(path)["set"])
    except (pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _stem(shard: str) -> str:
    return shard.removesuffix(".tar")
