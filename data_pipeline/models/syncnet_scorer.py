"""SyncNet as a measure of lip sync: a clip's face crops and its sound in, a SyncScore out.

    faces (F, 224, 224, 3) RGB -> F - 5 windows of 5 frames      -> folded lip branch -> (F - 5, 1024)
    audio (S,)                 -> F - 5 windows of 20 MFCC frames -> audio branch     -> (F - 5, 1024)
    other speech, once         -> a window at each of its frames  -> audio branch     -> a decoy's are rows
                                                 -> sync_score of the clip, of each decoy -> margin

The lip branch is nearly all of the work. Only its first kernel spans time, so 5 RGB frames are a picture
of 15 channels and the branch is one of 2-D convolutions; their batch norms are folded into them, and the
channels lie innermost, where pooling is ten times as fast as across planes.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu_
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.models.sync_score import SAMPLES_PER_FRAME, SyncScore, stretch, whole_frames
from data_pipeline.models.syncnet import (
    FACE_PX,
    FPS,
    LIP_FRAMES,
    MFCC_FRAMES,
    MFCC_STEP,
    WEIGHTS,
    SyncNet,
    mfcc,
    sync_score,
)

LIP_BATCH = 8
"""Windows at a time: 1.5 MB of pixels each, 4.6 MB after the first layer, so that they stay in the cache."""
AUDIO_BATCH = 32
MIN_FRAMES = LIP_FRAMES + 1


class SyncNetScorer:
    """`score` a clip; on `threads` CPU threads (all of the process's torch), or where `network` lies."""

    def __init__(
        self, network: SyncNet, other_speech: np.ndarray, threads: int = 1, name: str = WEIGHTS
    ) -> None:
        """`other_speech`: (S,) int16 mono at 16 kHz, where decoys come from; `name`: what rows say."""
        self.name = name
        self._other_speech = whole_frames(other_speech)
        torch.set_num_threads(threads)
        self._network = network.eval()
        self._lip = _FoldedLip(network)

    def score(self, faces: np.ndarray, audio: np.ndarray, decoys: Sequence[int]) -> SyncScore:
        """
        faces: (F, 224, 224, 3) uint8 RGB at 25 fps, cropped as syncnet_python crops; F >= 6.
        audio: (S,) int16 mono at 16 kHz, of the same time; the shorter of the two decides.
        decoys: frames of the other speech, where those begin that are compared.

        Raises ValueError for other shapes, and where there is less than 0.24 s of either.
        """
        n_windows = count_windows(len(faces), len(audio))
        video = self.video_features(faces, n_windows)
        own = sync_score(video, self.audio_features(audio, n_windows))
        margin = None
        if decoys:
            others = [sync_score(video, stretch(self._other_features, k, n_windows)) for k in decoys]
            margin = own.confidence - max(other.confidence for other in others)
        return SyncScore(float(own.offset), own.confidence, own.distance, margin)

    @cached_property
    def _other_features(self) -> np.ndarray:
        """(F, 1024): of the windows that begin with each frame of the other speech, round its end.

        25 windows a second, once: the decoys of a single clip of 10 s have more of them together."""
        n_frames = len(self._other_speech) // SAMPLES_PER_FRAME
        onwards = stretch(self._other_speech, 0, (n_frames + LIP_FRAMES) * SAMPLES_PER_FRAME)
        return self.audio_features(onwards, n_frames)

    def video_features(self, faces: np.ndarray, n_windows: int) -> np.ndarray:
        """(F, 224, 224, 3) uint8 RGB -> (n_windows, 1024): of the windows that begin with frames 0, 1, ..."""
        _check_faces(faces, n_windows)
        windows = np.lib.stride_tricks.sliding_window_view(faces, LIP_FRAMES, axis=0)  # (., H, W, 3, 5)
        with torch.inference_mode():
            return _joined(self._lip(windows[some]) for some in _batches(n_windows, LIP_BATCH))

    def audio_features(self, audio: np.ndarray, n_windows: int) -> np.ndarray:
        """(S,) int16 -> (n_windows, 1024): of the windows that begin with video frames 0, 1, ..."""
        if len(audio) < (n_windows + LIP_FRAMES) * SAMPLES_PER_FRAME:
            needed_s = (n_windows + LIP_FRAMES) / FPS
            raise ValueError(f"a sound of {len(audio) / ANALYSIS_RATE:.2f} s; {needed_s:.2f} s are needed")
        coefficients = mfcc(audio[: (n_windows + LIP_FRAMES) * SAMPLES_PER_FRAME])
        windows = np.lib.stride_tricks.sliding_window_view(coefficients, MFCC_FRAMES, axis=0)[::MFCC_STEP]
        with torch.inference_mode():
            return _joined(
                self._network.audio(windows[some, None].copy()) for some in _batches(n_windows, AUDIO_BATCH)
            )


class _FoldedLip:
    """The lip branch for (B, 224, 224, 3, 5) uint8 RGB -> (B, 1024)."""

    def __init__(self, network: SyncNet) -> None:
        layers: list[Any] = list(network.netcnnlip)
        folded: list[Any] = [
            fuse_conv_bn_eval(layer, norm) for layer, norm in pairwise(layers) if isinstance(layer, nn.Conv3d)
        ]
        # (O, 3, 5, 7, 7) -> (O, 15, 7, 7). The network was trained on pictures as OpenCV reads them, blue
        # first: the kernel is turned around once, rather than every frame.
        first = folded[0].weight.detach().flip(1).flatten(1, 2)
        weights = [first, *(layer.weight.detach()[:, :, 0] for layer in folded[1:])]
        self._weights = [weight.contiguous(memory_format=torch.channels_last) for weight in weights]
        self._biases = [layer.bias.detach() for layer in folded]
        self._head = network.netfclip

    def __call__(self, windows: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(windows.reshape(*windows.shape[:3], -1))
        x = pixels.to(self._weights[0].device).permute(0, 3, 1, 2).to(self._weights[0].dtype)
        x = max_pool2d(self._layer(0, x, stride=2), 3, stride=2)
        x = max_pool2d(self._layer(1, x, stride=2, padding=1), 3, stride=2, padding=1)
        for index in (2, 3, 4):
            x = self._layer(index, x, padding=1)
        x = self._layer(5, max_pool2d(x, 3, stride=2))
        return self._head(x.flatten(1))

    def _layer(self, index: int, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return relu_(conv2d(x, self._weights[index], self._biases[index], stride, padding))


def count_windows(n_frames: int, n_samples: int) -> int:
    """How many windows upstream scores of a clip: one fewer than would fit. Raises ValueError for none."""
    n_windows = min(n_frames, n_samples // SAMPLES_PER_FRAME) - LIP_FRAMES
    if n_windows < 1:
        raise ValueError(
            f"{n_frames} frames and {n_samples / ANALYSIS_RATE:.2f} s of sound are too short: "
            f"SyncNet needs {MIN_FRAMES} frames ({MIN_FRAMES / FPS:.2f} s) of both"
        )
    return n_windows


def _check_faces(faces: np.ndarray, n_windows: int) -> None:
    if faces.dtype != np.uint8 or faces.shape[1:] != (FACE_PX, FACE_PX, 3):
        raise ValueError(f"faces are {faces.dtype} {faces.shape}, not uint8 (F, {FACE_PX}, {FACE_PX}, 3)")
    if len(faces) < n_windows + LIP_FRAMES - 1:
        raise ValueError(f"{len(faces)} faces are too few for {n_windows} windows of {LIP_FRAMES}")


def _batches(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _joined(parts: Iterator[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().numpy()
