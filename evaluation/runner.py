"""checkpoint + benchmarks -> videos, what is found in them, figures.

    plan        benchmarks opened, protocols hashed: nothing is loaded yet
    prepare     items' files (Ray tasks)
    generate    a video an item (fleet.py), where they are not given; a failed one is a row with its words
    score       real videos, kept under what they depend on, then generated ones (scoring.py)
    tabulate    rows, figures, subgroups -> figures.json, clips.parquet

Every step goes on where an earlier run of the same command was stopped. Ray is connected already.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.benchmarks import (
    ITEMS,
    Benchmark,
    BenchmarkItem,
    Entry,
    ItemError,
    open_benchmark,
    write_items,
)
from evaluation.config import EvaluationConfig
from evaluation.figures import figures_of
from evaluation.found_store import FoundStore, Scored
from evaluation.look import Look, decoys_of, reader_of
from evaluation.metrics.metric import Metric
from evaluation.protocol import Protocol, protocol_of
from evaluation.registry import make_metrics
from evaluation.results import BenchmarkResult, Beside, Evaluation, write_results
from evaluation.scorer import Shot
from evaluation.scoring import score_all
from evaluation.subgroups import divided

Told = Callable[[str, int, int], None]
"""Is told what is done, how many of it are, and how many there will be."""
LEAST_IN_GROUP = 2


@dataclass(frozen=True)
class Planned:
    """One benchmark, opened, with its protocol."""

    benchmark: Benchmark
    protocol: Protocol


@dataclass(frozen=True)
class Plan:
    """What an evaluation will do."""

    config: EvaluationConfig
    metrics: dict[str, Metric]
    """None of them is set up."""
    benchmarks: list[Planned]

    @property
    def figure_names(self) -> list[str]:
        """Of all metrics."""
        return [name for metric in self.metrics.values() for name in metric.names]

    @property
    def metric_names(self) -> list[str]:
        return list(self.metrics)

    @property
    def cache(self) -> Path:
        """Where real clips, and what was found in them, are kept."""
        return Path(self.config.cache or Path(self.config.output) / "real")


def plan(config: EvaluationConfig) -> Plan:
    """Raises BenchmarkError, WeightsUnavailable; MetricsError for a metric of one's own that is not there."""
    metrics = make_metrics(config.metrics)
    seeing = reader_of(config.clip).protocol
    opened = [open_benchmark(one, config.clip) for one in config.benchmark]
    return Plan(config, metrics, [Planned(one, protocol_of(config, one, metrics, seeing)) for one in opened])


def evaluate(plan: Plan, checkpoint: Mapping[str, Any], told: Told) -> Evaluation:
    """All of it, written to the output.

    Args:
        plan: of this configuration.
        checkpoint: what is evaluated (lineage.py), for the results.

    Raises:
        AnimateError and its like (WRONG_INPUTS), CrewError, FleetLost: the checkpoint cannot be used.
        MetricUnusable, ScorersLost: a metric cannot.
        OSError: the output cannot be written.
    """
    results, rows = [], []
    for planned in plan.benchmarks:
        result, more = _Benchmark(plan, planned, told).evaluate()
        results.append(result)
        rows += more
    evaluation = Evaluation(dict(checkpoint), plan.metric_names, results, rows)
    write_results(evaluation, Path(plan.config.output))
    return evaluation


