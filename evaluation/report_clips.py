"""Which clips a report shows, and what of each: videos, values, curves; and every clip as a point.

rows -> how far each generated clip is from its real one, over all values -> the nearest, the farthest
     -> their videos are put beside the page
"""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from evaluation.found_store import FoundStore
from evaluation.results import BenchmarkResult, Evaluation
from training.curves import Chart, Line

CURVE = "_curve"
"""Arrays (N,) whose name ends so are drawn: `sync_curve` over `sync_shifts`, or over 0, 1, ..."""
PLACES = ("_shifts", "_lags")


@dataclass(frozen=True)
class ShownClip:
    """A clip with its players."""

    name: str
    distance: float | None
    """From its real clip, in spreads of real clips, mean over values; None: it has none."""
    truth: str | None
    """Link."""
    generated: str | None
    values: list[tuple[str, float | None, float | None]]
    """Name, generated, real."""
    curves: list[Chart]


@dataclass(frozen=True)
class Chosen:
    """Of one benchmark."""

    best: list[ShownClip]
    worst: list[ShownClip]
    """The worst first."""


@dataclass(frozen=True)
class Point:
    """A clip."""

    name: str
    real: float
    generated: float
    x: float
    """Percent of the plot's width, from the left."""
    y: float
    """Percent of its height, from the top."""


@dataclass(frozen=True)
class Scatter:
    """One value of every clip, generated over real, both axes alike."""

    value: str
    points: list[Point]
    low: float
    high: float


def chosen(
    evaluation: Evaluation, benchmark: BenchmarkResult, output: Path, folder: Path, number: int
) -> Chosen:
    """Best and worst clips; their videos are put into `folder`. Raises OSError."""
    rows = evaluation.rows_of(benchmark.name)
    distances = distances_of(rows)
    there = [row for row in rows if row["video_sha256"]]
    there.sort(key=lambda row: (distances.get(row["name"], math.inf), row["name"]))
    best = there[: min(number, (len(there) + 1) // 2)]
    worst = there[len(best) :][-number:][::-1]

    def show(row: Mapping[str, Any]) -> ShownClip:
        return _shown(row, distances, benchmark, output, folder)

    return Chosen([show(row) for row in best], [show(row) for row in worst])


def distances_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How far each clip is from its real one: |generated - real| in spreads (standard deviations) of real
    clips, mean over the values that both have."""
    found: dict[str, list[float]] = {}
    for value in _values_of(rows):
        pairs = {row["name"]: pair for row in rows if (pair := _pair(row, value)) is not None}
        if len(pairs) < 2:
            continue
        spread = float(np.std([real for _, real in pairs.values()])) or 1.0
        for name, (generated, real) in pairs.items():
            found.setdefault(name, []).append(abs(generated - real) / spread)
    return {name: float(np.mean(many)) for name, many in found.items()}


def scatters(rows: Sequence[Mapping[str, Any]]) -> Iterator[Scatter]:
    """One for each value that generated and real clips have."""
    for value in _values_of(rows):
        pairs = {row["name"]: pair for row in rows if (pair := _pair(row, value)) is not None}
        if not pairs:
            continue
        numbers = np.array([*pairs.values()])
        low, high = float(numbers.min()), float(numbers.max())
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low - margin, high + margin
        points = [
            Point(
                name,
                real,
                generated,
                round(100 * (real - low) / (high - low), 2),
                round(100 - 100 * (generated - low) / (high - low), 2),
            )
            for name, (generated, real) in sorted(pairs.items())
        ]
        yield Scatter(value, points, low, high)


def _shown(
    row: Mapping[str, Any],
    distances: Mapping[str, float],
    benchmark: BenchmarkResult,
    output: Path,
    folder: Path,
) -> ShownClip:
    name = row["name"]
    values = [(value, row.get(f"generated.{value}"), row.get(f"real.{value}")) for value in _values_of([row])]
    beside = folder / "clips" / benchmark.name
    return ShownClip(
        name,
        distances.get(name),
        _put(row["truth"], output, beside / f"{name}.truth.mp4", folder),
        _put(row["video"], output, beside / f"{name}.generated.mp4", folder),
        values,
        list(_curves(name, FoundStore(output / benchmark.generated_store), benchmark, output)),
    )


def _put(video: str | None, output: Path, place: Path, folder: Path) -> str | None:
    """A video beside the page: the same file where the disk can, else a copy. Its link."""
    if video is None or not (output / video).is_file():
        return None
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link((output / video).resolve(), place)
    except OSError:
        shutil.copyfile(output / video, place)
    return quote(place.relative_to(folder).as_posix())


def _curves(name: str, made: FoundStore, benchmark: BenchmarkResult, output: Path) -> Iterator[Chart]:
    real = FoundStore(output / benchmark.real_store)
    scored = made.scored(name)
    for metric in scored.values if scored else ():
        sides = {"generated": made.found(name, metric), "real": real.found(name, metric)}
        first = sides["generated"]
        for array in [key for key in (first.arrays if first else ()) if key.endswith(CURVE)]:
            lines = [
                _line(source, found.arrays, array, look)
                for (source, found), look in zip(sides.items(), ("main", "second"), strict=True)
                if found is not None and array in found.arrays
            ]
            title = array.removesuffix(CURVE).replace("_", " ")
            chart = Chart(title, [line for line in lines if len(line.steps)])
            if chart.lines and not chart.is_empty:
                yield chart


def _line(source: str, arrays: Mapping[str, np.ndarray], name: str, look: str) -> Line:
    values = np.asarray(arrays[name], np.float64).ravel()
    stem = name.removesuffix(CURVE)
    known = [arrays[stem + ending] for ending in PLACES if stem + ending in arrays]
    places = np.asarray(known[0] if known else np.arange(len(values))).astype(np.int64)
    order = np.argsort(places, kind="stable")
    return Line(source, places[order], values[order], look)


def _values_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {name for row in rows for name in row if name.startswith(("generated.", "real."))}
    return sorted({name.partition(".")[2] for name in names})


def _pair(row: Mapping[str, Any], value: str) -> tuple[float, float] | None:
    generated, real = row.get(f"generated.{value}"), row.get(f"real.{value}")
    return None if generated is None or real is None else (generated, real)
