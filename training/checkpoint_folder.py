"""RUN/checkpoints on the disk: what a whole checkpoint is, which one counts, and which ones stay.

    .step-00000100.partial/  is being written, or was when its run died: swept when the next one begins
    step-00000100/           checkpoint.json and every worker's fragments (fragment_files.py)
    latest                   the name of the one to go on from: written last of all

So whenever a run is killed, `latest` names a whole checkpoint, or there is none yet. Nothing here needs the
other workers or an engine.
"""

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_pipeline.storage import replacing
from training.config import CheckpointsConfig
from training.fragment_files import CheckpointError, FragmentFiles
from training.optimizer import AVERAGE
from training.run_folder import CHECKPOINTS

LATEST = "latest"
CONTENTS = "checkpoint.json"
WEIGHT = "weight"
"""The kind of fragment that is the weights themselves; the others are the optimizer's names."""

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """How far a run is. The order of samples and all randomness follow from the step."""

    step: int = 0
    """Steps done."""
    seen_samples: int = 0
    bad_samples: int = 0
    skipped_steps: int = 0
    """With a gradient that was not finite."""
    skipped_in_a_row: int = 0
    samples: dict[str, Any] = field(default_factory=dict)
    """What it is trained on: `Samples.about()`."""


@dataclass(frozen=True)
class Contents:
    """checkpoint.json"""

    state: TrainState
    adam_steps: int
    """Steps that were not left out."""
    averaged: bool
    """Whether it has an average of the weights."""
    world_size: int
    zero_stage: int
    config: dict[str, Any]
    """The run's configuration when it was saved."""
    parameters: dict[str, tuple[int, ...]]
    """Shapes of what is trained."""
    files: dict[str, int]
    """Bytes of each worker's file."""


def latest(output: Path) -> Path | None:
    """The checkpoint that the run in a folder goes on from; None before its first.

    Raises CheckpointError: it is not whole.
    """
    pointer = output / CHECKPOINTS / LATEST
    if not pointer.exists():
        return None
    found = pointer.parent / pointer.read_text("utf-8").strip()
    try:
        contents(found)
    except CheckpointError as error:
        whole = [other.name for other in _saved(pointer.parent) if other != found and _is_whole(other)]
        others = (
            f"write the name of a whole one ({', '.join(whole)}) into it" if whole else "no other is whole"
        )
        raise CheckpointError(
            f"{pointer} names {found.name}, and {error}; {others}, or remove {pointer} to begin anew"
        ) from None
    return found


def contents(checkpoint: Path) -> Contents:
    """What is in a checkpoint. Raises CheckpointError where it, or a file of it, is not whole."""
    path = checkpoint / CONTENTS
    try:
        values = json.loads(path.read_text("utf-8"))
        shape = {name: tuple(sizes) for name, sizes in values.pop("parameters").items()}
        found = Contents(state=TrainState(**values.pop("state")), parameters=shape, **values)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error!r})") from None
    for name, size in found.files.items():
        file = checkpoint / name
        if not file.exists():
            raise CheckpointError(f"{file} is missing")
        if (there := file.stat().st_size) != size:
            raise CheckpointError(f"{file} has {there} bytes, and had {size} when it was written")
    return found


def read_weights(checkpoint: Path, averaged: bool) -> dict[str, Tensor]:
    """The trained weights, whole, float32 on the CPU; the averages instead, where asked and there.

    Raises CheckpointError.
    """
    found = contents(checkpoint)
    files = FragmentFiles(checkpoint / name for name in found.files)
    kind = AVERAGE if averaged and found.averaged else WEIGHT
    weights = {}
    for name, shape in found.parameters.items():
        elements = torch.empty(prod(shape))
        files.read(kind, name, 0, into=elements)
        weights[name] = elements.view(shape)
    return weights


def begun(partial: Path, final: Path) -> bool:
    """Sweep what killed runs left and make the folder to write into; or True: it is saved already."""
    folder = final.parent
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(partial_of(folder / "step-*").name):
        shutil.rmtree(left)
    if final.exists() and pointed_at(folder) == final.name and _is_whole(final):
        return True
    if final.exists():  # the run was set back to an earlier one
        _remove(final)
    partial.mkdir()
    return False


def finish(partial: Path, final: Path, about: Contents) -> None:
    """From all workers' files to a checkpoint that `latest` names."""
    with (partial / CONTENTS).open("w", encoding="utf-8") as file:
        json.dump(asdict(about), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(partial)
    partial.rename(final)
    _sync(final.parent)
    with replacing(final.parent / LATEST) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f"{final.name}\n")
        file.flush()
        os.fsync(file.fileno())
    _sync(final.parent)


def retire(newest: Path, policy: CheckpointsConfig) -> None:
    """Remove what the policy does not keep. A failure is no reason to end a run: the next time sweeps."""
    so_far = [path for path in _saved(newest.parent) if _step(path) <= _step(newest)]
    for path in so_far[: -policy.keep_last]:
        if policy.keep_every_steps and _step(path) % policy.keep_every_steps == 0:
            continue
        try:
            _remove(path)
        except OSError as error:
            log.warning("an old checkpoint stays: %s", error)


def _remove(path: Path) -> None:
    """Renamed first, so that nothing half-removed looks whole."""
    shutil.rmtree(path.rename(partial_of(path)))


def _saved(folder: Path) -> list[Path]:
    """Whole checkpoints, or what claims to be, by step."""
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def partial_of(path: Path) -> Path:
    """The name of a checkpoint that is not whole yet, or no more."""
    return path.with_name(f".{path.name}.partial")


def pointed_at(folder: Path) -> str | None:
    """What `latest` says."""
    pointer = folder / LATEST
    return pointer.read_text("utf-8").strip() if pointer.exists() else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        contents(checkpoint)
    except CheckpointError:
        return False
    return True


def _sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
