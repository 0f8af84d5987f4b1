"""Inception-v3 as FID uses it: images in, 2048 numbers each out.

    (B, 3, H, W) uint8 -> bilinear to 299 x 299, -1..1 -> convolutions, mixed blocks -> mean -> (B, 2048)

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, with the weights of
TensorFlow's graph of 2015-12-05 that Heusel et al. (FID, NeurIPS 2017) took. The layers bear the names of
https://github.com/mseitzer/pytorch-fid, so the file that it publishes loads; torch-fidelity publishes the
same bytes and brings images to size in another way, as TensorFlow 1 did.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

from data_pipeline.models.state_file import load_weights

WEIGHTS = "fid-inception"
WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"

INPUT_PX = 299
FEATURES = 2048
CLASSES = 1008

Variant = Literal["pytorch-fid", "torch-fidelity"]


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)), inplace=True)


def _row(n_in: int, n_out: int, width: int) -> ConvNorm:
    return ConvNorm(n_in, n_out, (1, width), padding=(0, width // 2))


def _column(n_in: int, n_out: int, height: int) -> ConvNorm:
    return ConvNorm(n_in, n_out, (height, 1), padding=(height // 2, 0))


class MixedA(nn.Module):
    """35 x 35: 1 x 1, 5 x 5, two 3 x 3, pool."""

    def __init__(self, n_in: int, n_pool: int):
        super().__init__()
        self.branch1x1 = ConvNorm(n_in, 64, 1)
        self.branch5x5_1 = ConvNorm(n_in, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(n_in, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(n_in, n_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), wide, double, self.branch_pool(_mean_around(x))], dim=1)


class ReductionA(nn.Module):
    """35 x 35 -> 17 x 17."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch3x3 = ConvNorm(n_in, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(n_in, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, 2)], dim=1)


class MixedB(nn.Module):
    """17 x 17: 7 x 7 as a row and a column."""

    def __init__(self, n_in: int, n_mid: int):
        super().__init__()
        self.branch1x1 = ConvNorm(n_in, 192, 1)
        self.branch7x7_1 = ConvNorm(n_in, n_mid, 1)
        self.branch7x7_2 = _row(n_mid, n_mid, 7)
        self.branch7x7_3 = _column(n_mid, 192, 7)
        self.branch7x7dbl_1 = ConvNorm(n_in, n_mid, 1)
        self.branch7x7dbl_2 = _column(n_mid, n_mid, 7)
        self.branch7x7dbl_3 = _row(n_mid, n_mid, 7)
        self.branch7x7dbl_4 = _column(n_mid, n_mid, 7)
        self.branch7x7dbl_5 = _row(n_mid, 192, 7)
        self.branch_pool = ConvNorm(n_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_mean_around(x))], dim=1)


class ReductionB(nn.Module):
    """17 x 17 -> 8 x 8."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch3x3_1 = ConvNorm(n_in, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(n_in, 192, 1)
        self.branch7x7x3_2 = _row(192, 192, 7)
        self.branch7x7x3_3 = _column(192, 192, 7)
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        small = self.branch3x3_2(self.branch3x3_1(x))
        large = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([small, self.branch7x7x3_4(large), max_pool2d(x, 3, 2)], dim=1)


class MixedC(nn.Module):
    """8 x 8: 3 x 3 as a row beside a column."""

    def __init__(self, n_in: int, max_pooled: bool):
        super().__init__()
        self._max_pooled = max_pooled
        self.branch1x1 = ConvNorm(n_in, 320, 1)
        self.branch3x3_1 = ConvNorm(n_in, 384, 1)
        self.branch3x3_2a = _row(384, 384, 3)
        self.branch3x3_2b = _column(384, 384, 3)
        self.branch3x3dbl_1 = ConvNorm(n_in, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _row(384, 384, 3)
        self.branch3x3dbl_3b = _column(384, 384, 3)
        self.branch_pool = ConvNorm(n_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = max_pool2d(x, 3, 1, padding=1) if self._max_pooled else _mean_around(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, dim=1)


class FidInception(nn.Module):
    """The network; in evaluation mode from the start.

    variant: how images are brought to size and range: as pytorch-fid does, or as torch-fidelity does.
    """

    def __init__(self, variant: Variant = "pytorch-fid"):
        super().__init__()
        if variant not in ("pytorch-fid", "torch-fidelity"):
            raise ValueError(f"variant {variant!r} is neither 'pytorch-fid' nor 'torch-fidelity'")
        self.variant = variant
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = MixedA(192, 32)
        self.Mixed_5c = MixedA(256, 64)
        self.Mixed_5d = MixedA(288, 64)
        self.Mixed_6a = ReductionA(288)
        self.Mixed_6b = MixedB(768, 128)
        self.Mixed_6c = MixedB(768, 160)
        self.Mixed_6d = MixedB(768, 160)
        self.Mixed_6e = MixedB(768, 192)
        self.Mixed_7a = ReductionB(768)
        self.Mixed_7b = MixedC(1280, max_pooled=False)
        # A slip of TensorFlow's graph, which its weights were trained with.
        self.Mixed_7c = MixedC(2048, max_pooled=True)
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.3 times as fast on a CPU
        self.eval()

    @classmethod
    def load(
        cls, path: Path | str, variant: Variant = "pytorch-fid", sha256: str | None = None
    ) -> "FidInception":
        """The published file, or any state dict of this network. Raises as `load_weights` does."""
        return load_weights(cls(variant), path, sha256)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB of any size -> (B, 2048). Raises ValueError for anything else."""
        x = self.prepare(images)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))

    def prepare(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, 299, 299) in -1..1, or in -1..0.993 as torch-fidelity has it.

        The aspect ratio is not kept and nothing is blurred before it is made smaller: published figures
        depend on both.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not uint8 (B, 3, H, W)")
        pixels = images.to(self.fc.weight.device, self.fc.weight.dtype)
        if self.variant == "torch-fidelity":
            return (resize_as_tensorflow_1(pixels, INPUT_PX) - 128) / 128
        size = (INPUT_PX, INPUT_PX)
        return interpolate(pixels / 255, size, mode="bilinear", align_corners=False, antialias=False) * 2 - 1


def resize_as_tensorflow_1(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, C, size, size), bilinear, from source position = target position * source / target.

    As `tf.image.resize_bilinear` of TensorFlow 1 did: pixels lie at their upper left corners, so the picture
    moves by up to half a pixel."""
    rows = _between(images.transpose(2, 3), size).transpose(2, 3)
    return _between(rows, size)


def _between(images: Tensor, size: int) -> Tensor:
    """(..., W) -> (..., size)."""
    width = images.shape[-1]
    at = torch.arange(size, device=images.device, dtype=images.dtype) * (width / size)
    left = at.floor().long().clamp(max=width - 1)
    right = (left + 1).clamp(max=width - 1)
    return torch.lerp(images[..., left], images[..., right], at - left)


def _mean_around(x: Tensor) -> Tensor:
    # TensorFlow leaves the padding out of the average.
    return avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
