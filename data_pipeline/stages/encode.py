"""Encode: a clip's media as they lie in a sample.

    track (analysis frames)  ->  one crop for the whole clip, in source pixels
    source, crop             ->  {clip_id}.mp4, {clip_id}.flac: its sound moved by `sync_shift_applied_s`
    track, crop              ->  {clip_id}.npz: where the face is in each encoded frame

A file appears whole or not at all, and the same clip gives the same bytes.
"""

import io
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_pipeline.clip import Clip, FaceTrack
from data_pipeline.config import EncodeConfig
from data_pipeline.storage import Location

MARGIN = 0.1  # of the face's height, kept around the face wherever it goes
MEDIA = (".mp4", ".flac", ".npz")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the source as displayed; it may reach over the picture's edge."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0


def encode(clip: Clip, source: Location, directory: Path, config: EncodeConfig) -> Clip:
    """Write the clip's media into `directory` and return it with width, height, fps, n_frames and crop.

    `clip.crop` is the part of the picture that the list asked for, or None. Runs where a hanging or
    dying decoder harms nobody. Raises media.MediaError."""
    from data_pipeline import media

    if clip.clip_id is None or clip.start_s is None or clip.end_s is None:
        raise ValueError(f"{source}: has no clip to encode (clip_id {clip.clip_id})")
    region = picture_region(clip)
    crop = face_crop(clip.track, region, config)
    parts = {suffix: directory / f".{clip.clip_id}{suffix}.part" for suffix in MEDIA}
    try:
        encoded = media.encode_clip(
            source,
            parts[".mp4"],
            parts[".flac"],
            start_s=clip.start_s,
            end_s=clip.end_s,
            crop=(crop.x0, crop.y0, crop.x1, crop.y1),
            size=(min(config.width, int(crop.width)), min(config.height, int(crop.height))),
            fps=config.fps,
            crf=config.crf,
            preset=config.preset,
            delay_s=clip.sync_shift_applied_s or 0.0,
        )
        times_s = np.arange(encoded.n_frames) / encoded.fps
        parts[".npz"].write_bytes(_npz(_face_arrays(clip, region, crop, times_s)))
        for suffix, part in parts.items():
            os.replace(part, directory / f"{clip.clip_id}{suffix}")
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return replace(
        clip,
        width=encoded.width,
        height=encoded.height,
        fps=encoded.fps,
        n_frames=encoded.n_frames,
        crop=[crop.x0, crop.y0, crop.x1, crop.y1],
    )


def picture_region(clip: Clip) -> Box:
    """The part of the source that the analysis frames show, in its pixels."""
    if clip.source_width is None or clip.source_height is None:
        raise ValueError(f"{clip.source_uri}: the size of its picture was not measured")
    if clip.crop is None:
        return Box(0, 0, clip.source_width, clip.source_height)
    x0, y0, x1, y1 = clip.crop
    return Box(max(x0, 0), max(y0, 0), min(x1, clip.source_width), min(y1, clip.source_height))


def face_crop(track: FaceTrack | None, region: Box, config: EncodeConfig) -> Box:
    """One crop for a whole clip: whole even pixels, of the configured shape.

    Its height is `face_scale` times the face's median height, or as much more as it takes to never cut
    the face; it is centred on the face's median place, moved and, where possible, shrunk to lie inside
    `region`. It reaches over the edge only where no crop of its shape inside `region` holds the face.
    Without a face: the largest such crop in the middle."""
    aspect = config.width / config.height
    largest = min(region.height, region.width / aspect)
    boxes = _seen_boxes(track, region)
    if len(boxes) == 0:
        middle = (region.x0 + region.x1) / 2, (region.y0 + region.y1) / 2
        return _even(middle, largest, aspect, region)
    face_height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    held = _held(boxes, MARGIN * face_height, region)
    needed = max(held.height, held.width / aspect)
    height = max(min(config.face_scale * face_height, largest), needed)
    x, y = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    half_height, half_width = height / 2, height * aspect / 2
    centre = (
        _nearest(float(x), held.x1 - half_width, held.x0 + half_width),
        _nearest(float(y), held.y1 - half_height, held.y0 + half_height),
    )
    return _even(centre, height, aspect, region)


