"""Decoding, end to end: PyAV against decord in one run, as ratios.

    python -m benchmarks.decode [--seconds 4] [--repeats 3]

Every way gives the same thing, RGB pictures of at most 320 px as numpy arrays, from the same H.264 file.
The runs take turns, so that another load on the machine falls on all of them, and the median counts.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import media
from tests.data_pipeline.makers import write_video

SIZES = [(640, 360), (1920, 1080)]
ANALYSIS_PX = 320
N_RANDOM = 12


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the clips")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = write_video(
                Path(folder) / f"{size[0]}.mp4",
                n_frames=round(options.seconds * 25),
                size=size,
                gop=50,
                pixels=moving_texture,
                options={"preset": "veryfast", "crf": "20"},
            )
            compare(f"{size[0]}x{size[1]}, all frames", sequential(path, size), options.repeats)
            compare(
                f"{size[0]}x{size[1]}, {N_RANDOM} frames anywhere", random_access(path, size), options.repeats
            )


def moving_texture(k: int, width: int, height: int) -> np.ndarray:
    """A sharp texture that drifts: as costly to decode as footage."""
    texture = np.random.default_rng(0).integers(60, 200, (height // 8 + 1, width // 8 + 64, 3), np.uint8)
    return np.ascontiguousarray(texture.repeat(8, 0).repeat(8, 1)[:height, 3 * k % 500 :][:, :width])


def sequential(path: Path, size: tuple[int, int]) -> dict[str, Callable[[], int]]:
    return {
        "decord, 1 thread": lambda: decord_all(path, size, threads=1),
        "decord, all threads": lambda: decord_all(path, size, threads=0),
        "PyAV, 1 thread": lambda: pyav_all(path, threads=1),
        "PyAV, all threads": lambda: pyav_all(path, threads=0),
    }


def random_access(path: Path, size: tuple[int, int]) -> dict[str, Callable[[], int]]:
    n_frames = len(decord_reader(path, size, threads=1))
    times_s = np.random.default_rng(1).uniform(0, n_frames / 25 - 0.04, N_RANDOM).tolist()
    return {
        "decord, 1 thread": lambda: len(media.frames_at(path, times_s, ANALYSIS_PX)),
        "PyAV, 1 thread": lambda: sum(pyav_one(path, time_s) for time_s in times_s),
    }


def decord_reader(path: Path, size: tuple[int, int], threads: int) -> Any:
    import decord

    height = round(size[1] * ANALYSIS_PX / size[0])
    return decord.VideoReader(str(path), decord.cpu(0), ANALYSIS_PX, height, num_threads=threads)


def decord_all(path: Path, size: tuple[int, int], threads: int) -> int:
    return sum(bool(picture.asnumpy().any()) for picture in decord_reader(path, size, threads))


def pyav_all(path: Path, threads: int) -> int:
    return sum(bool(frame.rgb(ANALYSIS_PX).any()) for frame in media.read_frames(path, threads=threads))


def pyav_one(path: Path, time_s: float) -> int:
    frame = next(media.read_frames(path, start_s=time_s))
    return int(frame.rgb(ANALYSIS_PX).any())


def compare(title: str, ways: dict[str, Callable[[], int]], repeats: int) -> None:
    """Print each way's median time, and how many times as fast it is as the first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts = set()
    for _ in range(repeats):
        for name, read in ways.items():
            started = time.perf_counter()
            counts.add(read())
            seconds[name].append(time.perf_counter() - started)
    assert len(counts) == 1, f"the ways read different numbers of frames: {counts}"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians[next(iter(ways))]
    print(f"{title} ({counts.pop()})")
    for name, median in medians.items():
        print(f"    {name:22s} {median * 1000:8.0f} ms   {reference / median:5.2f} x")


if __name__ == "__main__":
    main(sys.argv[1:])
