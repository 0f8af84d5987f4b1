"""What travels from the loader to the network: the samples of one micro-batch, on one worker."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B samples. The loader gives them on the CPU, floating parts as they are stored (float16 or float32,
    also as views of less than they show); `to` makes of it what the networks and the loss take.

    B is micro_batch, always: a broken sample's place is filled with zeros and weighs nothing."""

    positions: Tensor
    """(B,) int64: each sample's place in the step's whole batch, 0 ... batch - 1. Keys its randomness."""
    weight: Tensor
    """(B,): 1, or 0 for a broken sample."""
    latents: Tensor
    """(B, T, C, H, W): the window, clean."""
    image_condition: Tensor
    """(B, 1, C, H, W): reference image and two noised, masked motion frames, encoded together."""
    reference_latent: Tensor
    """(B, 1, C, H, W): the reference image's face on black."""
    text: Tensor
    """(B, L, text_dim)"""
    face: Tensor
    """(B, embedding_dim)"""
    audio: Tensor | None
    """(B, F, window, layers, channels); None in phase identity."""
    mouth: Tensor | None
    """(B, T, 1, H, W): 1 where the mouth is, 0 elsewhere; None where the loss does not ask."""
    keys: tuple[str, ...]
    """Of each sample, for people: `clip_id/start`."""

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Batch":
        """On a device; what the networks look at in `dtype`, what the loss is computed of in float32."""
        of_the_loss = ("weight", "mouth", "latents")
        moved: dict[str, Any] = {"positions": self.positions.to(device)}
        for part in fields(self):
            value = getattr(self, part.name)
            if (
                isinstance(value, Tensor) and value.is_floating_point()
            ):  # moved first: float16 is half as much
                moved[part.name] = value.to(device).to(torch.float32 if part.name in of_the_loss else dtype)
        return replace(self, **moved)
