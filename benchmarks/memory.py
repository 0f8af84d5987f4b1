"""Whether memory depends on the number of sources: peak of summed PSS with 20 and with 200.

PSS counts a shared page once over all processes; Ray's object store, whose size is fixed, is left out.
"""

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.videos import copies, speakers
from cluster.launch import ray_session
from data_pipeline.config import load_config
from data_pipeline.curate import measure_sources
from data_pipeline.ledger import listing_path
from data_pipeline.sources import list_sources

COUNTS = (20, 200)
EVERY_S = 2.0


def main() -> None:
    """Print both peaks and their ratio."""
    peaks = [_peak_mb(count) for count in COUNTS]
    for count, peak in zip(COUNTS, peaks, strict=True):
        print(f"{count} sources: peak of summed PSS {peak:.0f} MB")
    print(f"ratio {peaks[1] / peaks[0]:.2f}")


def _peak_mb(count: int) -> float:
    with TemporaryDirectory() as folder:
        videos, output = Path(folder) / "videos", Path(folder) / "dataset"
        copies([min(speakers(), key=lambda path: path.stat().st_size)], videos, count)
        config = load_config("demo", [f"sources={videos}", f"output={output}"])
        watch = _Watch()
        with ray_session(config.ray), watch:
            measure_sources(list_sources(config.sources), config, listing_path(output))
        return watch.peak_mb


class _Watch(threading.Thread):
    """Samples this process and all below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def run(self) -> None:
        me = psutil.Process()
        while not self.over.is_set():
            total = sum(_pss_mb(process.pid) for process in [me, *me.children(recursive=True)])
            self.peak_mb = max(self.peak_mb, total)
            time.sleep(EVERY_S)


def _pss_mb(pid: int) -> float:
    total, counted = 0, True
    try:
        for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
            if "-" in line.split(" ", 1)[0] and not line.startswith(("Pss", "VmFlags")):
                counted = "plasma" not in line
            elif counted and line.startswith("Pss:"):
                total += int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0  # it has ended meanwhile
    return total / 1024


if __name__ == "__main__":
    main()
