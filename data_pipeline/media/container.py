"""Container: open a file, find its streams, walk its packets, decode them.

The clock's zero is the time stamp of the first picture (of the first sound where there is no picture).
"""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import IO, Any

from data_pipeline.clip import Reason
from data_pipeline.media.damage import MAX_DAMAGED, Damage
from data_pipeline.media.info import MAX_PIXELS, MediaError
from data_pipeline.storage import Location, ObjectPath

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,mxf,ivf,nut,"
    "wav,flac,mp3,aac,aiff,caf,amr,w64,au"
)
"""Those that may be used. Not among them: playlists (HLS, ffconcat, ...), which would open further files,
and bare codec streams, which have no times."""

ANNOUNCING = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf", "mxf")
"""Containers whose header says how long they are; of others the length is a guess."""

AVIO_BYTES = 2**16
"""What libav reads at a time from an object of a store."""

TOLERANCE_S = 1e-3
"""Clips are cut at whole milliseconds, so times are compared no finer than that."""


@contextmanager
def open_container(path: Location, max_pixels: int = MAX_PIXELS) -> Iterator[Any]:
    """A container to read. Whatever libav says while it is open comes out as a MediaError.

    An object of a store is read where libav looks, block by block; what the store says is said as it is."""
    import av

    _check_file(path)
    options = {
        "format_whitelist": DEMUXERS,
        "protocol_whitelist": "file",
        "max_pixels": str(max_pixels),  # for the pictures that are decoded to find out what there is
    }
    try:
        with (
            _opened(path) as file,
            av.open(file, options=options, metadata_errors="replace", buffer_size=AVIO_BYTES) as container,
        ):
            yield container
    except av.error.MemoryError as failure:
        raise MemoryError(f"{path}: reading it needs more memory than allowed") from failure
    except av.error.FFmpegError as failure:
        _check_storage(path, failure)
        raise MediaError(Reason.CORRUPT, f"{path}: not media, or broken ({failure.strerror})") from failure
    except OSError as failure:
        if not isinstance(path, ObjectPath) or failure.filename != str(path):
            raise
        raise MediaError(Reason.STORAGE, f"{path}: {failure.strerror}") from failure


def _opened(path: Location) -> AbstractContextManager[str | IO[bytes]]:
    return path.open("rb") if isinstance(path, ObjectPath) else nullcontext(url(path))


def url(path: Path) -> str:
    """A name that libav cannot take for a protocol (`concat:...`), whatever the file is called."""
    return "file:" + os.path.abspath(path)


def _check_file(path: Location) -> None:
    try:
        size = _size_of(path)
    except IsADirectoryError:
        raise MediaError(Reason.UNSUPPORTED, f"{path}: is a folder") from None
    except OSError as failure:
        absent = failure.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
        reason = Reason.MISSING if absent else Reason.STORAGE
        raise MediaError(reason, f"{path}: {failure.strerror}") from failure
    if size == 0:
        raise MediaError(Reason.CORRUPT, f"{path}: is empty")


def _size_of(path: Location) -> int:
    if isinstance(path, ObjectPath):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        return path.stat().st_size
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def _check_storage(path: Location, failure: Any) -> None:
    """libav says "input/output error" of a file that ends early, too: ask the disk itself."""
    if failure.errno != errno.EIO or isinstance(path, ObjectPath):  # a store has said so by itself
        return
    try:
        with open(path, "rb", buffering=0) as file:
            while file.read(2**24):
                continue
    except OSError as refusal:
        raise MediaError(Reason.STORAGE, f"{path}: {refusal.strerror}") from refusal


def video_stream(container: Any) -> Any | None:
    """The first stream of moving pictures; a cover is none."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    return next((stream for stream in container.streams.video if not stream.disposition & still), None)


def audio_stream(container: Any) -> Any | None:
    """The first sound."""
    return next(iter(container.streams.audio), None)


def zero_s(container: Any) -> float:
    """The clock's zero on the container's own time line."""
    stream: Any = video_stream(container) or audio_stream(container)
    return float((stream.start_time or 0) * stream.time_base)


def duration_s(path: Location, container: Any, stream: Any) -> float:
    """What the stream says, else the container, else (a recording cut short) where the last packet ends."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return (container.duration + (container.start_time or 0)) / 1e6 - zero_s(container)
    ends_s = [_end_s(packet) for packet in _packets(path, container, stream) if packet.pts is not None]
    return max(ends_s, default=0.0) - zero_s(container)


def seek(container: Any, stream: Any, time_s: float) -> bool:
    """Go to a key frame at or before `time_s`. False: it stays at its start."""
    import av

    if time_s <= 0:
        return False
    try:
        container.seek(int((time_s + zero_s(container)) / stream.time_base), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def decoded(path: Location, container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    """The frames of `stream`, from where the container stands; packets that fail are told to `damage`.

    Raises MediaError: STORAGE, and CORRUPT where the file ends well before it should.
    """
    import av

    zero = zero_s(container)
    for packet in chain(_packets(path, container, stream), (None,)):  # None: what the decoder still holds
        try:
            yield from stream.codec_context.decode(packet)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as failure:
            unknown = packet is None or packet.pts is None
            damage.lost(None if unknown else float(packet.pts * packet.time_base) - zero, failure)


def _packets(path: Location, container: Any, wanted: Any) -> Iterator[Any]:
    """The wanted stream's packets up to the end, or up to where the container breaks off.

    All streams are read, so that a file which announces more than it holds is found out."""
    import av

    reached_s = 0.0
    try:
        for packet in container.demux():
            if packet.pts is not None:
                reached_s = max(reached_s, _end_s(packet))
            if packet.stream_index == wanted.index and packet.size:
                yield packet
    except av.error.FFmpegError as failure:
        if failure.errno == errno.ENOMEM:
            raise
        _check_storage(path, failure)
    announced_s = _announced_s(container)
    held_s = reached_s - (container.start_time or 0) / 1e6
    if announced_s - held_s > max(MAX_DAMAGED * announced_s, 0.5):
        raise MediaError(Reason.CORRUPT, f"{path}: announces {announced_s:.2f} s and holds {held_s:.2f} s")


def _announced_s(container: Any) -> float:
    """How long the file says it is; 0 where it does not say."""
    if container.format.name not in ANNOUNCING:
        return 0.0
    length_s = (container.duration or 0) / 1e6
    if container.format.name == "avi" and (video := video_stream(container)) and video.average_rate:
        length_s = max(
            length_s, float(video.frames / video.average_rate)
        )  # libav guesses where the index is lost
    return length_s


def _end_s(packet: Any) -> float:
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)
