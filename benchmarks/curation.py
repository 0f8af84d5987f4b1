"""Curation against its floor: decoding the same files once, in as many processes, plus the models.

wall <= 4 x (decoding once) + model seconds / cores
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.videos import copies
from benchmarks.videos import folder as videos
from cluster.launch import ray_session
from data_pipeline.config import load_config
from data_pipeline.curate import curate
from data_pipeline.media import MediaError, read_frames
from data_pipeline.sources import VIDEO_EXTENSIONS

MODELS = ("speech", "faces")
TIMES = 3  # each of the demo's videos, so that starting up does not count for most


def main() -> None:
    """Print wall time, its floor, and each part's share."""
    cores = os.cpu_count() or 1
    with TemporaryDirectory() as folder:
        made = sorted(path for path in videos().iterdir() if path.suffix[1:] in VIDEO_EXTENSIONS)
        copies(made, Path(folder) / "videos", TIMES * len(made))
        _compare(Path(folder) / "videos", Path(folder) / "dataset", cores)


def _compare(sources: Path, output: Path, cores: int) -> None:
    files = list(sources.iterdir())
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        list(pool.map(_decode, files[:cores]))  # processes and libraries are there
        started = time.perf_counter()
        list(pool.map(_decode, files))
        decode_s = time.perf_counter() - started
    config = load_config("demo", [f"sources={sources}", f"output={output}"])
    with ray_session(config.ray):
        started = time.perf_counter()
        packed = curate(config)
        wall_s = time.perf_counter() - started
    model_s = sum(packed.stage_seconds.get(stage, 0.0) for stage in MODELS)
    allowed_s = 4 * decode_s + model_s / cores
    print(f"{packed.source_hours * 60:.1f} min of video on {cores} cores")
    print(f"decoding once {decode_s:.1f} s; models {model_s:.1f} s; curate {wall_s:.1f} s wall")
    print(f"allowed 4 x {decode_s:.1f} + {model_s:.1f} / {cores} = {allowed_s:.1f} s")
    print(f"ratio {wall_s / allowed_s:.2f}")
    total_s = sum(packed.stage_seconds.values())
    for stage, seconds in sorted(packed.stage_seconds.items(), key=lambda item: -item[1]):
        print(f"  {stage:<8} {seconds:7.1f} s  {seconds / total_s:.0%}")


def _decode(path: Path) -> int:
    try:
        return sum(1 for _ in read_frames(path))
    except MediaError:
        return 0


if __name__ == "__main__":
    main()
