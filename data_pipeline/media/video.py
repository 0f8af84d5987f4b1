"""Video: pictures in sequence, by their time stamps."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from data_pipeline.clip import Reason
from data_pipeline.media.container import TOLERANCE_S, decoded, open_container, seek, video_stream, zero_s
from data_pipeline.media.damage import Damage
from data_pipeline.media.info import MAX_PIXELS, MediaError
from data_pipeline.storage import Location

BT601, BT709, UNSPECIFIED = 5, 1, 2  # AVColorSpace

_PREROLLS_S = (1.0, 15.0, math.inf)  # how far before the wanted time to seek; the next where one lands late


class VideoFrame:
    """One decoded picture. It holds a buffer of the decoder: look at it, then let it go."""

    def __init__(self, picture: Any, time_s: float, pixel_aspect: float, reformatter: Any) -> None:
        """`picture` is an av.VideoFrame, `pixel_aspect` the width of its pixels over their height."""
        if picture.colorspace == UNSPECIFIED and not picture.format.is_rgb:  # what players assume
            picture.colorspace = BT709 if min(picture.width, picture.height) >= 720 else BT601
        self.picture = picture
        self.time_s = time_s
        self.rotation_deg = -round(picture.rotation / 90) * 90 % 360
        width, height = round(picture.width * pixel_aspect), picture.height
        self.width, self.height = (height, width) if self.is_turned else (width, height)
        self._reformatter = reformatter

    @property
    def is_turned(self) -> bool:
        """Whether the decoded picture lies on its side."""
        return self.rotation_deg in (90, 270)

    def rgb(self, max_px: int | None = None) -> np.ndarray:
        """(H, W, 3) uint8 as displayed; the longer side at most `max_px`, aspect kept."""
        return self._converted("rgb24", max_px)

    def luma(self, max_px: int | None = None) -> np.ndarray:
        """(H, W) uint8 in 0..255, as displayed; the longer side at most `max_px`, aspect kept."""
        return self._converted("gray", max_px)

    def _converted(self, pixel_format: str, max_px: int | None) -> np.ndarray:
        from av.video.reformatter import ColorRange, Interpolation

        width, height = fitted(self.width, self.height, max_px)
        shrinks = (width, height) != (self.width, self.height)
        if self.is_turned:
            width, height = height, width
        converted = self._reformatter.reformat(
            self.picture,
            width=width,
            height=height,
            format=pixel_format,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            threads=1,
        )
        return np.ascontiguousarray(np.rot90(converted.to_ndarray(), -self.rotation_deg // 90))


def fitted(width: int, height: int, max_px: int | None) -> tuple[int, int]:
    """The size of a picture whose longer side is at most `max_px`."""
    scale = min(1.0, (max_px or math.inf) / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def read_frames(
    path: Location,
    *,
    start_s: float = 0.0,
    end_s: float = math.inf,
    threads: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[VideoFrame]:
    """The frames whose time is in [start_s, end_s), in order, to within a millisecond.

    Raises MediaError like `probe`; NO_VIDEO; and, after the last frame, CORRUPT where more than
    MAX_DAMAGED of the stretch is damaged or missing.
    """
    for frame in frames_around(path, start_s, end_s, threads=threads, max_pixels=max_pixels):
        if frame.time_s >= start_s - TOLERANCE_S:
            yield frame


def read_constant_rate(
    path: Location,
    start_s: float,
    n_frames: int,
    rate: Fraction,
    *,
    end_s: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[VideoFrame]:
    """For each k < n_frames the frame on screen at start_s + k / rate.

    What begins at `end_s` or later (default: after the last of them) is not shown: the frame before it
    stays on screen, as does the file's last. Raises MediaError like `read_frames`."""
    until_s = start_s + n_frames / float(rate) if end_s is None else end_s
    shown, k = None, 0
    for frame in frames_around(path, start_s, until_s, threads=1, max_pixels=max_pixels):
        while shown is not None and k < n_frames and start_s + k / rate < frame.time_s - TOLERANCE_S:
            yield shown
            k += 1
        shown = frame
    if shown is None:
        raise MediaError(Reason.CORRUPT, f"no picture could be decoded from {start_s} s on")
    for _ in range(k, n_frames):
        yield shown


def frames_around(
    path: Location, start_s: float, end_s: float, *, threads: int, max_pixels: int
) -> Iterator[VideoFrame]:
    """Frames up to `end_s`, from no later than the one on screen at `start_s`."""
    for preroll_s in _PREROLLS_S:
        with open_container(path, max_pixels) as container:
            video = video_stream(container)
            if video is None:
                raise MediaError(Reason.NO_VIDEO, f"{path}: has no video stream")
            sought = seek(container, video, start_s - preroll_s)
            limits = {"threads": threads, "max_pixels": max_pixels}
            frames = decode_video(path, container, video, start_s, end_s, sought=sought, **limits)
            first = next(frames, None)
            if sought and (first is None or first.time_s > start_s + TOLERANCE_S):
                continue
            if first is not None:
                yield first
                yield from frames
            return


def decode_video(
    path: Location,
    container: Any,
    video: Any,
    start_s: float,
    end_s: float,
    *,
    threads: int,
    max_pixels: int,
    sought: bool = False,
) -> Iterator[VideoFrame]:
    """Frames up to `end_s` from wherever the container stands; damage is judged from `start_s` on."""
    from av.video.reformatter import VideoReformatter

    context = video.codec_context
    if context is None:
        raise MediaError(Reason.UNSUPPORTED, f"{path}: no decoder for its video codec")
    if context.width * context.height > max_pixels:
        size = f"{context.width}x{context.height}"
        raise MediaError(Reason.UNSUPPORTED, f"{path}: frames of {size} are above {max_pixels} pixels")
    # libavcodec conceals damage with frame threads or none; with slice threads it leaves what was in memory.
    context.thread_count, context.thread_type = threads, "FRAME"
    context.options = {"max_pixels": str(max_pixels)}
    aspect = float(video.sample_aspect_ratio or 1)
    aspect = aspect if 0.25 <= aspect <= 4 else 1.0
    reformatter = VideoReformatter()
    damage = Damage(path, start_s - TOLERANCE_S)
    for time_s, picture in _timed(path, container, video, damage, sought=sought):
        if time_s >= end_s - TOLERANCE_S:
            break
        damage.decoded(time_s, picture)
        yield VideoFrame(picture, time_s, aspect, reformatter)
    damage.check()


def _timed(
    path: Location, container: Any, video: Any, damage: Damage, *, sought: bool
) -> Iterator[tuple[float, Any]]:
    """(time, decoded picture), rising in time whatever the container says."""
    zero = zero_s(container)
    frame_s = 1 / float(video.average_rate or video.guessed_rate or 25)
    # AVI has no presentation times: its pictures come in order, late by the depth of the reordering.
    is_avi = container.format.name == "avi"
    delay = video.codec_context.reorder_depth if is_avi else 0
    last_s = -math.inf if sought else -frame_s
    for picture in decoded(path, container, video, damage):
        stamp = picture.dts if is_avi else picture.pts
        stamped_s = -math.inf if stamp is None else float((stamp - delay) * video.time_base) - zero
        last_s = stamped_s if stamped_s > last_s else last_s + frame_s
        if last_s > -math.inf:  # after a seek the clock is unknown up to the first time stamp
            yield last_s, picture
