"""How weights move: AdamW with an average of the weights beside its moments, and the learning rate of a step.

ZeRO shares whatever lies in an optimizer's state, so the average (an exponential moving one, of trained
weights only) is sharded, offloaded and saved as the moments are.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from training.config import OptimizerConfig

AVERAGE = "average"
WARM_UP = 10
"""The average's first steps weigh more: its decay is at most (1 + t) / (WARM_UP + t)."""


class AveragingAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019); `state[p]["average"]` follows the weights with decay `ema_decay`.

    Args:
        ema_decay: None: no average.
        clip_norm: clip the gradient to it (0: not), refuse a step whose gradient is not finite, and say so
            in `overflow`: what DeepSpeed does for us in ZeRO 1 to 3, not in 0. None: leave it to DeepSpeed.
    """

    def __init__(
        self, params: Iterable[Any], *, ema_decay: float | None, clip_norm: float | None, **options: Any
    ) -> None:
        super().__init__(params, **options)
        self.ema_decay = ema_decay
        self.clip_norm = clip_norm
        self.overflow = False
        self.norm: float | None = None
        """Of the last gradient before it was clipped, where that is done here."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step, unless it is refused."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        if self.clip_norm is not None:
            self.overflow = not self._clip(weights, self.clip_norm)
            if self.overflow:
                return
        super().step()
        if self.ema_decay is not None:
            for weight in weights:
                self._follow(weight, self.ema_decay)

    def _clip(self, weights: list[Tensor], clip_norm: float) -> bool:
        """Whether the gradient is finite, which is clipped then."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.norm = float(norm)
        if clip_norm and math.isfinite(self.norm):
            torch.nn.utils.clip_grads_with_norm_(weights, clip_norm, norm)
        return math.isfinite(self.norm)

    def _follow(self, weight: Tensor, ema_decay: float) -> None:
        state = self.state[weight]
        if not state:  # has no gradient
            return
        if AVERAGE not in state:
            state[AVERAGE] = weight.detach().clone()
            return
        steps = float(state["step"])
        state[AVERAGE].lerp_(weight, 1 - min(ema_decay, (1 + steps) / (WARM_UP + steps)))


def learning_rate(config: OptimizerConfig, step: int, max_steps: int) -> float:
    """The learning rate of step 0 ... max_steps - 1: a straight warm-up, then constant, or down to
    `final_fraction` of it in a straight line or half a cosine."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * left)
