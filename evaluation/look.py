"""A video of a benchmark's item -> what all metrics see of it, or the words why nothing can be seen.

video -> its rate and shape are the protocol's and the reference's -> seen (seeing.py)
      -> all videos of an item at one size, enlarged where a model makes smaller ones
a video without sound -> the item's; other items' sounds -> decoys
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.media import MediaError, probe, read_audio
from data_pipeline.models.face_mesh import Mesh
from evaluation.benchmarks import BenchmarkItem
from evaluation.config import ClipConfig
from evaluation.metrics.metric import SeenClip
from evaluation.picture import PictureError, read_picture
from evaluation.seeing import CannotSee, ClipReader

RATE_OFF = 0.01
"""Share by which a video's rate may be off: containers round."""
SHAPE_OFF = 0.03
"""The same for width / height: generated sides are even."""


class NotAsked(ValueError):
    """A video that is not what the protocol asks for; the message says what it is."""


NOT_SEEN = (CannotSee, MediaError, NotAsked, PictureError)
"""What is wrong with a video, in words that name it."""


@dataclass(frozen=True)
class Look:
    """What is to be looked at."""

    item: BenchmarkItem
    video: Path
    decoys: tuple[Path, ...] = ()


def reader_of(clip: ClipConfig) -> ClipReader:
    """Raises WeightsUnavailable."""
    return ClipReader(clip.max_s, max(clip.height, clip.width))


def see(look: Look, clip: ClipConfig, reader: ClipReader) -> SeenClip:
    """Raises one of NOT_SEEN."""
    reference = read_picture(look.item.reference)
    _check(look.video, clip, reference)
    decoys = [sound for path in look.decoys if (sound := _sound(path)) is not None]
    seen = reader.read(look.video, look.item.name, reference, decoys)
    if not len(seen.sound):
        own = read_audio(look.item.audio)
        seen = replace(seen, sound=own[: round(len(seen.frames) * ANALYSIS_RATE / seen.fps)])
    height, width = reference.shape[:2]
    return resized(seen, fitted(height, width, clip))


def fitted(height: int, width: int, clip: ClipConfig) -> tuple[int, int]:
    """The size, both sides even, of a picture's shape that just fits within the clip's."""
    scale = min(clip.height / height, clip.width / width)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def resized(clip: SeenClip, size: tuple[int, int]) -> SeenClip:
    """The same clip with frames of `size` (height, width) and the face where it then is."""
    import cv2

    height, width = clip.frames.shape[1:3]
    if (height, width) == size:
        return clip
    how = cv2.INTER_AREA if size[0] <= height else cv2.INTER_CUBIC
    frames = np.stack([cv2.resize(frame, size[::-1], interpolation=how) for frame in clip.frames])
    across, down = size[1] / width, size[0] / height
    scale = np.array([across, down, across, down], np.float32)
    meshes = [mesh and Mesh(mesh.points * scale[:3], mesh.presence) for mesh in clip.meshes]
    boxes = clip.boxes * scale
    return replace(clip, frames=frames, boxes=boxes, meshes=meshes)


def decoys_of(items: Sequence[BenchmarkItem], number: int, seed: int) -> list[tuple[Path, ...]]:
    """Of every item, other items' sounds: drawn once, the same for real and generated videos."""
    rng = np.random.default_rng(seed)
    drawn = []
    for place in range(len(items)):
        others = np.delete(np.arange(len(items)), place)
        chosen = rng.permutation(others)[:number]
        drawn.append(tuple(items[int(other)].audio for other in chosen))
    return drawn


def _check(video: Path, clip: ClipConfig, reference: np.ndarray) -> None:
    """Raises NotAsked, MediaError."""
    about = probe(video).video
    if about is None:
        raise NotAsked(f"{video}: has no picture")
    if abs(about.fps / clip.fps - 1) > RATE_OFF:
        raise NotAsked(
            f"{video}: {about.fps:g} frames a second, and the protocol says {clip.fps}; convert it, or give "
            "clip.fps"
        )
    height, width = reference.shape[:2]
    if abs(about.width / about.height * height / width - 1) > SHAPE_OFF:
        raise NotAsked(
            f"{video}: {about.width} x {about.height} px is another shape than its reference picture's, "
            f"{width} x {height} px"
        )


@lru_cache(maxsize=32)
def _sound(path: Path) -> np.ndarray | None:
    """None where it cannot be read: that costs its own item, and not those that it is a decoy of."""
    try:
        return read_audio(path)
    except (MediaError, OSError):
        return None
