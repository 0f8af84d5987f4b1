"""A clip of a dataset as something to be made again: whom it shows, what is heard, what truly came of it."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_pipeline.dataset import Dataset
from training.clip_pixels import ClipFrames, Framing, sound_of
from training.encoders import Encoders
from training.generate import Portrait


@dataclass(frozen=True)
class Example:
    """See the module. The portrait is the clip's first frame that has a face's box."""

    clip_id: str
    portrait: Portrait
    sound: np.ndarray
    """(S,) float32 of -1..1, mono at 16 kHz, of the whole clip."""
    speech: Tensor | None
    """(F, layers, channels), of the whole clip; None where there is no encoder of speech."""
    text: Tensor
    """(L, text_dim), of its caption."""
    true: np.ndarray
    """(N, height, width, 3) uint8, in the model's size."""


def read_example(
    dataset: Dataset, clip_id: str, framing: Framing, encoders: Encoders, n_frames: int | None = None
) -> Example:
    """A kept clip, and of its frames the first `n_frames` (None: all).

    Raises:
        DatasetError, ShardError, MediaError, KeyError, ValueError: it is not there, or not whole.
    """
    members = {name.removeprefix(clip_id): data for name, data in dataset.sample_of(clip_id).items()}
    video = ClipFrames(members[".mp4"], framing)
    sound = sound_of(members[".flac"])
    with encoders.lock:
        speech = None if encoders.speech is None else torch.from_numpy(encoders.speech.encode(sound))
        text = encoders.text.encode([members[".txt"].decode()])[0]
    return Example(
        clip_id=clip_id,
        portrait=_portrait(clip_id, video, members[".npz"]),
        sound=sound,
        speech=speech,
        text=text.float().cpu(),
        true=video.pictures(range(len(video))[:n_frames]),
    )


def _portrait(clip_id: str, video: ClipFrames, faces: bytes) -> Portrait:
    with np.load(io.BytesIO(faces), allow_pickle=False) as arrays:
        boxes, identity = arrays["boxes"], arrays["identity"].astype(np.float32)
    seen = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    if not len(seen):
        raise ValueError(f"clip {clip_id}: no frame of it has a face's box")
    x0, y0, x1, y1 = boxes[seen[0]].tolist()
    image = video.pictures([int(seen[0])])[0]
    return Portrait(image, video.framing.box((x0, y0, x1, y1), *video.size), identity)
