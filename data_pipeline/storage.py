"""Storage: a source or a dataset lies on a local disk or in an object store, and the rest does not care.

    location("videos/a.mp4")    -> Path
    location("s3://bucket/out") -> ObjectPath, which is used like one
    replacing(path)             -> a local file to write, which becomes `path` when it is whole
    filling(folder)             -> a local folder to write files into, which then lie in `folder`

Nothing is written to an object store but whole objects: a local file is made first (one at a time, as
large as one shard) and uploaded in one request or one multipart upload, which shows when it is complete.

Stores are pyarrow's own (s3, gs), which retry what a store refuses or breaks off, and raise OSError
alone; other schemes are fsspec's. Endpoint, region and credentials are taken from where the store's own tools
look for them: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ~/.aws, instance roles.
"""

import errno
import io
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import uuid4

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import fs

ATTEMPTS = 6  # of one request; the waits between them double, with chance in them: up to half a minute in all
CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 8.0  # of a transfer without a byte
GIVE_UP = timedelta(minutes=2)  # where the store counts time instead of attempts
BLOCK_BYTES = 4 * 2**20
BLOCKS_KEPT = 8  # of an object that is read here and there: sound and picture may lie apart in it

NATIVE = ("s3", "gs")


class Facts(NamedTuple):
    """What `Path.stat` says, as far as an object store knows it."""

    st_mode: int
    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True, slots=True)
