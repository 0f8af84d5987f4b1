"""Makers of small media files whose truth is known: pictures with their number, clicks at known times."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

N_BITS = 10
GRID = (2, 5)  # rows and columns of the blocks that spell a frame's number


def numbered(number: int, width: int = 320, height: int = 240) -> np.ndarray:
    """(height, width, 3) uint8: `number` in bright and dark blocks over the whole picture."""
    bits = np.array([number >> bit & 1 for bit in range(N_BITS)], np.uint8).reshape(GRID)
    rows = np.arange(height) * GRID[0] // height
    columns = np.arange(width) * GRID[1] // width
    grey = bits[rows[:, None], columns[None, :]] * 170 + 40
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


def number_in(picture: np.ndarray) -> int:
    """The number in a picture of `numbered`, in RGB or grey, at any size."""
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    height, width = grey.shape
    number = 0
    for bit in range(N_BITS):
        row, column = divmod(bit, GRID[1])
        y, x = int((row + 0.5) * height / GRID[0]), int((column + 0.5) * width / GRID[1])
        reach_y, reach_x = max(height // GRID[0] // 5, 1), max(width // GRID[1] // 5, 1)
        block = grey[y - reach_y : y + reach_y, x - reach_x : x + reach_x]
        number |= int(block.mean() > 125) << bit
    return number


def clicks(times_s: Sequence[float], duration_s: float, rate: int = 48_000, channels: int = 1) -> np.ndarray:
    """(S, channels) int16: silence with a 4 ms burst of 2 kHz that begins at each of the times."""
    sound = np.zeros(round(duration_s * rate))
    burst = 0.8 * np.cos(2 * np.pi * 2000 * np.arange(round(0.004 * rate)) / rate)
    for time_s in times_s:
        start = round(time_s * rate)
        sound[start : start + len(burst)] = burst[: len(sound) - start]
    return np.repeat((sound * 32767).astype(np.int16)[:, None], channels, axis=1)


def clicks_in(sound: np.ndarray, rate: int = 16_000) -> list[float]:
    """The times at which the bursts of `clicks` begin."""
    loud = np.flatnonzero(np.abs(sound.astype(float)) > 0.4 * 32767)
    if len(loud) == 0:
        return []
    begins = loud[np.concatenate([[True], np.diff(loud) > 0.02 * rate])]
    return [float(begin / rate) for begin in begins]


def write_video(
    path: Path,
    *,
    n_frames: int = 50,
    fps: int | Fraction = 25,
    size: tuple[int, int] = (320, 240),
    codec: str = "libx264",
    pixels: Callable[[int, int, int], np.ndarray] = numbered,
    times_s: Sequence[float] | None = None,
    rotation_deg: int = 0,
    gop: int = 12,
    options: dict[str, str] | None = None,
    sound: np.ndarray | None = None,
    rate: int = 48_000,
    audio_codec: str = "aac",
    layout: str | None = None,
    audio_start_s: float = 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video of `pixels(k, width, height)`, with `sound` (S, channels) int16 where it is given.

    `times_s` makes the frame rate variable; `rotation_deg` is the clockwise turn that a player applies.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        video: Any = container.add_stream(codec, rate=fps)
        video.width, video.height = size
        video.pix_fmt = "yuv420p" if size[0] % 2 == 0 and size[1] % 2 == 0 else "yuv444p"
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = gop
        if codec != "libsvtav1":  # takes no bit rate beside its crf
            video.codec_context.bit_rate = 2_000_000
        time_base = Fraction(1, 1000) if times_s is not None else 1 / Fraction(fps)
        video.codec_context.time_base = time_base
        video.options = options if options is not None else _QUICK.get(codec, {})
        if rotation_deg:
            video.set_display_rotation(-rotation_deg)
        audio = _audio_stream(container, audio_codec, rate, layout, sound)
        for k in range(n_frames):
            picture = av.VideoFrame.from_ndarray(pixels(k, *size), format="rgb24")
            picture.pts = k if times_s is None else round(times_s[k] * 1000)
            picture.time_base = time_base
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _write_sound(container, audio, sound, rate, round(audio_start_s * rate))
    return path


def write_sound(path: Path, sound: np.ndarray, *, rate: int = 48_000, codec: str = "pcm_s16le") -> Path:
    """A file with sound only; `sound` (S, channels) int16."""
    with av.open(str(path), "w") as container:
        stream = _audio_stream(container, codec, rate, None, sound)
        _write_sound(container, stream, sound, rate, 0)
    return path


_QUICK = {
    "libx264": {"preset": "ultrafast", "crf": "18", "bf": "2"},
    "libx265": {"preset": "ultrafast", "crf": "18", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libsvtav1": {"preset": "8", "crf": "25", "svtav1-params": "lp=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 6: "5.1", 8: "7.1"}


def _audio_stream(
    container: Any, codec: str, rate: int, layout: str | None, sound: np.ndarray | None
) -> Any | None:
    if sound is None:
        return None
    return container.add_stream(codec, rate=rate, layout=layout or _LAYOUTS[sound.shape[1]])


def _write_sound(container: Any, stream: Any, sound: np.ndarray, rate: int, first_pts: int) -> None:
    block = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound).reshape(1, -1), format="s16", layout=stream.layout.name
    )
    block.sample_rate, block.pts, block.time_base = rate, first_pts, Fraction(1, rate)
    resampler = av.AudioResampler(
        format=stream.format.name,
        layout=stream.layout.name,
        rate=stream.rate,
        frame_size=stream.codec_context.frame_size,
    )
    for piece in (*resampler.resample(block), *resampler.resample(None)):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
