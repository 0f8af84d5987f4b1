"""What becomes of a run when a worker fails: another start, or the end in one sentence.

exceptions of a group's workers -> RUN/error.txt, all of them, with their traces
  one that another start would meet again (wrong input, a full disk, a full GPU, a bug) -> TrainingEnded
  else (a worker or node is gone, and what its peers see of it)                        -> another start
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray.train import UserCallback

from training.config import TrainConfig
from training.run_folder import ERROR

STAYS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT)
"""What the system says of disks that no second try mends."""


class TrainingEnded(Exception):
    """A run that cannot go on; the message is one sentence, RUN/error.txt has the rest."""


@dataclass
class Failures(UserCallback):
    """In Ray's controller: which failures another start may mend."""

    output: str
    reports: Any
    starts: int = 1

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ends the run with the first error that another start would meet again; tells of the others."""
        for rank, error in sorted(worker_exceptions.items()):
            if of_ray(error):
                note(self.output, f"worker {rank}: {error}")
            elif not mendable(error):
                raise TrainingEnded(words_of(error))
        self.starts += 1
        event = f"{_why(worker_exceptions)}; start {self.starts} of all workers, from the last checkpoint"
        self.reports.put_nowait({"event": event})


def mendable(error: BaseException) -> bool:
    """Whether another start may go well: what survivors of a lost worker see, a device or a disk that failed.

    PyTorch says with a bare RuntimeError that a peer is gone. Wrong input, full disks and full GPUs stay.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, OSError):
        return error.errno not in STAYS
    lost = (torch.distributed.DistError, torch.AcceleratorError)
    return type(error) is RuntimeError or isinstance(error, lost)


def words_of(error: BaseException) -> str:
    """An error as one says it: ours are sentences; of others, the kind as well."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory is full; `hallo3 plan` with the same configuration says what would fit"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    said = str(error).strip()
    ours = type(error).__module__.partition(".")[0] in ("training", "data_pipeline")
    return said if ours and said else f"{type(error).__name__}: {said.partition(chr(10))[0]}"


def of_ray(error: BaseException) -> bool:
    """Whether it is Ray that speaks: the worker itself is gone, or does not answer."""
    return type(error).__module__.partition(".")[0] == "ray"


def note(output: str, words: str) -> None:
    """Add to RUN/error.txt what is too long for a terminal."""
    with (Path(output) / ERROR).open("a", encoding="utf-8") as file:
        file.write(f"{words.rstrip()}\n\n")


def sentence(error: BaseException, config: TrainConfig) -> str:
    """Why Ray gave up."""
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    cause = error
    while (inner := getattr(cause, "controller_failure", None)) is not None:
        cause = inner
    if isinstance(cause, TrainingEnded):
        return str(cause)
    if isinstance(cause, WorkerGroupStartupTimeoutError):
        return _no_place(config)
    trace = Path(config.output) / ERROR
    if isinstance(cause, WorkerGroupError):
        return (
            f"workers failed {config.ray.max_failures + 1} times, and ray.max_failures is "
            f"{config.ray.max_failures}: {_why(cause.worker_failures)}. "
            f"What they said is in {trace}; the same command goes on from the last checkpoint"
        )
    note(config.output, str(error))
    return f"Ray Train ended: {words_of(cause)}; more is in {trace}"


def _why(errors: dict[int, Exception]) -> str:
    lost = sorted(rank for rank, error in errors.items() if of_ray(error))
    if lost:
        return f"worker {', '.join(map(str, lost))} was lost"
    return words_of(next(iter(errors.values())))


def _no_place(config: TrainConfig) -> str:
    import ray

    there = ray.cluster_resources()
    have = ", ".join(f"{there.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
    nodes = sum(node["Alive"] for node in ray.nodes())
    each = f"{config.ray.cpus:g} CPU" + (" and a GPU" if config.device == "cuda" else "")
    return (
        f"{config.num_workers} workers of {each} each (placement {config.ray.placement}) found no place "
        f"within ray.start_timeout_s={config.ray.start_timeout_s:g}: the cluster has {have} on {nodes} "
        "node(s); give fewer workers, less for each (ray.cpus, ray.gpus), or another ray.placement"
    )
