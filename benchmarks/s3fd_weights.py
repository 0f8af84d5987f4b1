"""Weights for S3FD, the package's face detector, with which it finds one face: where it is told that it is.

    filled backbone -> maps of six sizes -> boxes and scores of every place
                                            of the map with the largest boxes: one place, one box
                                            of all others: no face

The published weights cannot be had here, and random ones find thousands of faces. Here each picture costs
what it costs the published network, and gives the one face that a picture of one speaker has.

The map with the largest boxes has two places side by side for pictures of 160 x 90, which the package
makes of 640 x 360. A convolution sees zeros beyond the left edge from the left place, and the left place
from the right one: that tells them apart.
"""

import math

import torch

from tests.filled import filled

VGG = (
    *((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)),
    *((17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)),
    (31, 512, 1024),
)
EXTRAS = ((1024, 256, 1), (256, 512, 3), (512, 128, 1), (128, 256, 3))
MAPS = (256, 512, 512, 1024, 512, 256)
LARGEST = 5
SEEN_PX = (160, 90)
LARGEST_PX, LARGEST_STEP = 512, 128
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
SURE = 10.0


def s3fd_weights(face: tuple[float, float, float, float]) -> dict[str, torch.Tensor]:
    """The state dict. `face`: x0, y0, x1, y1 as parts of the picture's width and height."""
    state: dict[str, torch.Tensor] = {}
    for index, n_in, n_out in VGG:
        _convolution(state, f"vgg.{index}", n_in, n_out, 3)
    _convolution(state, "vgg.33", 1024, 1024, 1)
    for index, (n_in, n_out, kernel) in enumerate(EXTRAS):
        _convolution(state, f"extras.{index}", n_in, n_out, kernel)
    for name, channels, scale in (("3_3", 256, 10.0), ("4_3", 512, 8.0), ("5_3", 512, 5.0)):
        state[f"L2Norm{name}.weight"] = torch.full((channels,), scale)
    for index, channels in enumerate(MAPS):
        n_scores = 4 if index == 0 else 2  # of the smallest boxes, three kinds of background
        state[f"loc.{index}.weight"] = torch.zeros(4, channels, 3, 3)
        state[f"loc.{index}.bias"] = torch.zeros(4)
        state[f"conf.{index}.weight"] = torch.zeros(n_scores, channels, 3, 3)
        state[f"conf.{index}.bias"] = torch.tensor([SURE] * (n_scores - 1) + [-SURE])
    state[f"conf.{LARGEST}.bias"] = torch.tensor([-SURE, SURE])
    state[f"conf.{LARGEST}.weight"][1, :, 1, 0] = -1e4  # what lies to the left is never negative
    state[f"loc.{LARGEST}.bias"] = _to_box(face)
    return state


def _convolution(state: dict[str, torch.Tensor], name: str, n_in: int, n_out: int, kernel: int) -> None:
    for leaf, shape in (("weight", (n_out, n_in, kernel, kernel)), ("bias", (n_out,))):
        state[f"{name}.{leaf}"] = filled(f"{name}.{leaf}", torch.zeros(shape), gain=2**0.5)


def _to_box(face: tuple[float, float, float, float]) -> torch.Tensor:
    """What moves the left place's box, which is far larger than the picture, onto the face."""
    moves, sizes = [], []
    for side in (0, 1):
        middle, size = (face[side] + face[side + 2]) / 2, face[side + 2] - face[side]
        prior_middle, prior_size = 0.5 * LARGEST_STEP / SEEN_PX[side], LARGEST_PX / SEEN_PX[side]
        moves.append((middle - prior_middle) / prior_size / CENTRE_VARIANCE)
        sizes.append(math.log(size / prior_size) / SIZE_VARIANCE)
    return torch.tensor(moves + sizes)
