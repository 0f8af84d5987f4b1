"""How far a run is: one live line on a terminal, plain lines elsewhere.

rank 0's reports: a step's figures, held-out losses, events in words
  -> what is left, from the steps' own median time and what lies between them (checkpoints, held-out losses)
  -> a bar with loss, speed and time left; events above it
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from types import TracebackType
from typing import Any, Self

LINE_EVERY_S = 10.0
MEDIAN_OF_STEPS = 50


class Pace:
    """How long the steps that are left will take.

    The median of recent steps bears with slow ones (the first one, a busy disk). Time that is no step's, of
    checkpoints and held-out losses, is spread over all steps since the run began or went on. A step back, or
    the same one again, is a run that went on.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=MEDIAN_OF_STEPS)
        self._last = 0
        self._begin(0, 0.0)

    def add(self, step: int, step_s: float, now_s: float) -> None:
        """A step that took `step_s` is done at `now_s`."""
        if step <= self._last or not self._since:
            self._begin(step, now_s)
        else:
            self._recent.append(step_s)
            self._in_steps_s += step_s
        self._last, self._now_s = step, now_s

    def left_s(self, max_steps: int) -> float | None:
        """None while nothing is known."""
        steps = self._last - self._since
        if not steps or not self._recent:
            return None
        between_s = max(0.0, self._now_s - self._since_s - self._in_steps_s) / steps
        return max(0, max_steps - self._last) * (median(self._recent) + between_s)

    def _begin(self, step: int, now_s: float) -> None:
        """The clock starts when a first step is done: it is slower than those that follow."""
        self._since, self._since_s, self._in_steps_s = step, now_s, 0.0
        self._now_s = now_s


class Progress:
    """Shows a run's reports on stderr. Call it with each; it is a context.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace()
        self._held_out: float | None = None
        self._said = ""
        self._said_s = float("-inf")
        self._now = ""
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = TextColumn("train"), BarColumn(bar_width=24), MofNCompleteColumn()
            self._bar = Bar(
                *columns, TextColumn("{task.description}", markup=False), console=Console(stderr=True)
            )
            self._bar.add_task("", total=None, visible=False)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._now != self._said:
            self._say(self._now)

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Show a report: {"event": words}, or a row of metrics.jsonl with `max_steps`."""
        if "event" in report:
            self._say(str(report["event"]))
        elif report.get("kind") == "held_out":
            self._held_out = report.get("loss")
            if self._bar is None and self._held_out is not None:
                self._say(f"step {report['step']}: held-out loss {self._held_out:.4f}")
        elif "step" in report:
            self._step(report)

    def _step(self, row: Mapping[str, Any]) -> None:
        step, max_steps = int(row["step"]), row.get("max_steps")
        now_s = self._clock()
        self._pace.add(step, row.get("step_s") or 0.0, now_s)
        words = ", ".join(self._words(row, max_steps))
        self._now = f"step {step}/{max_steps}: {words}" if max_steps else f"step {step}: {words}"
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=step, total=max_steps, description=words, visible=True)
        elif now_s - self._said_s >= LINE_EVERY_S or step == max_steps:
            self._said_s = now_s
            self._said = self._now
            self._say(self._now)

    def _words(self, row: Mapping[str, Any], max_steps: int | None) -> list[str]:
        """The row as it is told, the most wanted first."""
        told = []
        if "loss" in row:
            told.append("loss " + (f"{row['loss']:.4f}" if row["loss"] is not None else "not finite"))
        if self._held_out is not None:
            told.append(f"held out {self._held_out:.4f}")
        if row.get("samples_per_s"):
            told.append(f"{row['samples_per_s']:.3g} samples/s")
        left_s = None if max_steps is None else self._pace.left_s(max_steps)
        if left_s:
            told.append(f"{hours_text(left_s)} left")
        for key, words in (("bad_samples", "broken samples"), ("skipped_steps", "left out steps")):
            if row.get(key):
                told.append(f"{words}: {row[key]:.0f}")
        return told

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


def hours_text(seconds: float) -> str:
    """h:mm, rounded up to the minute."""
    minutes = -int(-seconds // 60)
    return f"{minutes // 60}:{minutes % 60:02d}"
