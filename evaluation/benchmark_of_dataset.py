"""A split of a curated dataset as a benchmark.

manifest -> kept clips of the split -> entries: clip_id and measure_sha256 are what is in one
a sample -> its .mp4 is the ground truth, its .flac the audio, its first frame the reference
"""

from functools import partial
from pathlib import Path
from typing import Any

from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.media import read_frames
from data_pipeline.shards import Place, read_sample
from data_pipeline.storage import Location, replacing
from evaluation.benchmarks import BenchmarkError, BenchmarkItem, Entry
from evaluation.config import BenchmarkConfig

FACTS = ("yaw_deg_p95", "language", "face_fraction", "motion", "n_frames", "speaker", "identity_id")
PLACE = ("shard", "byte_offset", "byte_size")
LINEAGE = ("clip_id", "source_sha256", "source_uris")


def entries_of_dataset(config: BenchmarkConfig) -> tuple[list[Entry], dict[str, str], dict[str, Any]]:
    """The clips of a split, nothing missing, and the dataset's name, version and digest.

    Raises BenchmarkError."""
    from training.model.digest import digest_of

    try:
        dataset = Dataset.open(config.uri, config.version)
        rows = dataset.manifest([*FACTS, *PLACE, *LINEAGE, "measure_sha256", "split", "status"]).to_pylist()
    except (DatasetError, OSError) as error:
        raise BenchmarkError(f"benchmark: {error}") from None
    kept = [row for row in rows if row["status"] == "kept"]
    chosen = [row for row in kept if row["split"] == config.split]
    if not chosen:
        there = ", ".join(sorted({str(row["split"]) for row in kept})) or "none"
        raise BenchmarkError(
            f"benchmark {config.uri}: version {dataset.version.version} has no clip in split "
            f"{config.split!r}; splits with clips: {there}. Give benchmark.split, or make one: "
            "hallo3 dataset split"
        )
    version = dataset.version
    about = {
        "format": "dataset",
        "dataset": dataset.name,
        "version": version.version,
        "digest": digest_of({}, shards=version.shards, manifest=version.manifest_sha256),
        "split": config.split,
    }
    return [_entry(dataset.root / "shards", row) for row in chosen], {}, about


def _entry(shards: Location, row: dict[str, Any]) -> Entry:
    place = Place(*(row[name] for name in PLACE))
    return Entry(
        row["clip_id"],
        {"clip_id": row["clip_id"], "measure_sha256": row["measure_sha256"]},
        partial(_prepare, row["clip_id"], shards, place),
        {name: row[name] for name in FACTS},
        {
            "clip_id": row["clip_id"],
            "source_sha256": row["source_sha256"],
            "source_uris": " ".join(row["source_uris"] or []),
        },
    )


def _prepare(name: str, shards: Location, place: Place, folder: Path) -> BenchmarkItem:
    reference, audio, truth = (folder / f"{name}{suffix}" for suffix in (".png", ".flac", ".mp4"))
    if not (reference.exists() and audio.exists() and truth.exists()):
        sample = read_sample(shards, place)
        for suffix in (".mp4", ".flac"):
            with replacing(folder / f"{name}{suffix}") as temporary:
                temporary.write_bytes(sample[f"{name}{suffix}"])
        write_first_frame(truth, reference)
    return BenchmarkItem(name, reference, audio, truth)


def write_first_frame(video: Path, picture: Path) -> None:
    """As a PNG. Raises MediaError, OSError."""
    import cv2

    frame = next(read_frames(video)).rgb()
    whole, data = cv2.imencode(".png", frame[..., ::-1])
    if not whole:
        raise OSError(f"{picture}: the first frame of {video} cannot be coded")
    with replacing(picture) as temporary:
        temporary.write_bytes(data.tobytes())
