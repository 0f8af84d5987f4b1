"""Videos to measure on: the demo's, made once."""

from functools import cache
from pathlib import Path
from tempfile import gettempdir

from data_pipeline.demo import make_sources


@cache
def folder() -> Path:
    """The demo's source videos."""
    videos = Path(gettempdir()) / "hallo3-bench-videos"
    make_sources(videos)
    return videos


@cache
def speakers() -> list[Path]:
    """Those that are to be kept."""
    return [folder() / source.name for source in make_sources(folder()) if source.expected == "keep"]
