"""Segment: a source video becomes clips that never span a cut, in one decode and bounded memory.

frames of the source    decoded once, in order
  -> _Seen              what is kept of a frame: its look; at `analysis_fps` also a JPEG
  -> shots              cuts.py says where they begin
  -> pieces             pieces.py divides them into min_s..max_s
  -> Clip               times, analysis frames, 16 kHz sound, quality
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.clip import AnalysisFrames, Clip, Reason, clip_id_of
from data_pipeline.config import SegmentConfig
from data_pipeline.stages import quality
from data_pipeline.stages.cuts import cut_detector, in_shots
from data_pipeline.stages.pieces import TOLERANCE_S, Divider, Piece
from data_pipeline.stages.quality import FrameLook
from data_pipeline.storage import Location

if TYPE_CHECKING:
    from data_pipeline.media import VideoFrame

SIGN_OF_LIFE = 100  # frames
JPEG_QUALITY = 95  # of the frames that models look at
THUMBNAIL_PX = 96  # height of the report's strip
THUMBNAIL_QUALITY = 80
THUMBNAIL_AT = (1 / 6, 1 / 2, 5 / 6)  # of the clip


@dataclass(slots=True)
class _Seen:
    """What is kept of a frame once it is gone."""

    look: FrameLook
    jpeg: bytes | None
    size: tuple[int, int]
    """(height, width) of the JPEG."""

    @property
    def time_s(self) -> float:
        return self.look.time_s


def probe_source(path: Location, source: Clip, max_pixels: int | None = None) -> Clip:
    """The source with its container's facts; `reasons` says NO_VIDEO or NO_AUDIO where that is so.

    One picture is decoded. Raises media.MediaError for what cannot be read."""
    from data_pipeline import media

    info = media.probe(path, max_pixels=max_pixels or media.MAX_PIXELS)
    if info.video is None:
        return replace(source, reasons=[Reason.NO_VIDEO])
    return replace(
        source,
        source_duration_s=round(info.duration_s, 3),
        source_fps=round(info.video.fps, 3),
        source_width=info.video.width,
        source_height=info.video.height,
        reasons=[] if info.audio else [Reason.NO_AUDIO],
    )


def segment(path: Location, source: Clip, config: SegmentConfig, limits_max_pixels: int) -> Iterator[Clip]:
    """The clips of a source, in order of time, while it is being decoded.

    `source`: as `probe_source` gave it; its `start_s`, `end_s` and `crop` hold what the list asked for, or
    None. A source that gives no clip yields itself with SCENE_CUT (its shots are all too short) or
    TOO_SHORT (it is one short shot). Raises media.MediaError, also after some clips: then the source is
    damaged, and the clips before are not to be used."""
    return (clip for clip in segment_alive(path, source, config, limits_max_pixels) if clip is not None)


def segment_alive(
    path: Location, source: Clip, config: SegmentConfig, limits_max_pixels: int
) -> Iterator[Clip | None]:
    """`segment`, with None every SIGN_OF_LIFE frames: hours of short shots give no clip, and do not hang."""
    import cv2

    cv2.setNumThreads(1)  # this runs beside as many of its kind as there are cores
    n_clips, last_s = 0, 0.0
    divider: Divider[_Seen] = Divider(config.min_s, config.max_s)
    seen = _seen_frames(path, source, config, limits_max_pixels)
    for number, (frame, begins_shot) in enumerate(in_shots(seen, cut_detector(config)), 1):
        if number % SIGN_OF_LIFE == 0:
            yield None
        for piece in divider.push(frame, begins_shot):
            yield _clip(path, source, piece)
            n_clips += 1
        last_s = frame.time_s
    for piece in divider.finish(_end_s(last_s, source)):
        yield _clip(path, source, piece)
        n_clips += 1
    if n_clips == 0:
        yield replace(source, reasons=[Reason.SCENE_CUT if divider.n_shots > 1 else Reason.TOO_SHORT])


def _seen_frames(
    path: Location, source: Clip, config: SegmentConfig, max_pixels: int
) -> Iterator[tuple[_Seen, np.ndarray]]:
    """Each frame of the window: (what is kept of it, its (H, W, 3) small picture)."""
    import cv2

    from data_pipeline import media

    start_s, end_s = source.start_s or 0.0, math.inf if source.end_s is None else source.end_s
    before: np.ndarray | None = None
    small_size = picture_size = None
    last_tick = last_second = -1
    for frame in media.read_frames(path, start_s=start_s, end_s=end_s, max_pixels=max_pixels):
        small = _rgb(frame, source.crop, quality.LOOK_PX, small_size)
        small_size = small.shape[:2]
        luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        change, repeated = (0.0, False) if before is None else quality.change_between(before, luma)
        look = FrameLook(frame.time_s, float(luma.mean()), change, repeated)
        before = luma
        # Samples lie on one grid for the whole source: where a shot begins is known only later.
        tick = math.floor((frame.time_s + TOLERANCE_S) * config.analysis_fps)
        if tick == last_tick:
            yield _Seen(look, None, (0, 0)), small
            continue
        last_tick = tick
        picture = _rgb(frame, source.crop, config.analysis_px, picture_size)
        picture_size = picture.shape[:2]
        look = replace(look, sharpness=quality.sharpness_of(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)))
        if math.floor(frame.time_s) != last_second:
            last_second = math.floor(frame.time_s)
            look = replace(look, blockiness=quality.blockiness_of(_full_luma(frame, source.crop)))
        yield _Seen(look, _jpeg(picture, JPEG_QUALITY), picture.shape[:2]), small


def _end_s(last_s: float, source: Clip) -> float:
    """Where the last frame of the video goes: it is shown for as long as an average one."""
    end_s = last_s + 1 / (source.source_fps or 25.0)
    return end_s if source.end_s is None else min(end_s, source.end_s)


def _clip(path: Location, source: Clip, piece: Piece[_Seen]) -> Clip:
    from data_pipeline import media

    if source.source_sha256 is None:
        raise ValueError(f"{path}: a clip is named by its source's content, and source_sha256 is None")
    start_s, end_s = round(piece.start_s, 3), round(piece.end_s, 3)
    found = quality.quality_of([frame.look for frame in piece.frames], end_s - start_s)
    frames = _analysis_frames(piece, start_s)
    return replace(
        source,
        clip_id=clip_id_of(source.source_sha256, start_s, end_s),
        start_s=start_s,
        end_s=end_s,
        repeated_frame_ratio=found.repeated_frame_ratio,
        luminance=found.luminance,
        sharpness=found.sharpness,
        motion=found.motion,
        blockiness=found.blockiness,
        reasons=[],
        words=[],
        stage_seconds={},
        frames=frames,
        audio=media.read_audio(path, start_s, end_s),
        thumbnail=_thumbnail(frames),
    )


def _analysis_frames(piece: Piece[_Seen], start_s: float) -> AnalysisFrames:
    kept = [(frame, frame.jpeg) for frame in piece.frames if frame.jpeg is not None]
    height, width = kept[0][0].size
    times_s = np.array([max(frame.time_s - start_s, 0.0) for frame, _ in kept])
    return AnalysisFrames(times_s, [jpeg for _, jpeg in kept], height, width)


def _thumbnail(frames: AnalysisFrames) -> bytes:
    """Three moments side by side, as JPEG."""
    import cv2

    width = max(1, round(frames.width * THUMBNAIL_PX / frames.height))
    moments = [frames.decode(int(len(frames) * at)) for at in THUMBNAIL_AT]
    strip = [cv2.resize(moment, (width, THUMBNAIL_PX), interpolation=cv2.INTER_AREA) for moment in moments]
    return _jpeg(np.hstack(strip), THUMBNAIL_QUALITY)


def _jpeg(rgb: np.ndarray, jpeg_quality: int) -> bytes:
    import cv2

    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])[1].tobytes()


def _rgb(frame: "VideoFrame", crop: list[float] | None, px: int, size: tuple[int, int] | None) -> np.ndarray:
    """The frame, or the part of it that the list asked for, with its longer side at most `px`.

    `size` is the (height, width) of the frame before: a stream that changes its size is scaled to it."""
    import cv2

    picture = frame.rgb(px) if crop is None else _cropped(frame, crop, px)
    if size is None or picture.shape[:2] == size:
        return picture
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def _cropped(frame: "VideoFrame", crop: list[float], px: int) -> np.ndarray:
    x0, y0, x1, y1 = _inside(crop, frame)
    share = max(x1 - x0, y1 - y0) / max(frame.width, frame.height)
    whole = frame.rgb(math.ceil(px / share))
    scale = whole.shape[1] / frame.width
    left, top = round(x0 * scale), round(y0 * scale)
    right, bottom = (
        min(max(round(x1 * scale), left + 1), left + px),
        min(max(round(y1 * scale), top + 1), top + px),
    )
    return np.ascontiguousarray(whole[top:bottom, left:right])


def _full_luma(frame: "VideoFrame", crop: list[float] | None) -> np.ndarray:
    """At full size, cut so that 8 x 8 blocks stay on their grid."""
    if crop is None:
        return frame.luma()
    x0, y0, x1, y1 = _inside(crop, frame)
    return frame.luma()[int(y0) // 8 * 8 : math.ceil(y1), int(x0) // 8 * 8 : math.ceil(x1)]


def _inside(crop: list[float], frame: "VideoFrame") -> tuple[float, float, float, float]:
    x0, y0 = max(crop[0], 0.0), max(crop[1], 0.0)
    x1, y1 = min(crop[2], frame.width), min(crop[3], frame.height)
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ValueError(f"crop {crop} lies outside the picture of {frame.width} x {frame.height} pixels")
    return x0, y0, x1, y1