class _Benchmark:
    """The steps of one benchmark."""

    def __init__(self, plan: Plan, planned: Planned, told: Told) -> None:
        self._plan, self._config = plan, plan.config
        self._benchmark, self._protocol = planned.benchmark, planned.protocol
        self._told = told
        self._output = Path(plan.config.output)
        name = planned.benchmark.name
        self._prepared = plan.cache / "items" / f"{name}-{planned.benchmark.sha256[:12]}"
        self._real = FoundStore(plan.cache / "found" / f"{name}-{planned.protocol.seen_sha256[:12]}")
        self._generated = FoundStore(self._output / "found" / f"{name}-{planned.protocol.sha256[:12]}")
        self._failed: dict[str, str] = {}
        """Items that cannot be prepared, or whose video cannot be made."""

    def evaluate(self) -> tuple[BenchmarkResult, list[dict[str, Any]]]:
        name = self._benchmark.name
        write_items(self._benchmark, self._output / "items" / name / ITEMS)
        items = self._prepare()
        videos = self._given(items) if self._config.videos is not None else self._generate(items)
        made, real = self._score(items, videos)
        rows = [self._row(entry, items, videos, made, real) for entry in self._benchmark.entries]
        return self._result(rows, made), rows

    def _prepare(self) -> list[BenchmarkItem]:
        entries = self._benchmark.entries
        prepared: list[BenchmarkItem] = []
        for done, (entry, outcome) in enumerate(_prepared(entries, self._prepared), start=1):
            if isinstance(outcome, str):
                self._failed[entry.name] = outcome
            else:
                prepared.append(outcome)
            self._told(f"{self._benchmark.name}: items", done, len(entries))
        return sorted(prepared, key=lambda item: item.name)

    def _given(self, items: Sequence[BenchmarkItem]) -> dict[str, Path]:
        folder = Path(str(self._config.videos))
        own = folder / self._benchmark.name
        return {item.name: (own if own.is_dir() else folder) / f"{item.name}.mp4" for item in items}

    def _generate(self, items: Sequence[BenchmarkItem]) -> dict[str, Path]:
        """The videos that could be made."""
        from evaluation.animator import Take
        from evaluation.crew import crew_of
        from evaluation.fleet import animate_all
        from evaluation.worker import Failed, Progress

        config, folder = self._config, self._output / "videos" / self._benchmark.name
        takes = [
            Take(
                item.reference,
                item.audio,
                folder / f"{item.name}.mp4",
                item.prompt,
                config.sampling.seed,
                config.clip.max_s,
            )
            for item in items
        ]
        crew = crew_of(config.device, config.generation.workers, config.generation.workers_a_video)
        done = 0
        for number, happened in animate_all(takes, _loader(config), crew):
            if isinstance(happened, Failed):
                self._failed[items[number].name] = happened.words
            if not isinstance(happened, Progress):
                done += 1
                self._told(f"{self._benchmark.name}: videos made", done, len(takes))
        return {
            item.name: take.output
            for item, take in zip(items, takes, strict=True)
            if item.name not in self._failed
        }

    def _score(
        self, items: Sequence[BenchmarkItem], videos: Mapping[str, Path]
    ) -> tuple[dict[str, Scored], dict[str, Scored]]:
        """What is known of generated and of real videos, by item."""
        decoys = decoys_of(items, self._config.decoys, self._config.seed)
        made: dict[str, Scored] = {}
        real: dict[str, Scored] = {}
        shots, kept = [], []
        for item, others in zip(items, decoys, strict=True):
            if item.truth is not None:
                shots.append(Shot(Look(item, item.truth, others), self._real.folder))
                kept.append((real, item.name))
            if item.name in videos:
                shots.append(Shot(Look(item, videos[item.name], others), self._generated.folder))
                kept.append((made, item.name))
        config = self._config
        asked = config.ray.model_copy(update={"scorer_gpus": 0.0}) if config.device == "cpu" else config.ray
        agreed = {name: metric.protocol for name, metric in self._plan.metrics.items()}
        outcomes = score_all(shots, config.metrics, config.clip, agreed, asked)
        for done, (number, scored) in enumerate(outcomes, start=1):
            where, name = kept[number]
            where[name] = scored
            self._told(f"{self._benchmark.name}: videos scored, real ones included", done, len(shots))
        return made, real

    def _row(
        self,
        entry: Entry,
        items: Sequence[BenchmarkItem],
        videos: Mapping[str, Path],
        made: Mapping[str, Scored],
        real: Mapping[str, Scored],
    ) -> dict[str, Any]:
        item = next((one for one in items if one.name == entry.name), None)
        generated, true = made.get(entry.name), real.get(entry.name)
        words = self._failed.get(entry.name) or (generated.words if generated else None)
        row: dict[str, Any] = {
            "benchmark": self._benchmark.name,
            "name": entry.name,
            "error": words,
            "real_error": true.words if true else None,
            "video": _path(videos.get(entry.name), self._output),
            "truth": _path(item.truth if item else None, self._output),
            "video_sha256": generated.video_sha256 if generated else None,
            "truth_sha256": true.video_sha256 if true else None,
            **{key: entry.lineage.get(key) for key in ("clip_id", "source_sha256", "source_uris")},
            **{f"fact.{key}": value for key, value in entry.facts.items()},
        }
        for source, scored in (("generated", generated), ("real", true)):
            for values in scored.values.values() if scored else ():
                row |= {f"{source}.{key}": value for key, value in values.items()}
        return row

    def _result(self, rows: Sequence[dict[str, Any]], made: Mapping[str, Scored]) -> BenchmarkResult:
        scored = sorted(name for name, one in made.items() if one.values and name not in self._failed)
        figures = self._figures(scored)
        there = [row for row in rows if row["name"] in scored]
        subgroups = {
            kind: {
                name: self._figures(clips, of_sets=False)
                for name, clips in bins.items()
                if len(clips) >= LEAST_IN_GROUP
            }
            for kind, bins in divided(there).items()
        }
        benchmark = self._benchmark
        return BenchmarkResult(
            benchmark.name,
            self._protocol.fields,
            self._protocol.sha256,
            benchmark.about,
            benchmark.attempted,
            len(scored),
            benchmark.missing,
            figures,
            {kind: bins for kind, bins in subgroups.items() if bins},
            str(_path(self._generated.folder, self._output)),
            str(_path(self._real.folder, self._output)),
        )

    def _figures(self, clips: Sequence[str], of_sets: bool = True) -> Beside:
        stores = self._generated, self._real
        return figures_of(self._plan.metric_names, self._config.metrics, clips, *stores, of_sets)


