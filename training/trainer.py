"""The loop.

    a step's micro-batches -> noise and timesteps by place -> forward, backward, added up
      -> clipped, AdamW, average (engine.py)
      -> one exchange between the workers: losses, broken samples, times, whether to stop
    now and then: the held-out loss and sample clips, a checkpoint

Whatever is random follows from (seed, step, place), so a run that goes on is the run that was not broken off.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from training.batch import Batch
from training.checkpoint import TrainState, latest, save
from training.config import TrainConfig
from training.diffusion import SeededNoise, seed_of, stratified_indices
from training.engine import gradient_norm, set_learning_rate, step_was_left_out
from training.optimizer import learning_rate
from training.run_folder import STOP
from training.start_model import DTYPES
from training.step_figures import Stopwatch, Told, exchange, mfu_of_sample, peak_memory_gb

SKIPPED_IN_A_ROW = 10
JUDGED_FROM_SAMPLES = 100
"""Before so many, one broken sample would be too large a share."""


class TrainerError(Exception):
    """A run that must not go on; the message says why, and what is left of it."""


def train(
    engine: Any,
    samples: Iterator[list[Batch]],
    state: TrainState,
    config: TrainConfig,
    log: Callable[[int, dict[str, float]], None],
    judge: Callable[[int], None],
) -> bool:
    """From `state.step` to `max_steps`, or until asked to stop; whether the end was reached. Collective.

    Args:
        samples: from `state.step` on.
        log: is given every step's number (1 for the first) and its figures.
        judge: called every `validation.every_steps` and at the end; never where that is None.

    Raises:
        TrainerError: ten steps in a row without a finite gradient, or too many broken samples.
        OSError, CheckpointError: a checkpoint could not be saved; the one before is as it was.
    """
    mfu = mfu_of_sample(config, engine.device)
    while state.step < config.max_steps:
        whole, wait = Stopwatch(), Stopwatch()
        batches = next(samples)
        wait_s = wait.seconds
        rate = learning_rate(config.optimizer, state.step, config.max_steps)
        set_learning_rate(engine, rate)
        loss_sum, n_whole, n_broken = _step(engine, batches, state.step, config)
        told = exchange(
            Told(
                loss_sum=loss_sum,
                samples=n_whole,
                bad_samples=n_broken,
                wait_s=wait_s,
                step_s=whole.seconds,
                peak_memory_gb=peak_memory_gb(engine.device),
                stop=float((Path(config.output) / STOP).exists()),
            ),
            engine.device,
        )
        _count(state, told.bad_samples // config.sequence_parallel, step_was_left_out(engine), config)
        log(
            state.step,
            told.figures(config, mfu)
            | {"gradient_norm": gradient_norm(engine), "learning_rate": rate}
            | {"bad_samples": state.bad_samples, "skipped_steps": state.skipped_steps},
        )
        _guard(state, config)
        if _due(state.step, config.validation.every_steps, config):
            judge(state.step)
        if told.stop or _due(state.step, config.checkpoints.every_steps, config):
            save(engine, state, config)
        if told.stop:
            break
    return state.step == config.max_steps


def _step(engine: Any, batches: list[Batch], step: int, config: TrainConfig) -> tuple[float, float, float]:
    """One step of the weights: this worker's sum of losses, its samples, and its broken samples."""
    torch.manual_seed(seed_of("dropout", config.seed, step, torch.distributed.get_rank()))
    loss_sum = torch.zeros((), device=engine.device)
    n_whole = sum(float(batch.weight.sum()) for batch in batches)
    for batch in batches:
        places = batch.positions.tolist()
        index = stratified_indices(places, config.batch, seed=config.seed, step=step)
        noise = SeededNoise([seed_of("noise", config.seed, step, place) for place in places])
        batch = batch.to(engine.device, DTYPES[config.precision])
        losses = engine(batch, index.to(engine.device), noise(batch.latents.shape).to(engine.device))
        weighted = (losses * batch.weight).sum()
        engine.backward(weighted / config.micro_batch)  # the engine divides by accumulation and workers
        engine.step()
        loss_sum += weighted.detach()
    return float(loss_sum), n_whole, len(batches) * config.micro_batch - n_whole


def _count(state: TrainState, n_broken: int, left_out: bool, config: TrainConfig) -> None:
    state.step += 1
    state.seen_samples += config.batch
    state.bad_samples += n_broken
    state.skipped_steps += left_out
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if left_out else 0


def _guard(state: TrainState, config: TrainConfig) -> None:
    """End a run that learns nothing any more, or not what it was given. Raises TrainerError."""
    if state.skipped_in_a_row >= SKIPPED_IN_A_ROW:
        good = latest(Path(config.output))
        raise TrainerError(
            f"the gradient was not finite in {SKIPPED_IN_A_ROW} steps in a row, the last is {state.step}; "
            + (f"the last checkpoint is {good}" if good else "there is no checkpoint yet")
            + "; go on from there with a smaller optimizer.learning_rate or another seed (--allow-change)"
        )
    share = state.bad_samples / state.seen_samples
    if state.seen_samples >= JUDGED_FROM_SAMPLES and share > config.samples.max_bad_fraction:
        raise TrainerError(
            f"{state.bad_samples} of {state.seen_samples} samples are broken ({share:.1%}), more than "
            f"samples.max_bad_fraction={config.samples.max_bad_fraction:g} allows; the workers' words above "
            "name the clips, `hallo3 dataset verify` says what is wrong with the dataset"
        )


def _due(step: int, every_steps: int | None, config: TrainConfig) -> bool:
    return every_steps is not None and (step % every_steps == 0 or step == config.max_steps)
