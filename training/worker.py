"""One worker of a run, whoever launched it: the process group is there, the device is chosen.

    config -> encoders, model, engine, samples; the state of RUN/checkpoints/latest where there is one
      -> the loop (trainer.py)
      -> rank 0: metrics.jsonl and reports to the driver; sample clips, report.html; at the end RUN/export

Nothing here depends on Ray.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from training.checkpoint import TrainState, latest, restore
from training.config import TrainConfig
from training.diffusion import ZeroSnrSchedule
from training.encoders import Encoders, load_encoders
from training.engine import deepspeed_config, start_engine
from training.export import export
from training.metrics import Kind, MetricsLog
from training.model.patch_pca import PatchPcaAutoencoder
from training.objective import TrainingObjective
from training.previews import sample_clips
from training.report import write_report
from training.run_folder import METRICS
from training.samples import Samples, held_out
from training.start_model import start_model
from training.trainer import train
from training.validation import averaged, held_out_losses

Report = Callable[[dict[str, Any]], None]

DEEPSPEED = "deepspeed.json"

log = logging.getLogger(__name__)


def train_worker(config: TrainConfig, report: Report | None) -> dict[str, Any]:
    """This worker's part of the run, from the last checkpoint on; the run's state at its end.

    Args:
        config: `device` is cpu or cuda, `encoders.autoencoder` names one.
        report: rank 0's, to whoever watches; None on the others.

    Raises:
        TrainerError, SamplesError, EncodersError, CheckpointError, WeightsError, OSError: in words.
    """
    device, data_rank = _device(config), dist.get_rank() // config.sequence_parallel
    encoders = load_encoders(config.encoders, config.sizes, str(device))
    engine = start_engine(_objective(config, encoders), config, device)
    if dist.get_rank() == 0:
        text = json.dumps(deepspeed_config(config), indent=2)
        (Path(config.output) / DEEPSPEED).write_text(f"{text}\n", "utf-8")
    found = latest(Path(config.output))
    state = restore(engine, found, config) if found else TrainState()
    judged = held_out(config, encoders, data_rank) if config.validation.every_steps else []
    with Samples(config, encoders, data_rank, state.step) as samples, Journal(config, report, state) as told:
        state.samples = samples.about()
        told.event(state.step, f"goes on from {found}" if found else "begins")

        def judge(step: int) -> None:
            with averaged(engine, config):
                told.row(step, "held_out", held_out_losses(engine, judged, config))
                failed = sample_clips(engine.module.model, encoders, config, step).failed
            for clip, words in failed.items():
                told.event(step, f"no sample clip of {clip}: {words}")
            _report(config)

        ended = train(engine, iter(samples), state, config, told.step, judge)
        if ended and dist.get_rank() == 0:
            told.event(state.step, f"exported to {_export(config)}")
        _report(config)
    return asdict(state)


class Journal:
    """RUN/metrics.jsonl and the driver's reports, of rank 0; of the others nothing is written."""

    def __init__(self, config: TrainConfig, report: Report | None, state: TrainState) -> None:
        self._max_steps = config.max_steps
        self._report = report
        first = dist.get_rank() == 0
        self._log = MetricsLog(Path(config.output) / METRICS, state.step) if first else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """A step's figures."""
        self.row(step, "train", figures)

    def event(self, step: int, words: str) -> None:
        """What happened, as a person wants to know it."""
        self.row(step, "event", {"event": words})

    def row(self, step: int, kind: Kind, values: Mapping[str, Any]) -> None:
        """One line, to the file and to whoever watches. Nothing of no values."""
        if self._log is None or not values:
            return
        self._log.write(step, kind, time.time(), values)
        if self._report is not None:
            self._report({"step": step, "kind": kind, "max_steps": self._max_steps, **values})


def _objective(config: TrainConfig, encoders: Encoders) -> TrainingObjective:
    """The model as the run begins with it, and what is minimised."""
    model = start_model(config).model
    if config.sequence_parallel > 1:
        model.share_samples(_own_group(config.sequence_parallel))
    if config.compile_blocks:
        model.compile_blocks()
    autoencoder, weights = encoders.autoencoder, None
    if config.loss.channel_weights and isinstance(autoencoder, PatchPcaAutoencoder):
        weights = autoencoder.channel_weights
    return TrainingObjective(model, ZeroSnrSchedule(), config.loss.mouth_weight, weights)


def _own_group(size: int) -> dist.ProcessGroup | None:
    """This worker's group of neighbours that compute each sample together. Collective."""
    ranks = range(dist.get_world_size())
    groups = {first: dist.new_group([*ranks[first : first + size]]) for first in ranks[::size]}
    return groups[dist.get_rank() // size * size]


def _device(config: TrainConfig) -> torch.device:
    """This worker's; its node's GPUs are numbered by local rank."""
    if config.device == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _report(config: TrainConfig) -> None:
    """RUN/report.html, by rank 0. It can be written again any time: no reason to end a run."""
    if dist.get_rank() == 0:
        try:
            write_report(Path(config.output))
        except OSError as error:
            log.warning("the report was not written: %s", error)


def _export(config: TrainConfig) -> Path:
    """Of the last step, which is saved when a run has ended."""
    found = latest(Path(config.output))
    if found is None:
        raise FileNotFoundError(f"{config.output} has no checkpoint to export")
    return export(found, config)
