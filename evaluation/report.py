"""OUTPUT/report/: one folder that opens from disk, in which a person sees how good a model is.

    figures, rows, what was found in clips, a baseline, the training run's metrics
      -> index.html, and clips/ with the videos that it plays: ground truth beside generated

report_clips.py chooses the clips, and says what is shown of each.
"""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data_pipeline
import training
from data_pipeline.page import render_page
from data_pipeline.storage import replacing
from evaluation.comparison import Change
from evaluation.gate import Broken, Rule
from evaluation.metrics.metric import Figure
from evaluation.report_clips import chosen, scatters
from evaluation.results import Evaluation
from training.curves import Chart
from training.history import History
from training.metrics import MetricsError, read_metrics
from training.run_folder import METRICS

FOLDER = "report"
PAGE = "index.html"
TEMPLATES = Path(__file__).with_name("templates")
STYLES = (
    Path(data_pipeline.__file__).with_name("templates") / "report.css",
    Path(training.__file__).with_name("templates") / "run.css",
    TEMPLATES / "evaluation.css",
)
MOST_ROWS = 500
"""Of the table of clips; the others are in clips.parquet."""


@dataclass(frozen=True)
class Compared:
    """What the gate was given, and found."""

    baseline: str
    """Where it lies."""
    changes: list[Change]
    rules: list[Rule]
    broken: list[Broken]

    @property
    def passed(self) -> bool:
        return not self.broken

    def change(self, benchmark: str, figure: str) -> Change | None:
        """Of one figure."""
        return next((one for one in self.changes if (one.benchmark, one.figure) == (benchmark, figure)), None)


@dataclass(frozen=True)
class Row:
    """A line of the table of figures."""

    figure: str
    benchmark: str
    generated: Figure
    real: Figure | None
    change: Change | None


def write_report(evaluation: Evaluation, output: Path, shown: int, compared: Compared | None = None) -> Path:
    """Write the folder; the page, whole or not at all.

    Args:
        shown: best clips, and as many worst ones, of each benchmark.

    Raises OSError.
    """
    folder = output / FOLDER
    shutil.rmtree(folder / "clips", ignore_errors=True)
    clips = {one.name: chosen(evaluation, one, output, folder, shown) for one in evaluation.benchmarks}
    plots = {one.name: list(scatters(evaluation.rows_of(one.name))) for one in evaluation.benchmarks}
    page = render_page(
        TEMPLATES / "evaluation.html.j2",
        style=STYLES,
        script=TEMPLATES / "evaluation.js",
        filters={"number": number_text, "interval": interval_text, "signed": signed_text},
        name=_name(evaluation.checkpoint),
        facts=list(_facts(evaluation.checkpoint)),
        benchmarks=evaluation.benchmarks,
        rows=list(_rows(evaluation, compared)),
        compared=compared,
        clips=clips,
        scatters=plots,
        figure_columns=_value_names(evaluation),
        table=evaluation.rows[:MOST_ROWS],
        n_rows=len(evaluation.rows),
        failed=[row for row in evaluation.rows if row["error"]],
        training=_training_chart(evaluation.checkpoint),
        protocols={one.name: list(_flat(one.protocol)) for one in evaluation.benchmarks},
    )
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(page, "utf-8")
    return folder / PAGE


def number_text(value: float | None) -> str:
    """Four significant digits; a dash where nothing is known."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed_text(value: float) -> str:
    """With its sign."""
    return number_text(value) if math.isnan(value) or value <= 0 else f"+{number_text(value)}"


def interval_text(one: Figure | Change) -> str:
    """Its interval; empty where there is none."""
    return "" if math.isnan(one.low) else f"[{number_text(one.low)}, {number_text(one.high)}]"


def _name(checkpoint: Mapping[str, Any]) -> str:
    """What is evaluated, in short."""
    path = checkpoint.get("run") or checkpoint.get("path") or checkpoint.get("videos")
    step = f", step {checkpoint['step']}" if checkpoint.get("step") is not None else ""
    return f"{Path(str(path)).name}{step}"


def _rows(evaluation: Evaluation, compared: Compared | None) -> Iterator[Row]:
    for one in evaluation.benchmarks:
        for figure in one.figures.generated:
            change = compared.change(one.name, figure.name) if compared else None
            yield Row(figure.name, one.name, figure, one.figures.real_figure(figure.name), change)


def _facts(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the model comes from."""
    for key, value in checkpoint.items():
        if isinstance(value, list):
            for data in value:
                yield "trained on", ", ".join(f"{name} {text}" for name, text in data.items())
        elif value is not None:
            yield key.replace("_", " "), str(value)


def _value_names(evaluation: Evaluation) -> list[str]:
    """Values that a clip may have, in the order of their names."""
    names = {name for row in evaluation.rows for name in row if name.startswith("generated.")}
    return sorted(name.removeprefix("generated.") for name in names)


def _training_chart(checkpoint: Mapping[str, Any]) -> Chart | None:
    """The loss of the run that the checkpoint is of, where that is on this machine."""
    metrics = Path(str(checkpoint.get("run", ""))) / METRICS
    if "run" not in checkpoint or not metrics.is_file():
        return None
    try:
        charts = History(list(read_metrics(metrics))).charts
    except MetricsError:  # the run's own page says so
        return None
    return next((chart for chart in charts if chart.title == "Loss"), None)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)
