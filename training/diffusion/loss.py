"""The training loss: how far the predicted velocity is from the true one.

Upstream writes it as the weighted error of the clean latent's estimate, with D = a x_t - sigma v':

    L = mean[(D - x_0)^2] / (1 - a^2)

As x_t = a x_0 + sigma noise, D - x_0 = sigma (v - v') and sigma^2 = 1 - a^2, so that

    L = mean[(v' - v)^2],  v = a noise - sigma x_0

which is what is computed: nothing is multiplied by a small number and divided by it again, and at small
indices, where upstream's 1 / (1 - a^2) is a thousand, no digits are lost.
"""

import torch
from torch import Tensor

from training.diffusion.schedule import ZeroSnrSchedule, check_latents


def velocity_loss(
    velocity: Tensor,
    clean: Tensor,
    noise: Tensor,
    index: Tensor,
    schedule: ZeroSnrSchedule,
    weight: Tensor | None = None,
) -> Tensor:
    """The mean squared error of the predicted `velocity` for each sample: (B,), float32 for any dtype in.

    `velocity`, `clean` and `noise` are (B, T, C, H, W), `index` (B,) is each sample's place in the
    schedule. `weight`, where given, is broadcast against them, such as (B, T, 1, H, W), not negative: the
    loss is then the weighted mean over each sample's elements, so weights that are equal everywhere change
    nothing. Raises ValueError that names the argument."""
    check_latents(velocity=velocity, clean=clean, noise=noise)
    error = (velocity.float() - schedule.velocity(clean, noise, index)).square()
    if weight is None:
        return error.flatten(1).mean(dim=1)
    weights = _broadcast(weight, error)
    return (weights * error).flatten(1).sum(dim=1) / weights.flatten(1).sum(dim=1)


def _broadcast(weight: Tensor, error: Tensor) -> Tensor:
    """The weight of every element. Raises ValueError unless each sample has a positive sum."""
    shape, wanted = tuple(weight.shape), tuple(error.shape)
    fits = len(shape) == len(wanted) and all(
        size in (1, full) for size, full in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(f"weight: expected a shape that broadcasts to {wanted}, got {shape}")
    if weight.device != error.device:
        raise ValueError(f"weight: expected on {error.device} as velocity, got {weight.device}")
    weights = weight.float().expand(wanted)
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError("weight: expected finite numbers of 0 or more, got others")
    if not bool((weights.flatten(1).sum(dim=1) > 0).all()):
        raise ValueError("weight: expected above 0 somewhere in every sample, got a sample of zeros")
    return weights
