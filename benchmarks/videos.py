"""Videos to measure on: the demo's, made once."""

import shutil
from collections.abc import Sequence
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


def copies(videos: Sequence[Path], target: Path, count: int) -> None:
    """`count` files in `target`: the videos in turn, each with other bytes, so that none is done already."""
    target.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        video = videos[number % len(videos)]
        copy = target / f"{number:05d}{video.suffix}"
        shutil.copy(video, copy)
        with copy.open("ab") as file:
            file.write(number.to_bytes(8, "big"))
