"""SyncNet: do these lips say this sound, and if so, how many frames apart?

    sound (S,) int16  -> mfcc -> (N, 13), 100 a second -> 20 of them, every 4 -> audio -> (F, 1024)
    mouth (F, 224, 224, 3)    -> 5 frames, every frame                        -> lip   -> (F, 1024)
    both                      -> distances at every shift of -15..15 frames   -> offset, confidence, distance

Network and scoring: Chung & Zisserman, "Out of time: automated lip sync in the wild", ACCV-W 2016, as
published at https://github.com/joonson/syncnet_python (MIT); the layers bear its names, so its weights load.
The MFCC front end is the one that it was trained with: python_speech_features' defaults.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import medfilt
from torch import Tensor, nn

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.models.state_file import load_weights

WEIGHTS = "syncnet_v2"
WEIGHTS_FILE = "syncnet_v2.model"

FPS = 25
FACE_PX = 224
LIP_FRAMES = 5
"""Video frames that the lip branch sees at a time."""
MFCC_FRAMES = 20
"""MFCC frames that the audio branch sees at a time: the same 0.2 s."""
MFCC_STEP = 4
"""MFCC frames in a video frame."""
MAX_SHIFT = 15
"""Video frames to either side that the authors search."""

_FRAME, _HOP, _FFT = 400, 160, 512  # samples
_FILTERS, _COEFFICIENTS, _LIFTER = 26, 13, 22
_PRE_EMPHASIS = 0.97
_TINY = np.finfo(np.float64).eps
_DISTANCE_EPSILON = 1e-6  # torch's pairwise_distance, with which the published figures were made


class SyncNet(nn.Module):
    """The two branches; in evaluation mode from the start, as batches mean nothing here."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer_2d(1, 64, 3, padding=1),
            nn.MaxPool2d(1),
            *_layer_2d(64, 192, 3, padding=1),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_layer_2d(192, 384, 3, padding=1),
            *_layer_2d(384, 256, 3, padding=1),
            *_layer_2d(256, 256, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
            *_layer_2d(256, 512, (5, 4)),
        )
        self.netcnnlip = nn.Sequential(
            *_layer_3d(3, 96, (LIP_FRAMES, 7, 7), stride=2),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_layer_3d(96, 256, (1, 5, 5), stride=2, padding=1),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *_layer_3d(256, 256, (1, 3, 3), padding=1),
            *_layer_3d(256, 256, (1, 3, 3), padding=1),
            *_layer_3d(256, 256, (1, 3, 3), padding=1),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_layer_3d(256, 512, (1, 6, 6)),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.eval()

    @classmethod
    def load(cls, path: Path | str) -> "SyncNet":
        """The published file `syncnet_v2.model`, or any state dict of this network.

        Raises as `load_weights` does."""
        return load_weights(cls(), path)

    def audio(self, x: Tensor | np.ndarray) -> Tensor:
        """(B, 1, 13, 20) MFCC, coefficient by time -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(self._input(x, (1, _COEFFICIENTS, MFCC_FRAMES))).flatten(1))

    def lip(self, x: Tensor | np.ndarray) -> Tensor:
        """(B, 3, 5, 224, 224) frames of 0..255, not scaled, blue before green before red -> (B, 1024)."""
        return self.netfclip(self.lip_features(x))

    def lip_features(self, x: Tensor | np.ndarray) -> Tensor:
        """As `lip`, before its fully connected layers -> (B, 512)."""
        return self.netcnnlip(self._input(x, (3, LIP_FRAMES, FACE_PX, FACE_PX))).flatten(1)

    def _input(self, x: Tensor | np.ndarray, shape: tuple[int, ...]) -> Tensor:
        if tuple(x.shape[1:]) != shape:
            raise ValueError(f"input is {tuple(x.shape)}, not (B, {', '.join(map(str, shape))})")
        weight = next(self.netfclip.parameters())
        return torch.as_tensor(x).to(weight.device, weight.dtype)


def _layer_2d(n_in: int, n_out: int, kernel: int | tuple[int, int], padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, kernel, padding=padding), nn.BatchNorm2d(n_out), nn.ReLU()]


def _layer_3d(
    n_in: int, n_out: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """Strides and pads the picture, not the time."""
    convolution = nn.Conv3d(n_in, n_out, kernel, stride=(1, stride, stride), padding=(0, padding, padding))
    return [convolution, nn.BatchNorm3d(n_out), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def mfcc(wav_int16: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients, 100 a second, of raw 16-bit values (not of -1..1).

    (S,) mono at 16 kHz, S >= 1 -> (N, 13) float64, N = 1 + ceil(max(S - 400, 0) / 160); coefficient 0
    is the log of the frame's energy."""
    if wav_int16.ndim != 1 or len(wav_int16) == 0:
        raise ValueError(f"a sound is (S,) samples with S >= 1, not {wav_int16.shape}")
    power = _power_spectra(wav_int16.astype(np.float64))
    energy = power.sum(axis=1)
    filtered = power @ _mel_filters().T
    cepstra = dct(np.log(_positive(filtered)), type=2, axis=1, norm="ortho")[:, :_COEFFICIENTS]
    cepstra *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(_COEFFICIENTS) / _LIFTER)
    cepstra[:, 0] = np.log(_positive(energy))
    return cepstra


