"""Small benchmarks whose truth is known: grey clips of known brightness, as a list and as videos to score."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.clip_file import write_clip

METRICS = ("tests.evaluation.small_metrics:Luminance", "tests.evaluation.small_metrics:LuminanceDistance")
FRAMES = 10
SIDE = 64


def grey_clip(path: Path, grey: int, frames: int = FRAMES, fps: int = 25, width: int = SIDE) -> Path:
    """All pixels have one value; with a hum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = (np.sin(np.arange(16_000 * frames // fps) / 20) * 8000).astype(np.int16)
    write_clip(path, [np.full((frames, SIDE, width, 3), grey, np.uint8)], fps, sound)
    return path


def grey_list(
    folder: Path, greys: Mapping[str, int], facts: Mapping[str, Sequence[Any]] | None = None
) -> Path:
    """list.csv: an item for each name, whose ground truth is so grey; facts: a value an item, by column."""
    rows = []
    for place, (name, grey) in enumerate(greys.items()):
        grey_clip(folder / "truth" / f"{name}.mp4", grey)
        row = {"name": name, "video": f"truth/{name}.mp4"}
        rows.append(row | {key: values[place] for key, values in (facts or {}).items()})
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def grey_videos(folder: Path, greys: Mapping[str, int]) -> Path:
    """FOLDER/{name}.mp4, as somebody's model made them."""
    for name, grey in greys.items():
        grey_clip(folder / f"{name}.mp4", grey)
    return folder


def words(listed: Path, videos: Path, output: Path, *more: str) -> list[str]:
    """The command's, for one scorer and no MLflow."""
    given = [f"benchmark={listed}", f"videos={videos}", f"output={output}", f"metrics=[{','.join(METRICS)}]"]
    small = ["clip.width=64", "clip.height=64", "ray.scorers=1", "ray.object_store_gb=0.1"]
    return ["evaluate", "default", *given, *small, "tracking.enabled=false", *more]