def _seen_boxes(track: FaceTrack | None, region: Box) -> np.ndarray:
    """(N, 4) in source pixels, of the analysis frames in which the face was seen."""
    if track is None:
        return np.empty((0, 4))
    seen = track.boxes[np.isfinite(track.boxes).all(axis=1)]
    return _to_pixels(seen.reshape(-1, 2, 2), region).reshape(-1, 4)


def _held(boxes: np.ndarray, margin: float, region: Box) -> Box:
    """What the crop must not cut: the union of the boxes and a margin, as far as there is picture."""
    low, high = boxes[:, :2].min(axis=0) - margin, boxes[:, 2:].max(axis=0) + margin
    return Box(
        max(float(low[0]), region.x0),
        max(float(low[1]), region.y0),
        min(float(high[0]), region.x1),
        min(float(high[1]), region.y1),
    )


def _even(centre: tuple[float, float], height: float, aspect: float, region: Box) -> Box:
    """A box of even sides around `centre`, moved into `region` where it fits, else in its middle."""
    fits_width, fits_height = int(region.width) // 2 * 2, int(region.height) // 2 * 2
    height_px = max(round(height / 2) * 2, 2)
    width_px = max(round(height * aspect / 2) * 2, 2)
    if height <= region.height:
        height_px = min(height_px, fits_height)
    if height * aspect <= region.width:
        width_px = min(width_px, fits_width)
    x0 = _low_edge(centre[0], width_px, region.x0, region.x1)
    y0 = _low_edge(centre[1], height_px, region.y0, region.y1)
    return Box(x0, y0, x0 + width_px, y0 + height_px)


def _low_edge(centre: float, length: int, low: float, high: float) -> float:
    if length > high - low:
        return float(round((low + high - length) / 2))
    return float(round(_nearest(centre - length / 2, np.ceil(low), np.floor(high) - length)))


def _nearest(value: float, low: float, high: float) -> float:
    """The value in [low, high] nearest to `value`."""
    return float(min(max(value, low), max(low, high)))


def _face_arrays(clip: Clip, region: Box, crop: Box, times_s: np.ndarray) -> dict[str, np.ndarray]:
    """What is known of the face in each encoded frame, as fractions of that frame; NaN where unseen."""
    track = clip.track
    if track is None or len(track.times_s) == 0:
        unseen = np.full((len(times_s), 4), np.nan, np.float32)
        return _named(unseen, np.empty((len(times_s), 0, 2), np.float32), None, clip.face_backend)
    points = np.concatenate([track.boxes.reshape(-1, 2, 2), track.landmarks], axis=1)
    pixels = _to_pixels(points, region)
    fractions = (pixels - [crop.x0, crop.y0]) / [crop.width, crop.height]
    shown = at_times(fractions, track.times_s, times_s).astype(np.float32)
    return _named(shown[:, :2].reshape(-1, 4), shown[:, 2:], track.identity, clip.face_backend)


def _named(
    boxes: np.ndarray, landmarks: np.ndarray, identity: np.ndarray | None, backend: str | None
) -> dict[str, np.ndarray]:
    return {
        "boxes": boxes,
        "landmarks": landmarks,
        "identity": np.empty(0, np.float32) if identity is None else identity.astype(np.float32),
        "identity_backend": np.array(backend or ""),
    }


def _to_pixels(fractions: np.ndarray, region: Box) -> np.ndarray:
    """(..., 2) fractions of the analysis frames -> pixels of the source."""
    return fractions.astype(np.float64) * [region.width, region.height] + [region.x0, region.y0]


def at_times(values: np.ndarray, sampled_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """(N, ...) values sampled at rising `sampled_s` -> (F, ...) at `times_s`.

    Linear between two samples; beside a NaN, and beyond the ends, the nearest sample's."""
    after = np.clip(np.searchsorted(sampled_s, times_s), 1, max(len(sampled_s) - 1, 1))
    after = np.minimum(after, len(sampled_s) - 1)
    before = np.maximum(after - 1, 0)
    step = np.where(after > before, sampled_s[after] - sampled_s[before], 1.0)
    share = np.clip((times_s - sampled_s[before]) / step, 0.0, 1.0).reshape(-1, *[1] * (values.ndim - 1))
    between = values[before] * (1 - share) + values[after] * share
    nearest = np.where(share < 0.5, values[before], values[after])
    return np.where(np.isnan(between), nearest, between)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """What numpy.load reads, without the time of day in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), member.getvalue()
            )
    return buffer.getvalue()