def _prepared(entries: Sequence[Entry], folder: Path) -> Iterator[tuple[Entry, BenchmarkItem | str]]:
    """Every entry's item, or the words why there is none, as they are done."""
    import ray

    start: Any = ray.remote(_item_of).options(num_cpus=1)
    waiting = list(reversed(entries))
    running: dict[Any, Entry] = {}
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    while waiting or running:
        while waiting and len(running) < most:
            entry = waiting.pop()
            running[start.remote(entry, folder)] = entry
        ref: Any = ray.wait([*running], num_returns=1)[0][0]
        yield running.pop(ref), ray.get(ref)


def _item_of(entry: Entry, folder: Path) -> BenchmarkItem | str:
    from data_pipeline.media import MediaError
    from data_pipeline.shards import ShardError

    try:
        return entry.prepare(folder)
    except (ItemError, MediaError, ShardError) as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror or error}"


def _loader(config: EvaluationConfig) -> Any:
    """Loads the model on a device, in a worker."""
    from evaluation.animator import Animator
    from evaluation.setup import Setup
    from training.generate import Sampling

    given, how = config.sampling, config.generation
    sampling = Sampling(
        given.steps,
        given.guidance,
        compat=given.sampler == "upstream",
        two_passes=how.two_passes,
        skip_steps=given.skip_steps,
    )
    setup = Setup(given.size, config.clip.fps, how.tile, how.offload)
    return partial(Animator.load, Path(str(config.checkpoint)), sampling, how.encoders, setup=setup)


def _path(path: Path | None, output: Path) -> str | None:
    """Relative to the output where it lies in it."""
    if path is None:
        return None
    whole = path.absolute()
    inside = whole.is_relative_to(output.absolute())
    return os.path.relpath(whole, output.absolute()) if inside else str(whole)
