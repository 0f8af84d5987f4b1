"""The sampler: from noise to a clean latent in few steps of DPM-Solver++(2M).

    start x (pure noise) -> each step: network -> guided estimate of the clean latent -> x a step less noisy
    -> the last step's estimate

With a = sqrt(alpha_bar), sigma = sqrt(1 - a^2), lambda = ln(a / sigma), h = lambda_next - lambda, a step is

    x <- sigma_next/sigma e^(-eta h) x + a_next (1 - e^(-(1 + eta) h)) D + sigma_next sqrt(1 - e^(-2 eta h)) z
    D  = estimate + (estimate - previous estimate) / (2r),  r = (lambda - lambda_previous) / h

(Lu et al. 2022, "DPM-Solver++", the multistep solver of second order and SDE-DPM-Solver++(2M)). eta = 1
solves the reverse SDE, with fresh noise z in each step; eta = 0 the probability-flow ODE, which draws none;
values between, SDEs with less noise. Exactly solved, all lead to the same distribution.
At the first timestep nothing is left of the clean latent: a = 0, lambda = -inf, and the step is its limit,
x <- sigma_next (x or z) + a_next estimate. In the second 1/(2r) = 0. No NaN comes up in either.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.diffusion.guidance import Denoise, GuidanceRule, guided_velocity
from training.diffusion.schedule import ZeroSnrSchedule

Noise = Callable[[Sequence[int]], Tensor]
"""Shape -> normal numbers, on any device; each call is the next draw. See SeededNoise."""


@dataclass(frozen=True)
class SamplingStep:
    """One step done: `x` is the state after it, `estimate` the guided clean latent in it; both float32."""

    step: int  # 0 .. steps - 1
    steps: int
    timestep: int  # what the network was told
    scale: float | None  # of guidance
    x: Tensor
    estimate: Tensor


@dataclass(frozen=True)
class _Coefficients:
    """A step in numbers: x <- state x + estimate (E + extrapolation (E - previous E)) + noise z."""

    state: float
    estimate: float
    extrapolation: float
    noise: float


@dataclass(frozen=True)
class DpmSolverSde:
    """DPM-Solver++(2M) over a schedule. `eta` from 0 (the ODE) to 1 (the SDE).

    `compat` is what upstream's sampler does, draw for draw: it walks along a table rescaled for the number
    of steps, reads the estimate's coefficients at the nearest entry of the training table, which is one
    index beside the timestep for timesteps up to 219 at 50 steps, and throws a draw of noise away in each
    step but the first and last. Without it the states have the very noise levels that the network was
    trained with at the timesteps it is told, and a step draws once."""

    schedule: ZeroSnrSchedule
    steps: int = 50
    eta: float = 1.0
    compat: bool = True

    def __post_init__(self) -> None:
        self.schedule.timesteps(self.steps)  # raises where steps is out of range
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta: expected 0 (deterministic) to 1, got {self.eta}")
        if self.compat and self.eta != 1:
            raise ValueError(
                f"eta: expected 1 as upstream's sampler (compat) has it, got {self.eta}; add compat=False"
            )

    def sample(
        self, denoise: Denoise, x: Tensor, *, guidance: GuidanceRule | None, noise: Noise | None
    ) -> Tensor:
        """The clean latent (B, ...), float32, that the start state leads to. See `trajectory`."""
        for done in self.trajectory(denoise, x, guidance=guidance, noise=noise):
            x = done.x
        return x

    @torch.no_grad()
    def trajectory(
        self, denoise: Denoise, x: Tensor, *, guidance: GuidanceRule | None, noise: Noise | None
    ) -> Iterator[SamplingStep]:
        """Each step as it is done, for progress and previews.

        `x` (B, ...) is the start state: normal noise, used as it is. `denoise` is called with a float32
        state and the timestep of each sample, (B,) float32, and may answer in any floating dtype. With a
        guidance rule it gets the batch twice, unconditional half first (see guidance.py). `noise` may be
        None where eta = 0. Raises ValueError for bad input, and with the step's number where a
        prediction is not finite."""
        _check_start(x)
        if noise is None and self.eta > 0:
            raise ValueError(f"noise: expected SeededNoise or the like for eta = {self.eta}, got None")
        timesteps, table_index, sqrt_alpha = self._walk()
        x, previous = x.float(), None
        for step, by in enumerate(_coefficients(sqrt_alpha, self.eta)):
            timestep = int(timesteps[step])
            scale = guidance(step, self.steps, timestep) if guidance else None
            velocity = self._velocity(denoise, x, timestep, scale, step)
            index = table_index[step].expand(len(x))
            estimate = self.schedule.estimate_clean(x, velocity, index)
            target = estimate
            if previous is not None and by.extrapolation:
                target = estimate + by.extrapolation * (estimate - previous)
            x = by.state * x + by.estimate * target
            if noise is not None and by.noise:
                if self.compat and step > 0:
                    noise(x.shape)  # upstream draws for a first-order step that it then does not take
                x = x + by.noise * _drawn(noise, x)
            previous = estimate
            yield SamplingStep(step, self.steps, timestep, scale, x, estimate)

    def _walk(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each step the timestep, the index of the estimate's coefficients, and the state's a."""
        if not self.compat:
            timesteps = self.schedule.timesteps(self.steps)
            return timesteps, timesteps, self.schedule.sqrt_alpha[timesteps]
        table = self.schedule.subsampled(self.steps)
        return table.timesteps, self.schedule.nearest_index(table.sqrt_alpha), table.sqrt_alpha

    def _velocity(self, denoise: Denoise, x: Tensor, timestep: int, scale: float | None, step: int) -> Tensor:
        timesteps = torch.full((len(x),), float(timestep), device=x.device)
        if scale is None:
            velocity = denoise(x, timesteps).float()
        else:
            velocity = guided_velocity(denoise, x, timesteps, scale)
        if velocity.shape != x.shape:
            raise ValueError(
                f"denoise: expected the state's shape {tuple(x.shape)}, got {tuple(velocity.shape)}"
            )
        if not bool(torch.isfinite(velocity).all()):
            raise ValueError(
                f"denoise: expected finite numbers, got NaN or infinite ones in step {step} of {self.steps}, "
                f"timestep {timestep}"
            )
        return velocity


