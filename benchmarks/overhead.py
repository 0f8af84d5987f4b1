"""What Ray and the ledger cost a source when there is nothing to measure: 10,000 tiny files."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.launch import ray_session
from data_pipeline.config import load_config
from data_pipeline.curate import measure_sources
from data_pipeline.ledger import listing_path
from data_pipeline.sources import list_sources

SOURCES = 10_000


def main() -> None:
    """Print milliseconds a source: the first time, and when every record is there."""
    with TemporaryDirectory() as folder:
        videos, output = Path(folder) / "videos", Path(folder) / "dataset"
        videos.mkdir()
        for number in range(SOURCES):
            (videos / f"{number:05d}.mp4").write_text(f"no video, number {number}\n")
        config = load_config("talking_head", [f"sources={videos}", f"output={output}"])
        with ray_session(config.ray):
            for label in ("measured", "found done"):
                started = time.perf_counter()
                measure_sources(list_sources(config.sources), config, listing_path(output))
                spent = time.perf_counter() - started
                each_ms = spent / SOURCES * 1000
                print(f"{SOURCES} tiny sources, {label}: {spent:.1f} s, {each_ms:.1f} ms a source")


if __name__ == "__main__":
    main()
