"""Classifier-free guidance: how far a step goes from the unconditional prediction past the conditional one.

    guided = u + scale (c - u)         (Ho & Salimans 2022, with scale = 1 + w)

u and c come from one call of the network on a batch of twice the size: the unconditional half first (no
text, zero audio; face, image condition and reference are the same in both), then the conditional.
`in_two_passes` makes two calls of it, for half of the memory. The rules below say the scale of each step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""The network with its conditions filled in: x (B, ...) float32, timesteps (B,) -> the velocity (B, ...)."""


class GuidanceRule(Protocol):
    def __call__(self, step: int, steps: int, timestep: int) -> float:
        """The scale of step 0 .. steps - 1, at which the network is told `timestep`."""


@dataclass(frozen=True)
class ConstantGuidance:
    """The same scale in every step. Hallo3 as shipped has 3.5, whatever its configuration says."""

    scale: float = 3.5

    def __call__(self, step: int, steps: int, timestep: int) -> float:
        return self.scale


@dataclass(frozen=True)
class RisingGuidance:
    """From 1 up to almost 1 + scale, slowly at first: 1 + scale (1 - cos(pi f^exponent)) / 2.

    f is the fraction of steps done. It is what CogVideoX's "dynamic" guidance means to be."""

    scale: float = 6.0
    exponent: float = 5.0

    def __call__(self, step: int, steps: int, timestep: int) -> float:
        return _raised_cosine(self.scale, (step / steps) ** self.exponent)


@dataclass(frozen=True)
class ConfiguredGuidance:
    """The scale that Hallo3's configuration asks for and its code does not use; diffusers' CogVideoX does.

    The formula of `RisingGuidance` with f = (steps - timestep) / steps: the timestep runs from 999 to 19
    and not from steps to 1, so f is far below zero, and the scale jumps about between 1 and 1 + scale."""

    scale: float = 6.0
    exponent: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.exponent, int):
            raise ValueError(
                f"exponent: expected a whole number, as f is negative, got {self.exponent!r}; "
                "RisingGuidance takes any"
            )

    def __call__(self, step: int, steps: int, timestep: int) -> float:
        return _raised_cosine(self.scale, ((steps - timestep) / steps) ** self.exponent)


def _raised_cosine(scale: float, f: float) -> float:
    return 1 + scale * (1 - math.cos(math.pi * f)) / 2


def guided_velocity(denoise: Denoise, x: Tensor, timesteps: Tensor, scale: float) -> Tensor:
    """The guided velocity (B, ...) from one call of the network on the batch twice.

    The estimate of the clean latent is linear in the velocity, so guiding one is guiding the other."""
    both = denoise(torch.cat([x, x]), torch.cat([timesteps, timesteps]))
    doubled = (2 * len(x), *x.shape[1:])
    if both.shape != doubled:
        raise ValueError(
            f"denoise: expected {doubled} for the doubled batch, unconditional half first, "
            f"got {tuple(both.shape)}"
        )
    unconditional, conditional = both.float().chunk(2)
    return unconditional + scale * (conditional - unconditional)


def in_two_passes(unconditional: Denoise, conditional: Denoise) -> Denoise:
    """A `Denoise` for the doubled batch that runs its halves one after the other."""

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        (x_u, x_c), (t_u, t_c) = x.chunk(2), timesteps.chunk(2)
        return torch.cat([unconditional(x_u, t_u), conditional(x_c, t_c)])

    return denoise
