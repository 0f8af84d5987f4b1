"""Which index of the noise table each sample of a training batch gets.

Stratified: the table is cut into as many equal parts as the batch has places, and each place draws
uniformly from its own part. Every index is as likely as before over a batch, and the batch's loss varies
less from step to step, as no batch is all noise or all clean (CogVideoX 2024 calls it "explicit uniform
sampling").

Upstream cuts by data-parallel rank (`stratified_range`), so what is drawn depends on the number of
workers. Here places are those of the global batch (`stratified_indices`), so it does not.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from training.diffusion.noise import seed_of


def stratified_range(rank: int, world_size: int, num_timesteps: int = 1000) -> range:
    """The indices that upstream's data-parallel rank draws from, uniformly.

    There are as many parts as divide both the ranks and the table; neighbouring ranks share one. With 6
    ranks and 1000 indices that is 2 parts of 500, with 7 ranks a single one. Raises ValueError."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: expected 0 to world_size - 1 = {world_size - 1}, got {rank}")
    groups = math.gcd(world_size, num_timesteps)
    size = num_timesteps // groups
    start = rank // (world_size // groups) * size
    return range(start, start + size)


def stratified_indices(
    positions: Iterable[int], batch_size: int, *, seed: int, step: int, num_timesteps: int = 1000
) -> Tensor:
    """The indices of these places of a global batch of `batch_size`: one for each place, int64.

    Place p of N draws u uniformly from [p/N, (p+1)/N) and gets floor(u num_timesteps): for any N every
    index has the same chance over the batch, and where N divides num_timesteps the parts share none. The
    draw follows from (seed, step, place) alone. Raises ValueError for a place that is not in the batch."""
    places = list(positions)
    for place in places:
        if not 0 <= place < batch_size:
            raise ValueError(f"positions: expected 0 to batch_size - 1 = {batch_size - 1}, got {place}")
    return torch.tensor([_index(place, batch_size, seed, step, num_timesteps) for place in places]).long()


def _index(place: int, batch_size: int, seed: int, step: int, num_timesteps: int) -> int:
    # In whole numbers: a fraction just below (p+1)/N would round up, into the next part.
    fraction = seed_of("timestep", seed, step, place)  # of 2^63
    return ((place << 63) + fraction) * num_timesteps // (batch_size << 63)