def _coefficients(sqrt_alpha: Tensor, eta: float) -> list[_Coefficients]:
    """The numbers of every step, in float64, from a at each step's start, falling noise, the first a = 0.

    After the last step a = 1, so h is infinite and the step gives its target as it is: state 0, noise 0,
    estimate 1. To extrapolate over an infinite h has no meaning; the last step takes the estimate itself."""
    a = torch.cat([sqrt_alpha.double(), torch.ones(1, dtype=torch.float64)])
    sigma = (1 - a.square()).sqrt()
    log_snr = (a / sigma).log()  # lambda; -inf first, inf last
    h = log_snr.diff()
    decay = (-h).exp()  # to the power of eta, as 0 ** 0 = 1 where eta h would be 0 inf
    extrapolation = torch.zeros_like(h)
    extrapolation[1:-1] = h[1:-1] / (2 * h[:-2])
    columns = (
        sigma[1:] / sigma[:-1] * decay**eta,
        a[1:] * (1 - decay ** (1 + eta)),
        extrapolation,
        sigma[1:] * (1 - decay ** (2 * eta)).sqrt(),
    )
    return [_Coefficients(*row) for row in torch.stack(columns, dim=1).tolist()]


def _drawn(noise: Noise, x: Tensor) -> Tensor:
    """The next draw, where the state is. Raises ValueError for one of another shape."""
    draw = noise(x.shape)
    if draw.shape != x.shape:
        raise ValueError(f"noise: expected the state's shape {tuple(x.shape)}, got {tuple(draw.shape)}")
    return draw.to(x)


def _check_start(x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(f"x: expected a floating-point dtype, got {x.dtype}")
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"x: expected a batch (B, T, C, H, W) of one sample or more, got {tuple(x.shape)}")
    if bad := int((~torch.isfinite(x)).sum()):
        raise ValueError(
            f"x: expected a finite start state, got {bad} NaN or infinite of {x.numel()} numbers"
        )
