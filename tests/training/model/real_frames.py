"""Clips cut from photographs: a camera that moves over a real picture."""

import torch
from torch import Tensor


def clip(
    frames: int, side_px: int, *, photograph: str = "astronaut", shift: int = 0, scale: int = 1
) -> Tensor:
    """(1, 3, F, side, side) in [-1, 1]: a window that drifts over the photograph, shrunk `scale` times."""
    import skimage.data

    picture = torch.from_numpy(getattr(skimage.data, photograph)()).permute(2, 0, 1).float() / 127.5 - 1
    if scale > 1:
        picture = torch.nn.functional.avg_pool2d(picture, scale)
    rows, columns = (size - side_px for size in picture.shape[1:])
    places = [
        ((2 * t + shift) % max(rows, 1), (150 // scale + t + shift) % max(columns, 1)) for t in range(frames)
    ]
    return torch.stack([picture[:, y : y + side_px, x : x + side_px] for y, x in places], dim=1)[None]
