"""The state of a run: saved by all workers, restored by as many as there are next time.

    save     each worker: its fragments (fragments.py) -> rank-00000-of-00002.safetensors
             all of them succeeded -> the first: checkpoint.json, `latest` (checkpoint_folder.py)
    restore  checkpoint.json held against this run -> each worker reads the byte ranges of its own fragments

Trained weights are kept in float32 with AdamW's moments and the average, by parameter name and first element:
another number of workers or another ZeRO stage goes on from the same bits. Frozen weights are not kept: they
come from `start_from` or the seed as they did the first time.

All workers must see RUN in one file system. What goes wrong for one goes wrong for all, in the same words.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch.distributed as dist
from torch import Tensor

from training.checkpoint_folder import (
    WEIGHT,
    Contents,
    TrainState,
    begun,
    contents,
    finish,
    latest,
    partial_of,
    pointed_at,
    read_weights,
    retire,
)
from training.config import TrainConfig
from training.fragment_files import CheckpointError, FragmentFiles, write_fragments
from training.fragments import (
    STATE,
    Fragment,
    adam_steps,
    empty_state,
    fragments,
    optimizer_state,
    shapes,
    spread,
)
from training.model.sizes import differences
from training.model.weights_map import listed
from training.optimizer import AVERAGE
from training.run_folder import CHECKPOINTS

__all__ = [
    "CheckpointError",
    "Contents",
    "TrainState",
    "check_same",
    "contents",
    "latest",
    "read_weights",
    "restore",
    "save",
]

Result = TypeVar("Result")


def save(engine: Any, state: TrainState, config: TrainConfig) -> Path:
    """Write RUN/checkpoints/step-N, N = state.step, whole or not at all. Collective.

    A step that is saved already is not saved again.

    Raises:
        OSError: on all workers, where the disk of one is full or fails; `latest` is as before.
        CheckpointError: the workers do not share RUN.
    """
    folder = Path(config.output) / CHECKPOINTS
    final = folder / f"step-{state.step:08d}"
    partial = partial_of(final)
    try:
        if _first_agreed(lambda: begun(partial, final)):
            return final
        written = _agreed(lambda: _write_own(engine, partial))
        about = Contents(
            state=state,
            adam_steps=adam_steps(engine),
            averaged=any(AVERAGE in held for held in engine.basic_optimizer.state.values()),
            world_size=dist.get_world_size(),
            zero_stage=engine.zero_optimization_stage(),
            config=config.model_dump(mode="json"),
            parameters=shapes(engine),
            files=dict(written),
        )
        _first_agreed(lambda: finish(partial, final, about))
    except OSError as error:
        _tell_of_disk(error, state.step, folder)
    finally:
        if _rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
    if _rank() == 0:
        retire(final, config.checkpoints)
    return final


def restore(engine: Any, checkpoint: Path, config: TrainConfig) -> TrainState:
    """Give a fresh engine the weights, moments and averages of a checkpoint. Collective.

    Raises:
        CheckpointError: on all workers, where it is not whole for one, or of a run with other parameters.
    """
    state = _agreed(lambda: _read_own(engine, checkpoint, config))[_rank()]
    spread(engine)
    return state


def check_same(
    checkpoint: Path, found: Contents, ours: Mapping[str, tuple[int, ...]], config: TrainConfig
) -> None:
    """Refuse a checkpoint of other parameters, with all that differs."""
    theirs, problems = found.parameters, []
    for key, value in (("phase", config.phase), ("trainable", config.trainable)):
        if found.config.get(key) != value:
            problems.append(f"{key} is {value}, it has {found.config.get(key)}")
    other = [name for name in theirs if name in ours and theirs[name] != ours[name]]
    if other:
        shown = [f"{name}: {ours[name]}, it has {theirs[name]}" for name in other]
        problems.append(f"{len(other)} parameters have other sizes ({listed(shown)})")
    if missing := [name for name in ours if name not in theirs]:
        problems.append(f"{len(missing)} trained parameters are not in it ({listed(missing)})")
    if more := [name for name in theirs if name not in ours]:
        problems.append(f"it has {len(more)} parameters that are not trained here ({listed(more)})")
    if problems:
        hint = differences(theirs, ours)
        raise CheckpointError(
            f"{checkpoint} is of another configuration: {'; '.join(problems)}"
            f"{f'. {hint}' if hint else ''}. Give the run's own configuration, or another output"
        )


def _write_own(engine: Any, partial: Path) -> tuple[str, int]:
    rank, world_size = _rank(), dist.get_world_size()
    if not partial.is_dir():
        raise CheckpointError(
            f"worker {rank} does not see {partial}, which the first one made; all workers need the run's "
            "folder in one file system: give an output that all nodes share"
        )
    own = fragments(engine) if rank == 0 or engine.zero_optimization_stage() else []
    path = partial / f"rank-{rank:05d}-of-{world_size:05d}.safetensors"
    return path.name, write_fragments(path, _tensors(engine, own))


def _tensors(engine: Any, own: list[Fragment]) -> Iterator[tuple[str, str, int, Tensor]]:
    for fragment in own:
        yield WEIGHT, fragment.name, fragment.start, fragment.of(fragment.flat)
        state = optimizer_state(engine, fragment.flat)
        for kind in STATE:
            if kind in state:
                yield kind, fragment.name, fragment.start, fragment.of(state[kind])


def _read_own(engine: Any, checkpoint: Path, config: TrainConfig) -> TrainState:
    found = contents(checkpoint)
    check_same(checkpoint, found, shapes(engine), config)
    files = FragmentFiles(checkpoint / name for name in found.files)
    wanted = STATE if config.optimizer.ema_decay is not None else STATE[:-1]
    kinds = tuple(kind for kind in wanted if kind in files.kinds)
    own = fragments(engine)
    if found.adam_steps:
        flats = {id(fragment.flat): fragment.flat for fragment in own}
        empty_state(engine, [*flats.values()], kinds, found.adam_steps)
    for fragment in own:
        files.read(WEIGHT, fragment.name, fragment.start, into=fragment.of(fragment.flat))
        for kind in kinds:
            held = fragment.of(optimizer_state(engine, fragment.flat)[kind])
            files.read(kind, fragment.name, fragment.start, into=held)
    return found.state


def _agreed(work: Callable[[], Result]) -> list[Result]:
    """The results of all workers in their order; where one fails, its error is raised by all. Collective."""
    own: Exception | None = None
    said: tuple[Any, ...]
    try:
        said = ("done", work())
    except OSError as error:
        own, said = error, ("disk", error.errno, error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 - a worker that is silent would keep all others waiting
        ours = isinstance(error, CheckpointError)
        own, said = error, ("else", str(error) if ours else f"{type(error).__name__}: {error}")
    heard: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(heard, said)
    for kind, *what in heard:
        if kind == "disk":
            raise OSError(*what) from own
        if kind == "else":
            raise CheckpointError(what[0]) from own
    return [result for _, result in heard]


def _first_agreed(work: Callable[[], Result]) -> Result | None:
    """The result of the first worker's work; its error is raised by all. Collective."""
    return _agreed(lambda: work() if _rank() == 0 else None)[0]


def _tell_of_disk(error: OSError, step: int, folder: Path) -> NoReturn:
    named = pointed_at(folder)
    whole = f"{named} is whole, and the same command goes on from it" if named else "there is none before it"
    raise OSError(
        error.errno,
        f"{error.strerror or error}, while the checkpoint of step {step} was written; {whole}. Free some "
        "space, or keep fewer (checkpoints.keep_last, keep_every_steps)",
        str(folder),
    ) from error


def _rank() -> int:
    return dist.get_rank()
