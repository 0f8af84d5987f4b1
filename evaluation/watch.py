"""Every new checkpoint of a training run is scored once, also over restarts.

    RUN/checkpoints/step-N, RUN/export -> steps that are not done -> OUTPUT/step-N/export -> score
      done -> OUTPUT/step-N/watched.json, written last; then the exported weights go

Training goes on meanwhile: it may replace its export, or take an old checkpoint away, at any time.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.storage import replacing
from evaluation.animator import WEIGHT_FILES
from training.checkpoint import contents
from training.config import TrainConfig
from training.export import EXPORT, export
from training.fragment_files import CheckpointError
from training.run_folder import CHECKPOINTS, RunFolderError, saved_config

WATCHED = "watched.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Of one scoring."""

    status: int
    """As the command's exit status."""
    done: bool
    """Whether it need not be tried again: figures are there, and sent."""


Score = Callable[[Path, Path, int], Outcome]
"""Scores a checkpoint (a folder with its export) into an output; the step is for words."""


def watch(run: Path, output: Path, score: Score, every_s: float) -> int:
    """Score what there is and what comes, until the run's last step is scored; the last one's exit status.

    Args:
        every_s: between two looks; 0: one look, at what there is now.

    Raises:
        RunFolderError: the folder is no training run's.
        What `score` raises.
    """
    status = 0
    while True:
        config = _config(run)
        for step in _new_steps(run, output):
            status = _scored(run, config, output / _name(step), step, score, status)
        if every_s == 0 or (output / _name(config.max_steps) / WATCHED).exists():
            return status
        time.sleep(every_s)


def step_of_export(folder: Path) -> int | None:
    """The step whose weights an export has; None: there is none, or it is being replaced."""
    try:
        described = json.loads((folder / "config.json").read_text("utf-8"))
        return int(described["training"]["state"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _config(run: Path) -> TrainConfig:
    config = saved_config(run)
    if config is None:
        raise RunFolderError(f"--watch {run}: is no training run's folder: it has no config.yaml")
    return config


def _new_steps(run: Path, output: Path) -> Iterator[int]:
    """Those that are not done, the first one first: of the run, and taken from it before."""
    found = {step_of_export(run / EXPORT), *map(step_of_export, output.glob(f"step-*/{EXPORT}"))}
    names = (path.name.removeprefix("step-") for path in (run / CHECKPOINTS).glob("step-*"))
    found |= {int(name) for name in names if name.isdigit()}
    for step in sorted(step for step in found if step is not None):
        if not (output / _name(step) / WATCHED).exists():
            yield step


def _scored(run: Path, config: TrainConfig, output: Path, step: int, score: Score, before: int) -> int:
    try:
        _take_export(run, config, output / EXPORT, step)
    except (CheckpointError, FileNotFoundError) as error:  # it is being written, or the run took it away
        log.warning("step %d cannot be exported now: %s", step, error)
        return before
    outcome = score(output, output, step)
    if outcome.done:
        with replacing(output / WATCHED) as temporary:
            temporary.write_text(json.dumps({"run": str(run), "step": step, "status": outcome.status}))
        for file in (output / EXPORT).rglob("*"):
            if file.suffix in WEIGHT_FILES:
                file.unlink()
    return outcome.status


def _take_export(run: Path, config: TrainConfig, place: Path, step: int) -> None:
    """The weights of a step, where the run cannot change them."""
    weights = any(file.suffix in WEIGHT_FILES for file in place.glob("*"))
    if weights and step_of_export(place) == step:
        return
    if step_of_export(run / EXPORT) == step:
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(run / EXPORT, partial, copy_function=_link)
        if step_of_export(partial) == step:
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
            return
    checkpoint = run / CHECKPOINTS / _name(step)
    contents(checkpoint)  # it is whole
    place.parent.mkdir(parents=True, exist_ok=True)
    export(checkpoint, config, place)


def _link(source: str, place: str) -> None:
    """The same bytes under another name, where the disk can; the run replaces files and never writes in
    them."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)


def _name(step: int) -> str:
    return f"step-{step:08d}"
