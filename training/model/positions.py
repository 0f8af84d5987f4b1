"""Where each token of a latent stands: learned rows and rotary tables, for the configured grid or another.

Latents of the configured size, and one leading frame of it (the reference network), take the tables as they
are. Other sizes follow `ModelConfig.grid`: never silently other positions than the model was trained with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.block import Layout
from training.model.config import ModelConfig
from training.model.rotary import RotaryTables, rotary_tables
from training.model.sequence_parallel import SequenceParallel

Grid = tuple[int, int, int]
"""Latent frames, rows of patches, columns of patches."""


def checked_grid(config: ModelConfig, latents: Tensor) -> Grid:
    """The grid of latents (B, T, C, H, W); ValueError where the configuration does not allow it."""
    frames, height, width = latents.shape[1], *latents.shape[-2:]
    size, known = config.patch_size, config.patch_grid
    if height % size or width % size:
        raise ValueError(f"latents of {height} x {width}: expected multiples of the patch size, {size}")
    grid = frames, height // size, width // size
    fits = all(given <= largest for given, largest in zip(grid, known, strict=True))
    if config.grid == "interpolate" or grid == known or (grid == (1, *known[1:])):
        return grid
    if config.grid == "crop" and fits:
        return grid
    expected = f"{config.latent_frames} frames (or 1) of {config.latent_height} x {config.latent_width}"
    cure = (
        "grid=interpolate allows any size"
        if config.grid == "crop"
        else "grid=crop or grid=interpolate allows others"
    )
    at_most = "at most " if config.grid == "crop" else ""
    raise ValueError(f"latents: {frames} frames of {height} x {width}, expected {at_most}{expected}; {cure}")


def learned_rows(config: ModelConfig, positions: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Rows of the learned table (1, L + tokens, D) -> for text (1, L, D), for video (1, T, n, D)."""
    text, video = positions.split([config.text_length, positions.shape[1] - config.text_length], dim=1)
    table = video.unflatten(1, config.patch_grid)
    if config.grid == "interpolate" and not _is_leading(config, grid):
        size = tuple(grid)
        table = F.interpolate(
            table.permute(0, 4, 1, 2, 3).float(), size, mode="trilinear", align_corners=True
        )
        table = table.permute(0, 2, 3, 4, 1).to(positions.dtype)
    else:
        frames, rows, columns = (slice(start, start + size) for start, size in _cropped(config, grid))
        table = table[:, frames, rows, columns]
    return text, table.flatten(2, 3)


def layout(
    config: ModelConfig, tables: RotaryTables, grid: Grid, parallel: SequenceParallel | None = None
) -> Layout:
    """Rotary tables of a grid's tokens (text does not turn); with `parallel` those of this rank's share."""
    still = tables.cos.new_ones(config.text_length, config.head_dim)
    video = [table.unflatten(0, (grid[0], -1)) for table in _video_tables(config, tables, grid)]
    text = [still, torch.zeros_like(still)]
    shares = None
    if parallel:
        shares = parallel.exchanging(config.text_length, grid[0], grid[1] * grid[2])
        text = [parallel.share(table, 0) for table in text]
        video = [parallel.share(table, 1) for table in video]
    cos, sin = (
        torch.cat([of_text, of_video.flatten(0, 1)]) for of_text, of_video in zip(text, video, strict=True)
    )
    return Layout(cos, sin, video[0][0], video[1][0], shares)


def _video_tables(config: ModelConfig, tables: RotaryTables, grid: Grid) -> tuple[Tensor, Tensor]:
    if _is_leading(config, grid):
        tokens = grid[0] * grid[1] * grid[2]
        return tables.cos[:tokens], tables.sin[:tokens]
    device = tables.cos.device
    if config.grid == "interpolate":
        known = config.patch_grid
        axes = [
            torch.linspace(0, last - 1, size, device=device) for last, size in zip(known, grid, strict=True)
        ]
    else:
        axes = [torch.arange(start, start + size, device=device) for start, size in _cropped(config, grid)]
    return rotary_tables(axes, config.head_dim)


def _is_leading(config: ModelConfig, grid: Grid) -> bool:
    """Whether it is the configured grid or its first frames."""
    return grid[1:] == config.patch_grid[1:] and (grid[0] == 1 or grid[0] == config.latent_frames)


def _cropped(config: ModelConfig, grid: Grid) -> list[tuple[int, int]]:
    """(start, size) along frames, rows, columns: the leading frames, the middle of the picture."""
    _, rows, columns = config.patch_grid
    return [(0, grid[0]), ((rows - grid[1]) // 2, grid[1]), ((columns - grid[2]) // 2, grid[2])]
