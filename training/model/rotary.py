"""Where a patch is: rotary position embedding over time, row and column.

A head's channels are split: the first quarter turns with the latent frame, three eighths with the row,
three eighths with the column (64 channels: 16, 24, 24). Neighbouring channels form a pair that turns by
position * base ** (-2i / d). (RoFormer, Su et al. 2021; its 3D form as in CogVideoX, Yang et al. 2024.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

BASE = 10_000.0


def rotary_tables(axes: Sequence[Tensor], head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (T * h * w, head_dim) float32, of the grid of three axes: (T,), (h,), (w,).

    Positions may be fractions. Order: frame, row, column.
    """
    frames, rows, columns = axes
    sizes = [len(axis) for axis in axes]
    spatial = head_dim * 3 // 8
    parts = [
        _angles(frames, head_dim - 2 * spatial)[:, None, None],
        _angles(rows, spatial)[None, :, None],
        _angles(columns, spatial)[None, None, :],
    ]
    angles = torch.cat([part.expand(*sizes, -1) for part in parts], dim=-1).reshape(-1, head_dim)
    return angles.cos(), angles.sin()


def _angles(positions: Tensor, channels: int) -> Tensor:
    """(P, channels) angles in radians; both channels of a pair have the same."""
    exponents = torch.arange(0, channels, 2, device=positions.device, dtype=torch.float32) / channels
    angles = positions.float()[:, None] * (1.0 / BASE**exponents)
    return angles.repeat_interleave(2, dim=-1)


def rotate(tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Tokens (..., N, head_dim) turned by tables that broadcast to them; float32 inside, dtype kept."""
    pairs = tokens.float().unflatten(-1, (-1, 2))
    cos, sin = cos[..., ::2], sin[..., ::2]  # both channels of a pair have the same
    if torch.compiler.is_compiling():  # it fuses this, and cannot fuse complex numbers
        first, second = pairs.unbind(-1)
        turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    else:  # a turn is a product of complex numbers: one pass over memory
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin))
    return turned.flatten(-2).to(tokens.dtype)


class RotaryTables(nn.Module):
    """The tables of the configured grid, as upstream's checkpoints carry them.

    They follow from the grid alone, so a checkpoint's copies (which may be bfloat16) are checked for their
    shape and not used, and may be missing. They stay float32 when the model is cast: rounded angles blur
    positions.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int, int], head_dim: int):
        super().__init__()
        self.grid, self.head_dim = grid, head_dim
        cos, sin = self._made_on(torch.get_default_device())
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def _apply(self, fn: Any, recurse: bool = True) -> "RotaryTables":
        super()._apply(fn, recurse)
        if not self.cos.is_meta:
            self.cos, self.sin = self._made_on(self.cos.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("cos", "sin"):
            own = getattr(self, name)
            given = state_dict.get(prefix + name, own)
            state_dict[prefix + name] = own if given.shape == own.shape else given
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _made_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # On the CPU first: on the meta device arange imports torch's compiler, which takes seconds.
        axes = [torch.arange(size, device="cpu") for size in self.grid]
        cos, sin = rotary_tables(axes, self.head_dim)
        return cos.to(device), sin.to(device)
