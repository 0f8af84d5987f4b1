"""verify: proof that a dataset is whole. Every file has its digest, every member of every sample
decodes, what it holds is what the manifest says, and features are those of the clips that they belong to."""

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data_pipeline.clip import ANALYSIS_RATE
from data_pipeline.dataset import MANIFEST, Dataset, labels_path
from data_pipeline.feature_shards import indexes_of, wrong_features
from data_pipeline.shards import MEMBERS, Place, ShardError, file_sha256, read_sample
from data_pipeline.storage import Location


def verify(dataset: Dataset, workers: int = 2) -> Iterator[str]:
    """Every problem of a dataset's version in words; none for a dataset that is whole."""
    problems = list(_wrong_files(dataset))
    yield from problems
    if problems:
        return
    rows = dataset.manifest()
    if rows.schema != MANIFEST:
        yield f"the manifest's columns are not those of schema version {dataset.version.schema_version}"
        return
    if len(set(ids := [x for x in rows["clip_id"].to_pylist() if x])) != len(ids):
        yield "the manifest names a clip more than once"
    kept = rows.filter(pc.equal(rows["status"], "kept")).to_pylist()
    by_shard: dict[str, list[dict[str, Any]]] = {name: [] for name in dataset.version.shards}
    for row in kept:
        if row["shard"] not in by_shard:
            yield f"clip {row['clip_id']}: kept, but its shard {row['shard']} is not of this version"
        else:
            by_shard[row["shard"]].append(row)
    folder = dataset.root / "shards"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(_wrong_samples, [folder] * len(by_shard), by_shard, by_shard.values()):
            yield from found
        indexes = list(indexes_of(dataset))
        clips = [_in_order(by_shard[shard]) for _, shard in indexes]
        paths = [path for path, _ in indexes]
        for found in pool.map(wrong_features, [dataset.root] * len(paths), paths, clips):
            yield from found


def _in_order(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """A shard's clips as they lie in it, each with its number of frames."""
    return [(row["clip_id"], row["n_frames"]) for row in sorted(rows, key=lambda row: row["byte_offset"])]


def _wrong_files(dataset: Dataset) -> Iterator[str]:
    version = dataset.version
    files = version.manifest_sha256 | {f"shards/{name}": digest for name, digest in version.shards.items()}
    if version.identities_sha256 is not None:
        files |= {f"identities/{version.version}.parquet": version.identities_sha256}
    if version.labels_sha256 is not None:
        files |= {f"labels/{labels_path(dataset.root, version.labels_sha256).name}": version.labels_sha256}
    for name, digest in sorted(files.items()):
        path = dataset.root / name
        if not path.exists():
            yield f"{name}: missing"
        elif (found := file_sha256(path)) != digest:
            yield f"{name}: its sha256 is {found[:12]}…, version {version.version} says {digest[:12]}…"


def _wrong_samples(folder: Location, shard: str, rows: list[dict[str, Any]]) -> list[str]:
    """Problems of one shard, against the manifest's rows that lie in it."""
    problems = []
    held = 0
    for row in rows:
        held += row["byte_size"]
        try:
            sample = read_sample(folder, Place(shard, row["byte_offset"], row["byte_size"]))
            problems += [f"{shard}, clip {row['clip_id']}: {problem}" for problem in _wrong_in(sample, row)]
        except ShardError as error:
            problems.append(str(error))
    size = (folder / shard).stat().st_size
    closed = held + 2 * tarfile.BLOCKSIZE  # tar closes with two empty blocks, and fills whole records
    if size > -(-closed // tarfile.RECORDSIZE) * tarfile.RECORDSIZE:
        problems.append(f"{shard}: {size - held} bytes belong to no clip of the manifest")
    return problems


def _wrong_in(sample: dict[str, bytes], row: dict[str, Any]) -> Iterator[str]:
    names = [row["clip_id"] + suffix for suffix in MEMBERS]
    if list(sample) != names:
        yield f"its members are {sorted(sample)}, expected {names}"
        return
    video, sound, arrays, facts, caption = sample.values()
    try:
        yield from _wrong_media(video, sound, row)
        yield from _wrong_arrays(arrays, row)
        if json.loads(facts)["clip_id"] != row["clip_id"]:
            yield "its .json tells of another clip"
        if caption.decode() != (row["caption"] or ""):
            yield "its .txt is not the manifest's caption"
    except Exception as error:  # noqa: BLE001 - any failure to decode is the finding
        yield f"does not decode: {type(error).__name__}: {error}"


def _wrong_media(video: bytes, sound: bytes, row: dict[str, Any]) -> Iterator[str]:
    from data_pipeline.media import probe, read_audio, read_frames

    with TemporaryDirectory() as folder:
        path, sound_path = Path(folder) / "clip.mp4", Path(folder) / "clip.flac"
        path.write_bytes(video)
        sound_path.write_bytes(sound)
        shape = probe(path).video
        n_frames = sum(1 for _ in read_frames(path))
        n_samples = len(read_audio(sound_path))
    found = (shape.width, shape.height, n_frames) if shape else None
    expected = (row["width"], row["height"], row["n_frames"])
    if found != expected:
        yield f"its video has width, height, frames {found}, expected {expected}"
    if n_samples != round(row["n_frames"] * ANALYSIS_RATE / row["fps"]):
        yield f"its sound has {n_samples} samples for {row['n_frames']} frames at {row['fps']} fps"


def _wrong_arrays(arrays: bytes, row: dict[str, Any]) -> Iterator[str]:
    with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
        boxes, landmarks, identity = file["boxes"], file["landmarks"], file["identity"]
    if boxes.shape != (row["n_frames"], 4):
        yield f"its boxes have the shape {boxes.shape}, expected {(row['n_frames'], 4)}"
    if landmarks.ndim != 3 or landmarks.shape[0] != row["n_frames"] or landmarks.shape[2] != 2:
        yield f"its landmarks have the shape {landmarks.shape}, expected ({row['n_frames']}, K, 2)"
    if identity.ndim != 1 or not np.isfinite(identity).all():
        yield "its identity is no finite vector"