class ObjectPath:
    """A name in an object store: the part of pathlib's language that this package speaks.

    Every method raises OSError, FileNotFoundError or PermissionError, as Path does, and names the object.
    Folders need not be made. Names with empty parts (`a//b`) cannot be told."""

    scheme: str
    key: PurePosixPath
    """The bucket and what follows."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __truediv__(self, other: str | PurePosixPath) -> "ObjectPath":
        return ObjectPath(self.scheme, self.key / other)

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def stem(self) -> str:
        return self.key.stem

    @property
    def suffix(self) -> str:
        return self.key.suffix

    @property
    def parent(self) -> "ObjectPath":
        return ObjectPath(self.scheme, self.key.parent)

    def with_name(self, name: str) -> "ObjectPath":
        return ObjectPath(self.scheme, self.key.with_name(name))

    def with_suffix(self, suffix: str) -> "ObjectPath":
        return ObjectPath(self.scheme, self.key.with_suffix(suffix))

    def relative_to(self, folder: "ObjectPath") -> PurePosixPath:
        return self.key.relative_to(folder.key)

    def is_relative_to(self, folder: "ObjectPath") -> bool:
        return self.scheme == folder.scheme and self.key.is_relative_to(folder.key)

    def stat(self) -> Facts:
        from pyarrow import fs

        with self._named():
            found = self._store.get_file_info(str(self.key))
        if found.type == fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        kind = stat.S_IFDIR if found.type == fs.FileType.Directory else stat.S_IFREG
        return Facts(kind, found.size or 0, found.mtime_ns or 0)

    def exists(self) -> bool:
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        try:
            return stat.S_ISDIR(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def is_file(self) -> bool:
        try:
            return stat.S_ISREG(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """The object as a seekable file to read."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: objects are not opened to write; use replacing() or write_bytes()")
        with self._named():
            file = io.BufferedReader(_Blocks(self, self._store.open_input_file(str(self.key))))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding, newline=newline)

    def read_bytes(self) -> bytes:
        with self._named(), self._store.open_input_file(str(self.key)) as file:
            return _read_at(file, 0, file.size())

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: "bytes | pa.Buffer") -> None:
        """Put the object there whole, or not at all."""
        # In one write: a stream that is left half-way would be closed, and show what it had.
        with self._named(), self._store.open_output_stream(str(self.key)) as stream:
            stream.write(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._named():
                self._store.delete_file(str(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Iterator["ObjectPath"]:
        """What lies in this folder, in order of name; nothing where there is no such folder."""
        return (path for path, _ in self._listed(recursive=False))

    def walk(self) -> Iterator["ObjectPath"]:
        """Every object under this folder, in order of name."""
        return (path for path, is_object in self._listed(recursive=True) if is_object)

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects whose name below this folder matches; `**` reaches over any number of folders."""
        from fsspec.utils import glob_translate

        wanted = re.compile(glob_translate(pattern))
        below = self._listed(recursive="/" in pattern or "**" in pattern)
        objects = (path for path, is_object in below if is_object)
        return (path for path in objects if wanted.match(path.relative_to(self).as_posix()))

    def _listed(self, recursive: bool) -> Iterator[tuple["ObjectPath", bool]]:
        """Each with whether it is an object; else it is a folder."""
        from pyarrow import fs

        with self._named():
            selector = fs.FileSelector(str(self.key), recursive=recursive, allow_not_found=True)
            found = self._store.get_file_info(selector)
        for info in sorted(found, key=lambda info: info.path):
            yield ObjectPath(self.scheme, PurePosixPath(info.path.lstrip("/"))), info.is_file

    @property
    def _store(self) -> "fs.FileSystem":
        return client(self.scheme)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors as the operating system's come: with a number, in words, and with the name."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self)) from error
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            denied = isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error)
            raise OSError(errno.EACCES if denied else errno.EIO, str(error), str(self)) from error


class _Blocks(io.RawIOBase):
    """An object as a seekable file, fetched block by block; the next one is on its way meanwhile."""

    def __init__(self, path: ObjectPath, file: "pa.NativeFile") -> None:
        from fsspec.caching import BackgroundBlockCache

        self._path, self._file, self._at = path, file, 0
        self.name = path.name  # libav looks at its extension, too
        self._size = file.size()
        self._blocks = BackgroundBlockCache(BLOCK_BYTES, self._fetch, self._size, maxblocks=BLOCKS_KEPT)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "seek to before the beginning", str(self._path))
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._blocks._fetch(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self, start: int, end: int) -> bytes:
        end = min(end, self._size)  # the last block is shorter
        with self._path._named():
            data = _read_at(self._file, start, end - start)
        if len(data) != end - start:
            raise OSError(errno.EIO, f"ends after {start + len(data)} of {self._size} bytes", str(self._path))
        return data


def _read_at(file: "pa.NativeFile", offset: int, size: int) -> bytes:
    """Some bytes of an object.

    The S3 client retries what may be retried but for one thing: a refusal whose text is longer than the
    bytes that were asked for does not fit where they should go, and it takes that for a fault of its own."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return file.read_at(size, offset)
        except OSError as error:
            if attempt == ATTEMPTS or "response stream" not in str(error):
                raise
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("ATTEMPTS is at least 1")


Location = Path | ObjectPath


def location(uri: str | Location) -> Location:
    """Where `uri` lies. `file://` carries local names that are not UTF-8, in percent encoding.

    Raises ValueError, in words, for a scheme that nothing here can read."""
    if not isinstance(uri, str):
        return uri
    scheme, separator, key = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme == "file":
        return Path(os.fsdecode(unquote_to_bytes(key)))
    if not is_known(scheme):
        raise ValueError(f"{uri!r}: nothing is known of {scheme}://; local paths, s3:// and gs:// are")
    if not key.strip("/"):
        raise ValueError(f"{uri!r}: names no bucket; write {scheme}://BUCKET/PATH")
    return ObjectPath(scheme, PurePosixPath(key))


def is_known(scheme: str) -> bool:
    """Whether pyarrow or fsspec has a file system for URIs of this scheme."""
    if scheme in NATIVE:
        return True
    from fsspec.registry import known_implementations

    return scheme in known_implementations and not scheme.startswith("http")


@cache
def client(scheme: str) -> "fs.FileSystem":
    """The store's client, one for each process; safe to use from several threads."""
    from pyarrow import fs

    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        protocol, _, address = (endpoint or "https://").partition("://")
        return fs.S3FileSystem(
            scheme=protocol,
            endpoint_override=address.rstrip("/") or None,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=STALL_TIMEOUT_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            allow_delayed_open=True,  # a small object in one request
        )
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=GIVE_UP)
    import fsspec

    try:
        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except ImportError as error:
        raise OSError(errno.ENOSYS, f"{scheme}:// needs a library that is not installed: {error}") from error


@contextmanager
def replacing(path: Location) -> Iterator[Path]:
    """A local path to write to, which takes the place of `path` only when the writing has succeeded."""
    if isinstance(path, ObjectPath):
        with TemporaryDirectory(prefix="hallo3-") as folder:
            local = Path(folder) / path.name
            yield local
            upload(local, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(folder: Location) -> Iterator[Path]:
    """A local folder whose files lie in `folder` once the writing has succeeded."""
    if isinstance(folder, ObjectPath):
        with TemporaryDirectory(prefix="hallo3-") as local:
            yield Path(local)
            for file in sorted(Path(local).iterdir()):
                upload(file, folder / file.name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def check_writable(folder: Location) -> None:
    """Put an object there and take it away: what is wrong with a name, an address or credentials shows now.

    Raises OSError. A local folder is not tried: what is wrong with it shows at its first file."""
    if isinstance(folder, ObjectPath):
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()


def upload(local: Path, path: ObjectPath) -> None:
    """Put a local file there, whole or not at all; it is mapped, not read into memory."""
    if local.stat().st_size == 0:
        path.write_bytes(b"")
        return
    import pyarrow as pa

    with pa.memory_map(str(local)) as file:
        path.write_bytes(file.read_buffer())


def remove_tree(folder: Location, ignore_errors: bool = False) -> None:
    """Remove a folder and all that is in it."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors)
        return
    try:
        with folder._named():
            folder._store.delete_dir(str(folder.key))
    except OSError:
        if not ignore_errors:
            raise


def read_range(path: Location, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on, and no others; fewer where the file ends."""
    if isinstance(path, ObjectPath):
        with path._named(), path._store.open_input_file(str(path.key)) as remote:
            return _read_at(remote, offset, size)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def read_into(path: Location, offset: int, buffer: memoryview) -> int:
    """Fill a buffer of bytes with those from `offset` on; how many there were, fewer where the file ends.

    From a local disk they are read to where they stay, copied by nobody."""
    if isinstance(path, ObjectPath):
        data = read_range(path, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)
    file, filled = os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0
    try:
        while filled < len(buffer) and (more := os.preadv(file, [buffer[filled:]], offset + filled)):
            filled += more
    finally:
        os.close(file)
    return filled


def parquet_file(path: Location) -> "pq.ParquetFile":
    """A Parquet file to read; from a store, the blocks in which the columns lie that are asked for."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path if isinstance(path, Path) else path.open("rb"))


def read_table(path: Location, columns: Sequence[str] | None = None) -> "pa.Table":
    """A Parquet file's rows."""
    with parquet_file(path) as file:
        return file.read(columns)
