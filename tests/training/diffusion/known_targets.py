"""Distributions of which the exact velocity is known, in place of a trained network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.diffusion import ZeroSnrSchedule


@dataclass(frozen=True)
class NormalMixture:
    """Independent numbers, each of a mixture of normal distributions."""

    schedule: ZeroSnrSchedule
    means: tuple[float, ...]
    stds: tuple[float, ...]
    shares: tuple[float, ...] = (1.0,)

    def velocity(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """(a x - E[x_0 | x]) / sigma, float64, for states (B, T, C, H, W)."""
        x = x.double()
        a = self.schedule.sqrt_alpha[timesteps.long()].double().reshape(-1, *[1] * (x.ndim - 1))
        variance = 1 - a.square()
        estimate, total = torch.zeros_like(x), torch.zeros_like(x)
        for mean, std, share in zip(self.means, self.stds, self.shares, strict=True):
            spread = a.square() * std**2 + variance
            density = share * spread.rsqrt() * (-(x - a * mean).square() / (2 * spread)).exp()
            estimate += density * (mean + a * std**2 / spread * (x - a * mean))
            total += density
        return (a * x - estimate / total) / variance.sqrt()

    def drawn(self, count: int, seed: int) -> Tensor:
        """Numbers of the distribution itself."""
        stream = torch.Generator().manual_seed(seed)
        part = torch.multinomial(torch.tensor(self.shares), count, replacement=True, generator=stream)
        noise = torch.randn(count, generator=stream)
        return torch.tensor(self.means)[part] + torch.tensor(self.stds)[part] * noise


def largest_gap(one: Tensor, other: Tensor) -> float:
    """The Kolmogorov-Smirnov distance of two samples."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(one.flatten().numpy(), other.flatten().numpy()).statistic)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
