"""What metrics.jsonl tells of a run: figures of now, charts, and what happened."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from training.curves import Chart, Line, smoothed

QUANTILES = tuple(f"loss_0.{tenth}" for tenth in range(1, 10))
RECENT_SHARE = 0.05
"""Of the steps: for figures that say how it is now, and to tell of small misfortunes together."""


@dataclass(frozen=True)
class Happened:
    """Something that a person should know of: when, and in words."""

    step: int
    time_s: float
    words: str


@dataclass(frozen=True)
class History:
    """The rows of metrics.jsonl as a page shows them."""

    rows: Sequence[Mapping[str, Any]]

    @cached_property
    def train(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["kind"] == "train"]

    @cached_property
    def held_out(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["kind"] == "held_out"]

    @property
    def step(self) -> int:
        """The last one."""
        return self.train[-1]["step"] if self.train else 0

    @property
    def last_s(self) -> float | None:
        """When something was written last."""
        return self.rows[-1]["time_s"] if self.rows else None

    @property
    def first_s(self) -> float | None:
        return self.rows[0]["time_s"] if self.rows else None

    @property
    def steps_s(self) -> float:
        """All steps' time together."""
        return float(np.nansum(_values(self.train, "step_s"))) if self.train else 0.0

    def recent(self, name: str) -> float | None:
        """The median of the last steps' values; None where nothing is known."""
        values = _values(self.train, name)
        values = values[-max(20, int(RECENT_SHARE * len(values))) :]
        known = values[np.isfinite(values)]
        return float(np.median(known)) if len(known) else None

    def total(self, name: str) -> int:
        """Of a figure that counts up."""
        values = _values(self.train, name)
        known = values[np.isfinite(values)]
        return int(known[-1]) if len(known) else 0

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The held-out row of the lowest loss."""
        known = [row for row in self.held_out if row.get("loss") is not None]
        return min(known, key=lambda row: row["loss"]) if known else None

    @cached_property
    def charts(self) -> list[Chart]:
        """Those of which something is known."""
        all_of_them = [
            Chart(
                "Loss",
                [*self._both("loss", "training"), self._line(self.held_out, "loss", "held out", "second")],
            ),
            Chart("Gradient norm", self._both("gradient_norm", "before it is clipped")),
            Chart("Learning rate", [self._line(self.train, "learning_rate", "this step's")], from_zero=True),
            Chart("Speed", self._both("samples_per_s", "samples a second"), from_zero=True),
            Chart("Waiting for data", self._both("data_wait_share", "share of the step"), percent=True),
            Chart("Memory", [self._line(self.train, "peak_memory_gb", "highest so far, GB")], from_zero=True),
            Chart("Use of the GPU", self._both("mfu", "model FLOPs utilization"), percent=True),
        ]
        return [chart for chart in all_of_them if not chart.is_empty]

    @cached_property
    def by_quantile(self) -> Chart | None:
        lines = [
            self._line(
                self.held_out, name, name.removeprefix("loss_"), "quantile", place / (len(QUANTILES) - 1)
            )
            for place, name in enumerate(QUANTILES)
        ]
        chart = Chart("Held-out loss by timestep", [line for line in lines if line.last is not None])
        return None if chart.is_empty else chart

    @property
    def quantile_rows(self) -> Iterator[tuple[str, float, float, int, float]]:
        """Quantile, first loss, lowest loss, its step, last loss."""
        for name in QUANTILES:
            known = [(row[name], row["step"]) for row in self.held_out if row.get(name) is not None]
            if known:
                lowest, step = min(known)
                yield name.removeprefix("loss_"), known[0][0], lowest, step, known[-1][0]

    @cached_property
    def begins(self) -> list[Happened]:
        """When the run went on after its first start."""
        return [one for one in self.happened if one.words.startswith("goes on from")]

    @cached_property
    def happened(self) -> list[Happened]:
        """Events, and what the figures say of broken samples and steps that were left out; the last first."""
        told = [
            Happened(row["step"], row["time_s"], str(row.get("event", "")))
            for row in self.rows
            if row["kind"] == "event"
        ]
        told += self._counted("bad_samples", "broken and weighed nothing", "sample was", "samples were")
        told += self._counted("skipped_steps", "left out: no finite gradient", "step was", "steps were")
        return sorted(told, key=lambda one: (one.time_s, one.step), reverse=True)

    def _counted(self, name: str, fate: str, one: str, many: str) -> Iterator[Happened]:
        """What a figure counted, those that lie near each other together."""
        together = max(1, int(RECENT_SHARE * len(self.train)))
        before = n = 0
        first: Mapping[str, Any] | None = None
        for place, row in enumerate(self.train, start=1):
            now = int(row.get(name) or before)
            if now > before:
                n, first = n + now - before, first or row
            before = now
            if first and (place % together == 0 or row is self.train[-1]):
                words = f"{n} {one if n == 1 else many} {fate}"
                if n > 1:
                    words += f", up to step {row['step']:,}"
                yield Happened(first["step"], first["time_s"], words)
                n, first = 0, None

    def _both(self, name: str, label: str) -> list[Line]:
        """Smoothed, and as it is; that alone where there is little of it."""
        raw = self._line(self.train, name, label, "raw")
        values = smoothed(raw.values)
        if values is raw.values:
            return [self._line(self.train, name, label)]
        return [
            Line(f"{label}, smoothed", raw.steps, values),
            Line("each step", raw.steps, raw.values, "raw"),
        ]

    def _line(
        self, rows: list[Mapping[str, Any]], name: str, label: str, look: str = "main", colour: float = 0.0
    ) -> Line:
        steps = np.array([row["step"] for row in rows], dtype=np.int64)
        return Line(label, steps, _values(rows, name), look, colour)


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(N,) float64, NaN where a row has none."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)
