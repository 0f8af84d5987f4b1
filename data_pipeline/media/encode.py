"""Encode: one stretch of a source becomes a training sample's .mp4 and .flac.

Pictures stream through one at a time: decoded, chosen by time, cropped, encoded. Both files are the
same bytes on every run: one encoder thread, and no dates, versions or random ids in them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE, Reason
from data_pipeline.media.audio import read_audio
from data_pipeline.media.container import url
from data_pipeline.media.crop import Box, Cropper
from data_pipeline.media.info import MAX_PIXELS, MediaError
from data_pipeline.media.probe import probe
from data_pipeline.media.video import BT709, read_constant_rate
from data_pipeline.storage import Location

_LIMITED_RANGE = 1  # AVColorRange
_KEY_FRAME_S = 2  # between key frames: training reads from anywhere in a clip
_FLAC_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """What was written."""

    n_frames: int
    n_samples: int
    width: int
    height: int
    fps: float


def encode_clip(
    source: Location,
    video: Path,
    audio: Path,
    *,
    start_s: float,
    end_s: float,
    crop: Box,
    size: tuple[int, int],
    fps: float,
    crf: int,
    preset: str,
    delay_s: float = 0.0,
    max_pixels: int = MAX_PIXELS,
) -> EncodedClip:
    """Write [start_s, end_s) of `source` as H.264 `video` (no sound) and 16 kHz mono FLAC `audio`.

    Frame k is the source's picture on screen at start_s + k / fps; there are round((end_s - start_s) *
    fps) of them, and round(n_frames * 16000 / fps) samples. The sound is the source's from `delay_s` before
    `start_s` on (after it, where negative), so it is heard that much later than in the source; silence
    where the source has none. `crop` is x0 y0 x1 y1 in displayed source pixels; it may reach over the
    edge, where the clip is black, and is scaled to `size` (width, height; both even). Raises MediaError like
    `read_frames` and `read_audio`, and STORAGE where it cannot write; the caller removes what is unfinished.
    """
    info = probe(source, max_pixels=max_pixels)
    if info.video is None:
        raise MediaError(Reason.NO_VIDEO, f"{source}: has no video stream")
    rate = Fraction(fps).limit_denominator(1001)
    n_frames = round((end_s - start_s) * rate)
    if n_frames < 1:
        raise ValueError(f"from {start_s} to {end_s} s there is no frame at {fps} fps")
    n_samples = round(n_frames * ANALYSIS_RATE / rate)
    heard_s = start_s - delay_s
    _write_flac(audio, read_audio(source, heard_s, heard_s + n_samples / ANALYSIS_RATE))
    cropper = Cropper(crop, (info.video.width, info.video.height), size)
    shown = read_constant_rate(source, start_s, n_frames, rate, end_s=end_s, max_pixels=max_pixels)
    _write_h264(video, (cropper(frame) for frame in shown), size, rate, crf, preset)
    return EncodedClip(n_frames, n_samples, *size, fps)


def _write_h264(
    path: Path, pictures: Iterator[Any], size: tuple[int, int], rate: Fraction, crf: int, preset: str
) -> None:
    with _created(path, "mp4", {"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.thread_count = 1
        context.gop_size = round(_KEY_FRAME_S * rate)
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = _LIMITED_RANGE
        context.options = {"crf": str(crf), "preset": preset, "x264-params": "lookahead-threads=1"}
        for k, picture in enumerate(pictures):
            picture.pts, picture.time_base = k, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _write_flac(path: Path, sound: np.ndarray) -> None:
    import av

    with _created(path, "flac", {}) as container:
        stream = container.add_stream("flac", rate=ANALYSIS_RATE, layout="mono", format="s16")
        stream.options = {"flags": "+bitexact"}
        for start in range(0, len(sound), _FLAC_BLOCK):
            samples = sound[None, start : start + _FLAC_BLOCK]
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            block.sample_rate, block.pts = ANALYSIS_RATE, start
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))


@contextmanager
def _created(path: Path, container_format: str, options: dict[str, str]) -> Iterator[Any]:
    """A container to write."""
    import av

    options = {**options, "fflags": "+bitexact"}
    try:
        with av.open(url(path), "w", format=container_format, options=options) as container:
            yield container
    except OSError as failure:
        raise MediaError(Reason.STORAGE, f"{path}: cannot be written: {failure.strerror}") from failure