def _power_spectra(samples: np.ndarray) -> np.ndarray:
    """(S,) -> (N, 257): frames of 25 ms every 10 ms, no window; the last is filled up with zeros."""
    emphasised = np.append(samples[0], samples[1:] - _PRE_EMPHASIS * samples[:-1])
    n_frames = 1 + max(0, -(-(len(samples) - _FRAME) // _HOP))
    padded = np.pad(emphasised, (0, (n_frames - 1) * _HOP + _FRAME - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    return np.square(np.abs(np.fft.rfft(frames, _FFT))) / _FFT


@cache
def _mel_filters() -> np.ndarray:
    """(26, 257) triangles that touch at the centres, which lie on whole bins."""
    top_mel = 2595 * np.log10(1 + ANALYSIS_RATE / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top_mel, _FILTERS + 2) / 2595) - 1)
    edges = np.floor((_FFT + 1) * edges_hz / ANALYSIS_RATE)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(_FFT // 2 + 1)
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling))


def _positive(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, _TINY, x)


@dataclass(frozen=True, slots=True)
class SyncCurve:
    """Distances of mouth and sound, and what is read off them."""

    dists: np.ndarray
    """(F, 2 * max_shift + 1): of video frame i to audio frames i - max_shift .. i + max_shift."""
    mean_dists: np.ndarray
    """(2 * max_shift + 1,): their means over the frames."""

    @property
    def offset(self) -> int:
        """Video frames by which the sound is early; negative where it is late."""
        return len(self.mean_dists) // 2 - int(self.mean_dists.argmin())

    @property
    def confidence(self) -> float:
        """Sync-C (LSE-C): the median of the curve less its minimum."""
        return float(np.median(self.mean_dists) - self.mean_dists.min())

    @property
    def distance(self) -> float:
        """Sync-D (LSE-D): the minimum of the curve."""
        return float(self.mean_dists.min())

    @property
    def framewise_conf(self) -> np.ndarray:
        """(F,) the confidence of each frame at the best offset, smoothed over nine frames."""
        best = self.dists[:, self.mean_dists.argmin()]
        return medfilt(np.median(self.mean_dists) - best, kernel_size=9)


def sync_score(
    video: np.ndarray | Tensor, audio: np.ndarray | Tensor, max_shift: int = MAX_SHIFT
) -> SyncCurve:
    """How well two series of features fit, at every shift of up to `max_shift` frames.

    (F, D) each, F >= 1. Beyond its ends the sound is rows of zeros, and these count, as upstream has
    it: of a clip of hardly more than `max_shift` frames they decide. Raises ValueError for other shapes."""
    video, audio = _as_float64(video), _as_float64(audio)
    if video.ndim != 2 or video.shape != audio.shape or len(video) == 0:
        raise ValueError(f"features are {video.shape} and {audio.shape}, not (F, D) each with F >= 1")
    if not (np.isfinite(video).all() and np.isfinite(audio).all()):
        raise ValueError("features are not all finite numbers")
    padded = np.pad(audio, ((max_shift, max_shift), (0, 0)))
    nudged = video + _DISTANCE_EPSILON
    dists = np.stack(
        [_row_norms(nudged - padded[k : k + len(video)]) for k in range(2 * max_shift + 1)], axis=1
    )
    return SyncCurve(dists, dists.mean(axis=0))


def _row_norms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("fd,fd->f", rows, rows))


def _as_float64(x: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    return np.asarray(x, np.float64)
