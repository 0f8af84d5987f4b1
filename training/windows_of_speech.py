"""The speech that the network hears: what is around each video frame, and one video window after another.

    features (F, layers, channels), one row a video frame
      -> `segments`: the frames of each generated window, which begins with the last two of the one before
      -> `segment_of`: (frames, window, layers, channels) of one of them, each frame with its neighbours

The numbers are upstream's (tests/golden/wav2vec/windows_and_segments.json).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

OVERLAP_FRAMES = 2
"""Motion frames: the last frames of a window, with which the next one begins."""
SILENCE = -1
"""In a segment's indices: a row of zeros instead of a frame's speech."""


def segments(n_frames: int, window_frames: int) -> list[list[int]]:
    """Which frame's speech every frame of every generated window hears.

    A window begins with the two last frames of the one before and brings `window_frames` - 2 new ones; the
    first begins with two frames of SILENCE. The last repeats its last frame until it is full.

    Raises:
        ValueError: no frame, or windows that bring none.
    """
    if n_frames < 1:
        raise ValueError(f"n_frames: expected 1 or more, got {n_frames}")
    if window_frames <= OVERLAP_FRAMES:
        raise ValueError(f"window_frames: expected more than {OVERLAP_FRAMES}, got {window_frames}")
    new_frames = window_frames - OVERLAP_FRAMES
    found = []
    for number in range(math.ceil(n_frames / new_frames)):
        first = number * new_frames - OVERLAP_FRAMES
        indices = [min(index, n_frames - 1) for index in range(first, first + window_frames)]
        found.append([max(index, SILENCE) for index in indices])
    return found


def segment_of(features: Tensor, indices: Sequence[int], window: int) -> Tensor:
    """What a segment's frames hear: (F, layers, channels) -> (len(indices), window, layers, channels).

    Each has its neighbours around it; beyond the ends the first or last frame is repeated, where there is
    SILENCE are zeros. `window` is odd.

    Raises:
        ValueError: no frame, another shape, or an even window.
    """
    if features.ndim != 3 or not len(features):
        raise ValueError(f"features: expected (F, layers, channels), F >= 1, got {tuple(features.shape)}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: expected an odd number of frames, got {window}")
    chosen = torch.tensor(indices, device=features.device)
    offsets = torch.arange(window, device=features.device) - window // 2
    neighbours = (chosen.clamp_min(0)[:, None] + offsets).clamp(0, len(features) - 1)
    heard = (chosen != SILENCE)[:, None, None, None]
    return features[neighbours] * heard.to(features.dtype)
