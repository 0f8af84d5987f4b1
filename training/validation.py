"""How good the model is on what it is not trained on, in figures that compare between steps and runs.

    same held-out windows, noise and timesteps each time -> losses at quantiles 0.1 ... 0.9 of the schedule

The windows are shared among the workers, and what is judged is what will be exported: the average of the
weights, where the run keeps one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.batch import Batch
from training.config import TrainConfig
from training.diffusion import SeededNoise, seed_of
from training.fragments import fragments, optimizer_state, spread
from training.optimizer import AVERAGE
from training.start_model import DTYPES

QUANTILES = tuple(tenth / 10 for tenth in range(1, 10))
TIMESTEPS = 1000


@torch.no_grad()
def held_out_losses(engine: Any, batches: Sequence[Batch], config: TrainConfig) -> dict[str, float]:
    """`loss_0.1` ... `loss_0.9`, by quantile of the schedule (0.9: mostly noise), and their mean, `loss`.

    Collective: every worker has as many batches. Empty where nothing is held out.
    """
    if not batches:
        return {}
    engine.eval()
    sums = torch.zeros(len(QUANTILES) + 1, dtype=torch.float64, device=engine.device)
    for batch in batches:
        batch = batch.to(engine.device, DTYPES[config.precision])
        noise = fixed_noise(batch).to(engine.device)
        for at, quantile in enumerate(QUANTILES):
            index = torch.full_like(batch.positions, round(quantile * TIMESTEPS) - 1)
            sums[at] += (engine(batch, index, noise) * batch.weight).sum()
        sums[-1] += batch.weight.sum()
    dist.all_reduce(sums)
    engine.train()
    *losses, samples = sums.tolist()
    if not samples:
        return {}
    values = {f"loss_{quantile}": loss / samples for quantile, loss in zip(QUANTILES, losses, strict=True)}
    return {"loss": sum(values.values()) / len(values), **values}


def fixed_noise(batch: Batch) -> Tensor:
    """Of each held-out sample, by its number alone: the same in every run."""
    return SeededNoise([seed_of("held out", place) for place in batch.positions.tolist()])(
        batch.latents.shape
    )


@contextmanager
def averaged(engine: Any, config: TrainConfig) -> Iterator[None]:
    """The average of the trained weights in their place, where the run keeps one; afterwards the weights are
    as before, bit for bit. Collective, both ways."""
    if config.optimizer.ema_decay is None:
        yield
        return
    _swap_with_average(engine)
    try:
        yield
    finally:
        _swap_with_average(engine)


@torch.no_grad()
def _swap_with_average(engine: Any) -> None:
    for flat in {id(part.flat): part.flat for part in fragments(engine)}.values():
        average = optimizer_state(engine, flat).get(AVERAGE)
        if average is not None:  # a weight that never got a gradient has none
            weights = flat.detach().clone()
            flat.detach().copy_(average)
            average.copy_(weights)
    spread(engine)
