"""How much memory this process took while something ran."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


@dataclass
class Growth:
    """Bytes of anonymous memory at the most, above what there was before."""

    most: int = 0


@contextmanager
def watched() -> Iterator[Growth]:
    """Look at the memory every 2 ms until the block ends."""
    growth, before, done = Growth(), status("RssAnon"), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            growth.most = max(growth.most, status("RssAnon") - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()
