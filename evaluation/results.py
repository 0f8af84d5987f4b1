"""What an evaluation found, on the disk: figures.json and clips.parquet, and back.

OUTPUT/figures.json    figures with intervals and n, real beside generated, subgroups, protocols in full
OUTPUT/clips.parquet   a row a clip: names, facts, every value, generated and real, the words of errors
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.storage import read_table, replacing
from evaluation.metrics.metric import Figure

FIGURES = "figures.json"
CLIPS = "clips.parquet"
FORMAT = 1


class ResultsError(ValueError):
    """A folder that holds no evaluation that can be read; the message says what was found."""


@dataclass(frozen=True)
class Beside:
    """Figures of generated videos, and the same of real ones."""

    generated: list[Figure]
    real: list[Figure]

    def figure(self, name: str) -> Figure | None:
        """Of the generated videos."""
        return next((figure for figure in self.generated if figure.name == name), None)

    def real_figure(self, name: str) -> Figure | None:
        """Of the real ones."""
        return next((figure for figure in self.real if figure.name == name), None)


@dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark's part."""

    name: str
    protocol: dict[str, Any]
    protocol_sha256: str
    about: dict[str, Any]
    """Where the benchmark comes from."""
    attempted: int
    """Items that there should be."""
    scored: int
    """Videos of which at least one metric found something."""
    missing: dict[str, str]
    """Items that are not here, and why."""
    figures: Beside
    subgroups: dict[str, dict[str, Beside]]
    """By kind and bin."""
    generated_store: str
    """Where what was found in clips lies: relative to the output, or from the root on."""
    real_store: str


@dataclass(frozen=True)
class Evaluation:
    """All of it."""

    checkpoint: dict[str, Any]
    """What was evaluated: its path, digest, training run, step, training datasets."""
    metrics: list[str]
    benchmarks: list[BenchmarkResult]
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a clip, as in clips.parquet."""

    def of(self, benchmark: str) -> BenchmarkResult | None:
        """A benchmark's part."""
        return next((one for one in self.benchmarks if one.name == benchmark), None)

    def rows_of(self, benchmark: str) -> list[dict[str, Any]]:
        """A benchmark's clips."""
        return [row for row in self.rows if row["benchmark"] == benchmark]


def write_results(evaluation: Evaluation, output: Path) -> None:
    """figures.json is written last: with it the evaluation is whole. Raises OSError."""
    with replacing(output / CLIPS) as temporary:
        pq.write_table(clips_table(evaluation.rows), temporary)
    values = {"format": FORMAT, **asdict(evaluation)}
    values.pop("rows")
    text = json.dumps(_without_nan(values), indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(output / FIGURES) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def read_results(output: Path) -> Evaluation:
    """Raises ResultsError."""
    path = output / FIGURES
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT:
            raise ResultsError(f"{path}: has format {values['format']}, this hallo3 reads {FORMAT}")
        benchmarks = [
            BenchmarkResult(
                **one
                | {
                    "figures": _beside(one["figures"]),
                    "subgroups": {
                        kind: {name: _beside(group) for name, group in bins.items()}
                        for kind, bins in one["subgroups"].items()
                    },
                }
            )
            for one in values["benchmarks"]
        ]
        rows = read_table(output / CLIPS).to_pylist()
        return Evaluation(values["checkpoint"], values["metrics"], benchmarks, rows)
    except FileNotFoundError as error:
        raise ResultsError(f"{output}: no evaluation is there: no {Path(error.filename).name}") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{path}: cannot be read as an evaluation's figures: {error!r}") from None


def clips_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table whose columns are the same ones in the same order, whoever has which value."""
    given = list(rows)
    names = list(dict.fromkeys(name for row in given for name in row))
    first = [name for name in names if "." not in name]
    columns = first + sorted(name for name in names if "." in name)
    return pa.table({name: _column([row.get(name) for row in given]) for name in columns})


def _column(values: list[Any]) -> pa.Array:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) for value in known):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _beside(values: Mapping[str, Any]) -> Beside:
    return Beside(*([_figure(one) for one in values[source]] for source in ("generated", "real")))


def _figure(values: Mapping[str, Any]) -> Figure:
    numbers = {key: math.nan if values[key] is None else values[key] for key in ("value", "low", "high")}
    return Figure(name=values["name"], n=values["n"], **numbers)


def _without_nan(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
