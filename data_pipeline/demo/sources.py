"""The demo's source videos on disk, and the truth about each.

    recipe -> scene -> FOLDER/{name}, FOLDER/truth/{name}.npz;  all of them -> FOLDER/truth.csv

Every file is made from its recipe and the seed alone, so it is the same file wherever it is made.
"""

import csv
import os
import zlib
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from data_pipeline.demo.recipes import DemoSource, Scene, recipes
from data_pipeline.demo.speech import RATE
from data_pipeline.demo.video import write_video

POSE_FIELDS = ("opening", "width", "blink", "yaw_deg", "pitch_deg", "roll_deg")


def make_sources(
    folder: Path, seed: int = 0, *, only: list[str] | None = None, workers: int = 2
) -> list[DemoSource]:
    """Write the demo's videos into `folder`, those that are not there yet, and truth.csv.

    `only`: the names of the wanted sources, which include those that they derive from; all where None.
    The portraits and the speech are fetched on first use: raises WeightsUnavailable where they cannot be."""
    every = recipes()
    wanted = [every[name] for name in (every if only is None else only)]
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    missing = [recipe for recipe in wanted if not (folder / recipe.source.name).exists()]
    _render_all([recipe.source.name for recipe in missing if recipe.scene], folder, seed, workers)
    for recipe in missing:
        if recipe.derive:
            target = folder / recipe.source.name
            recipe.derive(folder, _partial(target))
            os.replace(_partial(target), target)
    sources = [recipe.source for recipe in wanted]
    _write_truth(folder / "truth.csv", sources)
    return sources


def _render_all(names: list[str], folder: Path, seed: int, workers: int) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    if workers <= 1 or len(names) <= 1:
        for name in names:
            _render(name, folder, seed)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for rendered in [pool.submit(_render, name, folder, seed) for name in names]:
            rendered.result()


def _render(name: str, folder: Path, seed: int) -> None:
    """One scene; its file appears whole or not at all."""
    import cv2

    cv2.setNumThreads(1)
    make = recipes()[name].scene
    if make is None:
        raise ValueError(f"{name} is derived from another source, not rendered")
    scene = make(np.random.default_rng([seed, zlib.crc32(name.encode())]))
    target = folder / name
    write_video(_partial(target), scene.frames(), scene.fps, scene.sound, RATE, **scene.encoding)
    np.savez_compressed(folder / "truth" / f"{target.stem}.npz", **_truth_of(scene))  # type: ignore[arg-type]
    os.replace(_partial(target), target)


def _partial(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}.{path.name}")


def _truth_of(scene: Scene) -> dict[str, np.ndarray]:
    """`aperture` (F,) in face heights, the poses' values (F,), the phones that the lips say (P,), `fps`."""
    poses = [pose for shot in scene.shots for pose in shot.poses]
    phones, offset_s = [], 0.0
    for shot in scene.shots:
        shot_s = len(shot.poses) / shot.fps
        phones += [
            (phone.label, offset_s + phone.start_s, offset_s + min(phone.end_s, shot_s))
            for phone in shot.utterance.phones
            if phone.start_s < shot_s
        ]
        offset_s += shot_s
    symbols, start_s, end_s = zip(*phones, strict=True)
    return {
        "aperture": np.concatenate([shot.apertures() for shot in scene.shots]),
        **{name: np.array([getattr(pose, name) for pose in poses], np.float32) for name in POSE_FIELDS},
        "phones": np.array(symbols),
        "phone_start_s": np.array(start_s),
        "phone_end_s": np.array(end_s),
        "fps": np.array(scene.fps),
    }


def _write_truth(path: Path, sources: list[DemoSource]) -> None:
    with _partial(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [column.name for column in fields(DemoSource)])
        table.writeheader()
        table.writerows(asdict(source) for source in sources)
    os.replace(_partial(path), path)
