"""What comes in at the networks' doors is what they were built for, or is refused by its name."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_tensor(
    name: str, tensor: object, shape: Sequence[int | str], like: Tensor, finite: bool = False
) -> None:
    """Refuse an argument of another shape, dtype or device than a network's weights.

    Args:
        shape: sizes; a word stands for any size.
        like: one of the network's weights. Under autocast any floating dtype will do.
        finite: also refuse NaN and infinity, which makes the device wait.

    Raises:
        ValueError: names the argument, what was expected and what was given.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: expected a tensor of {_words(shape)}, got {type(tensor).__name__}")
    fits = len(shape) == tensor.ndim and all(
        isinstance(wanted, str) or wanted == given for wanted, given in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected {_words(shape)}, got {_words(tensor.shape)}")
    if tensor.dtype != like.dtype and not _will_be_cast(tensor):
        raise ValueError(f"{name}: expected dtype {like.dtype} as the weights, got {tensor.dtype}")
    check_device(name, tensor, like)
    if finite and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name}: expected finite numbers, got {bad} NaN or infinite of {tensor.numel()}")


def check_device(name: str, tensor: Tensor, like: Tensor) -> None:
    """Refuse a tensor that lies elsewhere than the weights; ValueError."""
    if tensor.device != like.device:
        raise ValueError(f"{name}: expected on {like.device} as the weights, got {tensor.device}")


def check_timesteps(timesteps: object, batch: int, like: Tensor) -> None:
    """Refuse anything but one timestep a sample; ValueError."""
    if not isinstance(timesteps, Tensor) or timesteps.shape != (batch,):
        given = _words(timesteps.shape) if isinstance(timesteps, Tensor) else type(timesteps).__name__
        raise ValueError(f"timesteps: expected one a sample, ({batch},), got {given}")
    if timesteps.is_complex() or timesteps.dtype == torch.bool:
        raise ValueError(f"timesteps: expected numbers of 0 ... 999, got {timesteps.dtype}")
    check_device("timesteps", timesteps, like)


def _will_be_cast(tensor: Tensor) -> bool:
    return torch.is_autocast_enabled(tensor.device.type) and tensor.is_floating_point()


def _words(shape: Sequence[int | str]) -> str:
    return f"({', '.join(str(size) for size in shape)})"
