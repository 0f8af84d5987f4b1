"""The laptop's autoencoder, fitted on a dataset's own faces.

    kept clips -> frames of size x size pixels, in groups of four after the first
      -> clips to fit on, and every HELD_OUT_EACH-th clip held out -> PatchPcaAutoencoder, its PSNR on both

The clips' order is that of their ids, which are digests: who is held out follows from the dataset alone.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_pipeline.dataset import Dataset
from data_pipeline.media import read_frames
from training.model.autoencoder import TEMPORAL_STRIDE
from training.model.patch_pca import PatchPcaAutoencoder

HELD_OUT_EACH = 5
MAX_SECONDS = 4.0


@dataclass(frozen=True)
class FittedAutoencoder:
    """An autoencoder, and how well it gives pixels back: peak signal-to-noise ratio in dB."""

    autoencoder: PatchPcaAutoencoder
    fitted_clips: int
    fitted_psnr_db: float
    held_out_clips: int
    held_out_psnr_db: float


def fit_autoencoder(dataset: Dataset, size_px: int, channels: int) -> FittedAutoencoder:
    """Fit on four of five kept clips (their first MAX_SECONDS) and judge on the fifth.

    Args:
        size_px: a multiple of 8; clips are scaled to it, cut to a square around their middle.
        channels: of a latent.

    Raises:
        ValueError: the dataset keeps fewer than two clips, or `PatchPcaAutoencoder.fit` refuses the sizes.
    """
    clip_ids = sorted(dataset.places())
    if len(clip_ids) < 2:
        raise ValueError(
            f"{dataset.root}: keeps {len(clip_ids)} clips, expected 2 or more, as one is held out; "
            "`hallo3 dataset show` says why clips were rejected"
        )
    held_out = clip_ids[::HELD_OUT_EACH]
    fitted = [clip_id for clip_id in clip_ids if clip_id not in held_out]
    autoencoder = PatchPcaAutoencoder.fit(_clips(dataset, fitted, size_px), channels)
    return FittedAutoencoder(
        autoencoder,
        len(fitted),
        _psnr_db(autoencoder, _clips(dataset, fitted, size_px)),
        len(held_out),
        _psnr_db(autoencoder, _clips(dataset, held_out, size_px)),
    )


def _clips(dataset: Dataset, clip_ids: Sequence[str], size_px: int) -> Iterator[Tensor]:
    """Each clip's frames (1, 3, F, size, size) in [-1, 1], F = 4 k + 1."""
    places = dataset.places()
    for clip_id in clip_ids:
        video = dataset.sample(places[clip_id])[f"{clip_id}.mp4"]
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(video)
            file.flush()
            frames = [
                _square(frame.rgb(), size_px) for frame in read_frames(Path(file.name), end_s=MAX_SECONDS)
            ]
        whole = (len(frames) - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
        pixels = torch.from_numpy(np.stack(frames[:whole])).permute(3, 0, 1, 2)[None]
        yield pixels.float() / 127.5 - 1


def _square(picture: np.ndarray, size_px: int) -> np.ndarray:
    """The middle of a picture (H, W, 3) uint8, size x size."""
    import cv2

    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[top : top + side, left : left + side]
    return cv2.resize(middle, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _psnr_db(autoencoder: PatchPcaAutoencoder, clips: Iterator[Tensor]) -> float:
    """Of all pixels of all clips together, against the full range of 2."""
    squares, count = 0.0, 0
    for clip in clips:
        given_back = autoencoder.decode(autoencoder.encode(clip)).clamp(-1, 1)
        squares += float((given_back - clip).square().sum(dtype=torch.float64))
        count += clip.numel()
    return 10 * float(np.log10(4 * count / squares))
