"""The noise schedule: how much of the clean latent is left at every index of the training table.

    index t (0 almost clean .. 999 pure noise) -> a(t) = sqrt(alpha_bar(t)), sigma(t) = sqrt(1 - a(t)^2)
    noised   x_t = a x_0 + sigma noise          (variance preserving)
    velocity v   = a noise - sigma x_0          (Salimans & Ho 2022, "Progressive Distillation", appendix D)
    estimate x_0 = a x_t - sigma v              so the network that predicts v estimates x_0 at every index

The betas are Stable Diffusion's "scaled linear" ones. Their last alpha_bar is not 0, so a network would
learn that even the noisiest input holds some signal, and meet none in sampling: the table of a(t) is
shifted and scaled so that its last entry is exactly 0 and its first is kept (Lin et al. 2023, "Common
Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1; as CogVideoX 2024 does). There
the network predicts v = -x_0, where a prediction of the noise would say nothing.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplerTable:
    """What a sampler of few steps walks along, noisiest first.

    `timesteps` (K,) int64 are told to the network, `sqrt_alpha` (K,) float32 is a at each."""

    timesteps: Tensor
    sqrt_alpha: Tensor


@dataclass(frozen=True)
class ZeroSnrSchedule:
    """A variance-preserving schedule with zero terminal signal-to-noise ratio. Tables are (num_timesteps,).

    `shift` s > 1 moves the table towards noise: alpha_bar / (s + (1 - s) alpha_bar), that is, the
    signal-to-noise ratio alpha_bar / (1 - alpha_bar) divided by s. CogVideoX-5B and Hallo3 have s = 1."""

    num_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    shift: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.num_timesteps, bool) or not isinstance(self.num_timesteps, int):
            raise ValueError(f"num_timesteps: expected a whole number, got {self.num_timesteps!r}")
        if self.num_timesteps < 2:
            raise ValueError(f"num_timesteps: expected 2 or more, got {self.num_timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                "beta_start, beta_end: expected 0 < beta_start <= beta_end < 1, "
                f"got {self.beta_start} and {self.beta_end}"
            )
        if not 0 < self.shift < float("inf"):
            raise ValueError(f"shift: expected a positive number, got {self.shift}")

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """alpha_bar after the shift and before the terminal value is made zero; float64."""
        betas = torch.linspace(
            self.beta_start**0.5, self.beta_end**0.5, self.num_timesteps, dtype=torch.float64
        ).square()
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        return alphas_cumprod / (self.shift + (1 - self.shift) * alphas_cumprod)

    @cached_property
    def sqrt_alpha(self) -> Tensor:
        """a(t), float32: falls to exactly 0 at the last index."""
        return _with_zero_end(self.alphas_cumprod)

    @cached_property
    def sigma(self) -> Tensor:
        """sqrt(1 - a^2), in float32 as upstream's: in float64 it would differ by 2e-7 at small indices."""
        return (1 - self.sqrt_alpha**2) ** 0.5

    @property
    def c_skip(self) -> Tensor:
        """What the noised latent is multiplied by in the estimate (Karras et al. 2022, equation 7)."""
        return self.sqrt_alpha

    @property
    def c_out(self) -> Tensor:
        """What the network's output is multiplied by in the estimate."""
        return -self.sigma

    @property
    def c_in(self) -> Tensor:
        """What the network's input is multiplied by: 1, as the state's variance is preserved."""
        return torch.ones_like(self.sqrt_alpha)

    @property
    def loss_weight(self) -> Tensor:
        """1 / (1 - a^2): with it the estimate's squared error is the velocity's (see loss.py)."""
        return 1 / (1 - self.sqrt_alpha**2)

    def timesteps(self, steps: int) -> Tensor:
        """The indices (steps,) int64 that a sampler visits, descending, evenly spaced from the last one.

        "Trailing" in the words of Lin et al. 2023, section 3.3: the last index is among them, 0 is not
        (but for steps = num_timesteps)."""
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise ValueError(f"steps: expected a whole number, got {steps!r}")
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(f"steps: expected 1 to num_timesteps = {self.num_timesteps}, got {steps}")
        spaced = np.linspace(self.num_timesteps - 1, 0, steps, endpoint=False)
        return torch.from_numpy(spaced.astype(np.int64))

    def subsampled(self, steps: int) -> SamplerTable:
        """Upstream's table for a sampler of so many steps.

        The shift and scale to a zero end is done anew on the picked values, which keeps a at the smallest
        picked timestep and not at 0: at 50 steps the table differs from the training table at the same
        timesteps by up to 6.2e-4."""
        timesteps = self.timesteps(steps)
        if steps == 1:  # its start is its end: pure noise, where the scale would be 0/0
            return SamplerTable(timesteps, torch.zeros(1))
        return SamplerTable(timesteps, _with_zero_end(self.alphas_cumprod[timesteps.flip(0)]).flip(0))

    def nearest_index(self, sqrt_alpha: Tensor) -> Tensor:
        """The index of the training table whose a is nearest to each of the given ones; any shape, int64."""
        return (sqrt_alpha[..., None] - self.sqrt_alpha.to(sqrt_alpha.device)).abs().argmin(dim=-1)

    def add_noise(self, clean: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """x_t = a x_0 + sigma noise, float32, for latents (B, ...) and one index for each of the B.

        Raises ValueError for latents that do not fit each other, or an index out of range. An index on the
        CPU, where `stratified_indices` draws it, does not make the device wait."""
        a, sigma = self._at(index, clean=clean, noise=noise)
        return a * clean.float() + sigma * noise.float()

    def velocity(self, clean: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """v = a noise - sigma x_0, float32: what the network is to predict. Raises as `add_noise` does."""
        a, sigma = self._at(index, clean=clean, noise=noise)
        return a * noise.float() - sigma * clean.float()

    def estimate_clean(self, noised: Tensor, velocity: Tensor, index: Tensor) -> Tensor:
        """x_0 = c_skip x_t + c_out v, float32: what a prediction of v says of the clean latent.

        Raises as `add_noise` does."""
        a, sigma = self._at(index, noised=noised, velocity=velocity)
        return a * noised.float() - sigma * velocity.float()

    def _at(self, index: Tensor, **latents: Tensor) -> tuple[Tensor, Tensor]:
        """a and sigma at each sample's index, to be multiplied with its latents (B, ...)."""
        first = next(iter(latents.values()))
        check_latents(**latents)
        if index.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"index: expected whole numbers (int64 or int32), got {index.dtype}")
        if index.shape != first.shape[:1]:
            expected = tuple(first.shape[:1])
            raise ValueError(f"index: expected one for each sample, {expected}, got {tuple(index.shape)}")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.num_timesteps:
            raise ValueError(
                f"index: expected 0 to {self.num_timesteps - 1}, got {int(index.min())} to {int(index.max())}"
            )
        each = (-1, *[1] * (first.ndim - 1))
        on_host = index.cpu()
        return (
            self.sqrt_alpha[on_host].reshape(each).to(first.device),
            self.sigma[on_host].reshape(each).to(first.device),
        )


def check_latents(**latents: Tensor) -> None:
    """Raises ValueError, naming the argument, unless all are fractions of one shape on one device."""
    (first_name, first), *_ = latents.items()
    for name, latent in latents.items():
        if not latent.is_floating_point():
            raise ValueError(f"{name}: expected a floating-point dtype, got {latent.dtype}")
        if latent.shape != first.shape:
            expected = f"the shape of {first_name}, {tuple(first.shape)}"
            raise ValueError(f"{name}: expected {expected}, got {tuple(latent.shape)}")
        if latent.device != first.device:
            raise ValueError(f"{name}: expected on {first.device} as {first_name}, got {latent.device}")


def _with_zero_end(alphas_cumprod: Tensor) -> Tensor:
    """Square roots of falling alpha_bars, shifted to end at 0 and scaled to keep their start; float32.

    The cast comes first, as in upstream: the trained weights saw these very values."""
    sqrt_alpha = alphas_cumprod.float().sqrt()
    start, end = sqrt_alpha[0], sqrt_alpha[-1]
    return (sqrt_alpha - end) * (start / (start - end))
