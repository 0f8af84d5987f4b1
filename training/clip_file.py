"""Frames and sound -> an .mp4 that plays everywhere (H.264, AAC), there whole or not at all.

write_clip   windows of frames, as they are made -> H.264, BT.709
             each window's share of the sound    -> AAC, beside its frames, so that nothing is held back
join_clips   silent clips, one after the other   -> one clip, its pictures copied as they are, with sound
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.storage import replacing

VIDEO = {"crf": "18", "preset": "medium", "x264-params": "lookahead-threads=1:mbtree=0"}
"""Without x264's macroblock tree, which at many sizes reads memory that nothing was written to: the same
frames gave other bytes in another process."""
CODED_AHEAD = 2
"""Frames: with these settings a picture is coded at most so long before it is shown."""
BITS_A_SAMPLE = 4
"""Of AAC: 64 kb/s at 16 kHz. (It takes no more than it has use for.)"""
MOST_BITS_PER_S = 128_000


def write_clip(
    path: Path,
    windows: Iterable[np.ndarray],
    fps: int,
    sound: np.ndarray | None = None,
    rate: int = ANALYSIS_RATE,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write a clip; the number of its frames.

    Args:
        windows: (n, height, width, 3) uint8 each, one after the other; height and width are even.
        sound: (S,) int16, or float32 of -1..1, mono; cut, or filled up with silence, to the video's length.
        rate: of the sound, in Hz.
        metadata: of the container: `title`, `comment`, what else MP4 knows.

    Raises:
        ValueError: there is no frame, or one is of another size or type.
        OSError: the file cannot be written.
    """
    with _writing(path, metadata) as file:
        video: Any = file.add_stream("libx264", rate=fps, options=VIDEO)
        audio = _Sound(file, sound, rate, fps)
        n_frames = 0
        size: tuple[int, ...] | None = None
        for window in windows:
            if size is None:
                size = window.shape[1:]
                _configure(video, size, fps)
            _check(window, size)
            for number, picture in enumerate(window, n_frames):
                file.mux(video.encode(_picture(picture, number, fps)))
            n_frames += len(window)
            audio.write_until(n_frames)
        if not n_frames:
            raise ValueError(f"{path}: there is no frame to write")
        file.mux(video.encode(None))
        audio.end()
    return n_frames


def join_clips(
    path: Path,
    clips: Sequence[Path],
    fps: int,
    sound: np.ndarray | None = None,
    rate: int = ANALYSIS_RATE,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write clips of `write_clip`, of one size and rate, as one; arguments and result as there.

    Raises:
        ValueError: there is no clip.
        OSError: the file cannot be written, or a clip cannot be read.
    """
    import av

    if not clips:
        raise ValueError(f"{path}: there is no clip to join")
    with _writing(path, metadata) as file:
        video: Any = None
        n_frames = 0
        for clip in clips:
            with av.open(str(clip)) as part:
                given = part.streams.video[0]
                if video is None:
                    video = file.add_stream_from_template(given)
                    audio = _Sound(file, sound, rate, fps)
                coded = [packet for packet in part.demux(given) if packet.pts is not None]
                for number, packet in enumerate(coded, n_frames):
                    tick = round(1 / (fps * packet.time_base))
                    packet.pts = (packet.pts or 0) + n_frames * tick
                    packet.dts = (number - CODED_AHEAD) * tick  # also of a clip too short to be reordered
                    packet.stream = video
                    file.mux(packet)
                n_frames += len(coded)
            audio.write_until(n_frames)
        audio.end()
    return n_frames


@contextmanager
def _writing(path: Path, metadata: Mapping[str, str] | None) -> Iterator[Any]:
    """An MP4 container, there when it is whole."""
    import av

    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as file:
        file.metadata.update(metadata or {})
        yield file


class _Sound:
    """The sound beside the pictures; no stream where there is none."""

    def __init__(self, file: Any, sound: np.ndarray | None, rate: int, fps: int) -> None:
        self._file, self._sound, self._rate, self._fps = file, sound, rate, fps
        self._n_frames = 0
        if sound is not None:
            self._stream = file.add_stream("aac", rate=rate, layout="mono")
            self._stream.bit_rate = min(BITS_A_SAMPLE * rate, MOST_BITS_PER_S)

    def write_until(self, n_frames: int) -> None:
        """What is heard until before this frame."""
        if self._sound is not None:
            block = _block(self._sound, self._rate, self._n_frames, n_frames, self._fps)
            self._file.mux(self._stream.encode(block))
        self._n_frames = n_frames

    def end(self) -> None:
        if self._sound is not None:
            self._file.mux(self._stream.encode(None))


def _configure(video: Any, size: tuple[int, ...], fps: int) -> None:
    """The encoder's settings, from its first frame's size on; one thread, so the same bytes every time."""
    from av.video.reformatter import ColorRange, Colorspace

    if len(size) != 3 or size[0] % 2 or size[1] % 2 or not size[0] * size[1]:
        raise ValueError(f"frames: expected (height, width, 3) each, both sides even, got {size}")
    video.height, video.width = size[:2]
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.time_base = Fraction(1, fps)
    context.thread_count = 1
    context.colorspace = context.color_primaries = context.color_trc = int(Colorspace.ITU709)
    context.color_range = int(ColorRange.MPEG)


def _check(window: np.ndarray, size: tuple[int, ...]) -> None:
    if window.dtype != np.uint8 or window.ndim != 4 or window.shape[1:] != size or size[2] != 3:
        raise ValueError(
            f"frames: expected uint8, {(*size[:2], 3)} each as the first, got {window.shape} {window.dtype}"
        )


def _picture(picture: np.ndarray, number: int, fps: int) -> Any:
    """A frame in the colours that the file says it has."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    shown = frame.reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    shown.pts, shown.time_base = number, Fraction(1, fps)
    return shown


def _block(sound: np.ndarray, rate: int, first: int, end: int, fps: int) -> Any:
    """What is heard from frame `first` to before frame `end`."""
    import av

    start, stop = (round(Fraction(frame * rate, fps)) for frame in (first, end))
    heard = sound[start:stop].astype(np.float32)
    if sound.dtype == np.int16:
        heard /= 32768
    whole = np.pad(heard.clip(-1, 1), (0, stop - start - len(heard)))
    block = av.AudioFrame.from_ndarray(whole[None], format="fltp", layout="mono")
    block.sample_rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
    return block
