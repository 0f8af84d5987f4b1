"""metrics.jsonl: what a run has to say for itself, one line a measurement, whatever happens to the run.

    rank 0: step, kind ("train", "held_out", "event"), values -> one line, flushed
    a run that begins again -> a line cut off by a crash is taken away, and what came after the checkpoint too

So every step is in the file once. Events, such as a start after a failure, are what happened and stay.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from data_pipeline.storage import replacing

Kind = Literal["train", "held_out", "event"]


class MetricsError(Exception):
    """A metrics file that is not one; the message names the file and the line."""


class MetricsLog:
    """Writes one run's metrics. One writer at a time; `close` it, or use it as a context.

    Args:
        path: the file; made with its folder where it is not there yet.
        last_step: of the checkpoint from which the run goes on; None: keep all that is there.
    """

    def __init__(self, path: Path, last_step: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _keep(path, [row for row in read_metrics(path) if _stays(row, last_step)])
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, kind: Kind, time_s: float, values: Mapping[str, Any]) -> None:
        """Add a line. `time_s` is a clock's (seconds since 1970). What is not finite is written as null, and
        its names under `not_finite`, as JSON knows neither NaN nor infinity."""
        lost = sorted(name for name, value in values.items() if _not_finite(value))
        row = {"step": step, "kind": kind, "time_s": round(time_s, 3), **values, **dict.fromkeys(lost)}
        if lost:
            row["not_finite"] = lost
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The file's rows in their order. A last line without its end, as a crash leaves it, is passed over.

    Raises:
        MetricsError: another line is not a row.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
                yield row | {"step": int(row["step"]), "kind": str(row["kind"])}
            except (ValueError, TypeError, KeyError) as error:
                raise MetricsError(f"{path}, line {number}: not a row of metrics: {error!r}") from None


def _stays(row: Mapping[str, Any], last_step: int | None) -> bool:
    return last_step is None or row["kind"] == "event" or row["step"] <= last_step


def _keep(path: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
