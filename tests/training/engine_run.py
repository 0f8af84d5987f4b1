"""Real engines on a small objective: steps of keyed samples, checkpoints, and what a worker holds.

`run_workers(world, work, folder, *given)` calls a function of this module on every rank of a group that
torchrun starts, and gives back what each rank returned. `alone()` is a group of this process only.
"""

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from data_pipeline import config_file
from tests.training.small_networks import SIZES, filled_model
from training.batch import Batch
from training.config import TrainConfig
from training.diffusion import SeededNoise, ZeroSnrSchedule, seed_of, stratified_indices
from training.engine import set_learning_rate, start_engine
from training.objective import TrainingObjective
from training.phases import choose_trained

REPOSITORY = Path(__file__).parents[2]
SMOOTH = ("optimizer.learning_rate=0.001", "optimizer.clip_norm=1.0", "optimizer.ema_decay=0.9")


def small_config(output: Path, *overrides: str, **values: Any) -> TrainConfig:
    """fp32 and all weights trained, four samples a step; with what is given on top."""
    given = {
        **{"dataset": "none", "output": str(output), "phase": "audio", "model": SIZES.model_dump()},
        **{"trainable": "all", "precision": "fp32", "batch": 4, "device": "cpu"},
    }
    return config_file.checked(TrainConfig, given | values, [*SMOOTH, *overrides], "test")


def small_engine(config: TrainConfig) -> Any:
    """A fresh engine of the configuration's model, as untrained as every other."""
    model = filled_model(config.sizes)
    choose_trained(model, config)
    return start_engine(TrainingObjective(model, ZeroSnrSchedule()), config, torch.device("cpu"))


def take_steps(engine: Any, config: TrainConfig, first: int, last: int) -> list[str]:
    """Steps first ... last - 1; each step's mean loss over all samples, bit for bit (`float.hex`)."""
    losses = []
    for step in range(first, last):
        set_learning_rate(engine, config.optimizer.learning_rate)
        total = torch.zeros(())
        for number in range(config.accumulation):
            total += one_backward(engine, config, step, number).sum()
            engine.step()
        dist.all_reduce(total)
        losses.append((float(total) / config.batch).hex())
    return losses


def one_backward(engine: Any, config: TrainConfig, step: int, number: int) -> torch.Tensor:
    """Of a step's micro-batch; this worker's losses (micro_batch,)."""
    own = range(number * config.micro_batch, (number + 1) * config.micro_batch)
    places = [dist.get_rank() + dist.get_world_size() * place for place in own]
    noise = SeededNoise([seed_of("noise", 0, step, place) for place in places])
    batch = batch_of(config, step, places).to("cpu", next(engine.module.parameters()).dtype)
    index = stratified_indices(places, config.batch, seed=0, step=step)
    loss = engine(batch, index, noise(batch.latents.shape))
    engine.backward(loss.mean())
    return loss.detach()


def batch_of(config: TrainConfig, step: int, places: list[int]) -> Batch:
    """Samples that depend on the step and each one's place, whoever asks."""

    def drawn(what: str, *shape: int) -> torch.Tensor:
        return SeededNoise([seed_of(what, 0, step, place) for place in places])((len(places), *shape))

    return Batch(
        positions=torch.tensor(places),
        weight=torch.ones(len(places)),
        latents=drawn("latents", 3, 16, 8, 8),
        image_condition=drawn("image", 1, 16, 8, 8),
        reference_latent=drawn("reference", 1, 16, 8, 8),
        text=drawn("text", 4, 8),
        face=drawn("face", 16),
        audio=drawn("audio", 9, 3, 2, 8) if config.sizes.audio else None,
        mouth=None,
        keys=tuple(f"clip/{place}" for place in places),
    )


@contextmanager
def alone() -> Iterator[None]:
    """A process group of one, in this process, for engines."""
    import deepspeed.comm

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with patch.dict(os.environ, LOCAL_RANK="0"):  # DeepSpeed insists
            yield
    finally:
        deepspeed.comm.destroy_process_group()  # with what engines made of it


def run_workers(world: int, work: str, folder: Path, *given: Any) -> list[Any]:
    """What `work` ("module.function") returned on each rank, given `given`; what it raised is raised here."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "given.pickle").write_bytes(pickle.dumps(given))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    done = subprocess.run(
        [*command, "-m", "tests.training.engine_run", work, str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(world)]  # noqa: S301


def main(work: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    module, _, function = work.rpartition(".")
    given = pickle.loads((folder / "given.pickle").read_bytes())  # noqa: S301
    done = getattr(importlib.import_module(module), function)(*given)
    (folder / f"{dist.get_rank()}.pickle").write_bytes(pickle.dumps(done))
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes abort an interpreter that ends by itself


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
