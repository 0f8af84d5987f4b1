"""`hallo3 dataset precompute`: run, and say how far it is and what came of it."""

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from data_pipeline.config_file import ConfigError, read_values
from data_pipeline.dataset import Dataset, DatasetError
from training.config import PRESETS, TrainConfig, load_config

if TYPE_CHECKING:
    from training.precompute import Job, KindDone

PROBLEM, WRONG_INPUT = 1, 2
LINE_EVERY_S = 10.0
NOWHERE = "-"
"""A run's folder where none is given and nothing will lie in it."""


def precompute(
    uri: str,
    version: int | None,
    name: str,
    overrides: Sequence[str],
    kinds: Sequence[str] | None,
    variants: int | None,
    workers: int | None,
) -> int:
    """Compute what a run of the configuration `name` looks at, of every clip of the dataset."""
    if variants is not None:
        overrides = [*overrides, f"conditions.stored_variants={variants}"]
    try:
        config = _config(name, overrides, uri)
        dataset = Dataset.open(uri, version)
    except ConfigError as error:
        return _fail(error, WRONG_INPUT)
    except DatasetError as error:
        return _fail(error, PROBLEM)
    try:
        from training import precompute as job
        from training.encoders import EncodersError
    except ModuleNotFoundError as error:
        return _fail(f"needs {error.name}; pip install 'hallo3[train]'", PROBLEM)
    from cluster.launch import LaunchError, ray_session

    try:
        kinds = kinds or job.default_kinds(config)
        config = job.with_autoencoder(config, dataset, kinds)
        work = job.plan(dataset, config, kinds)
        if work.done_before:
            print(f"{work.done_before} of {work.done_before + len(work.jobs)} shards' features were there")
        if not work.jobs:
            return 0
        with ray_session(config.ray), _Progress(work.jobs) as progress:
            done, failures = job.precompute(dataset, config, work, progress.at, workers)
    except (EncodersError, job.PrecomputeError) as error:
        return _fail(error, WRONG_INPUT)
    except LaunchError as error:
        return _fail(error, PROBLEM)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}; the same command goes on from here", PROBLEM)
    print("\n".join(_line(kind) for kind in done if kind.shards))
    if failures:
        count = (
            f"{len(failures)} of {len(work.jobs)} shards could not be done; the same command tries them again"
        )
        return _fail("\n".join([count, *failures]), PROBLEM)
    return 0


def _config(name: str, overrides: Sequence[str], uri: str) -> TrainConfig:
    """The training configuration, for this dataset; where it has no output, none is needed here."""
    given = [*overrides, f"dataset={json.dumps(uri)}"]
    if "output" not in read_values(PRESETS, name) and not any(x.startswith("output=") for x in overrides):
        given.append(f"output={json.dumps(NOWHERE)}")
    config = load_config(name, given)
    if config.output == NOWHERE and not config.encoders.autoencoder:
        raise ConfigError(
            "encoders.autoencoder is empty: name a folder, or output=RUN, a run for which one is fitted"
        )
    return config


def _line(kind: "KindDone") -> str:
    rate = kind.clips / kind.wall_s if kind.wall_s else 0.0
    missing = f", {kind.missing} missing (the indexes say why)" if kind.missing else ""
    return (
        f"{kind.features.kind:<11}{kind.shards} shards, {kind.clips} clips, {kind.arrays} arrays{missing}, "
        f"{kind.bytes / 1e6:.1f} MB, {rate:.1f} clips/s, in features/{kind.features.folder_name}"
    )


class _Progress:
    """Clips of all jobs as they are computed: a bar a kind on a terminal, plain lines elsewhere."""

    def __init__(self, jobs: Sequence["Job"]) -> None:
        self.totals: dict[str, int] = {}
        for job in jobs:
            self.totals[job.features.kind] = self.totals.get(job.features.kind, 0) + len(job.clips)
        self.done: dict[str, dict[str, int]] = {kind: {} for kind in self.totals}
        """Clips of each shard, by kind."""
        self.begun: dict[str, float] = {}
        self.said = time.monotonic()
        self.bar: Any = None
        self.bars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bars = {kind: self.bar.add_task(kind, total=total) for kind, total in self.totals.items()}
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def at(self, job: "Job", clips: int) -> None:
        """So many clips of a job are computed; fewer than before where it was begun anew."""
        kind = job.features.kind
        self.begun.setdefault(kind, time.monotonic())
        self.done[kind][job.shard] = clips
        count = sum(self.done[kind].values())
        if self.bar is not None:
            self.bar.update(self.bars[kind], completed=count)
        elif time.monotonic() - self.said > LINE_EVERY_S:
            self.said = time.monotonic()
            spent = self.said - self.begun[kind]
            left = spent / count * (self.totals[kind] - count)
            count_of = f"{kind}: {count}/{self.totals[kind]} clips"
            line = f"precompute: {count_of}; {spent:.0f} s, about {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
