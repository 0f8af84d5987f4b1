"""How far a measuring run is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from data_pipeline.actors import SourceRow

LINE_EVERY_S = 10.0


class Progress:
    """Counts sources as they arrive, and says what became of them and when the rest will be done."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.sources = self.skipped = self.purged = self.clips = self.failed = 0
        self.started = self.said = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = TextColumn("measure"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self.bar = Bar(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
            self.bar.start()
            self.bar.add_task("", total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        self._say()

    def add(self, row: "SourceRow") -> None:
        """One more source is done."""
        self.sources += 1
        self.skipped += row.skipped
        self.purged += row.purged
        self.clips += len(row.clip_ids)
        self.failed += row.clip.error is not None
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.sources, description=self._counts())
        elif time.monotonic() - self.said > LINE_EVERY_S:
            self._say()

    def _counts(self) -> str:
        counts = f"{self.clips} clips, {self.failed} failed"
        if self.skipped:
            counts += f", {self.skipped} were done before"
        return f"{counts}, {self.purged} left out (purged)" if self.purged else counts

    def _say(self) -> None:
        self.said = time.monotonic()
        spent = self.said - self.started
        rate = self.sources / spent if spent > 0 else 0.0
        left = (
            f", about {(self.total - self.sources) / rate:.0f} s left"
            if 0 < self.sources < self.total
            else ""
        )
        line = f"measure: {self.sources}/{self.total} sources, {self._counts()}; {spent:.0f} s{left}"
        print(line, file=sys.stderr, flush=True)
