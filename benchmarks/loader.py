"""The loader: stored features against reading the same bytes with nothing else, and against making them.

    python -m benchmarks.loader [--sizes full tiny] [--ways rates steps] [--clips 12] [--seconds 1] [--cold]
                                [--threads 2] [--repeats 7]

    raw                the feature tars from their first byte to their last, into one buffer, one thread
    raw, to memory     the same, each tar into memory of its own, as whoever uses the bytes must
    webdataset         the same through webdataset, members as bytes, one thread
    stored             Samples with features=stored: bytes of the features that are in the batches
    stored, new clips  the same with nothing kept: each face is read and opened again
    on the fly         pixels decoded and encoded (patch PCA, 3 encodings a sample); speech too where it is
                       log-mel (tiny); at full size speech and text stay stored, their networks are not here

`full` has the sizes of hallo3_5b: latents 13 x 16 x 60 x 90, text 226 x 4096, speech 12 x 768, two variants
of conditions, filled with noise in float16; clips of 99 frames, 720 x 480. `tiny` is the demo's model, 256 x
256. The ways take short turns, so that another load falls on all of them; medians count. `--cold`: the tars
are dropped from the page cache before each turn, and are read but once.

Then the demo's model is trained, 8 samples a step: seconds a step with stored features, on the fly where all
clips' pictures fit in memory, and on the fly where none do.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from data_pipeline.config_file import checked
from data_pipeline.dataset import Dataset
from data_pipeline.feature_shards import Feature, FeatureSet, writing_features
from tests.training.datasets import make_dataset
from tests.training.engine_run import alone
from training import samples as loader
from training.batch import Batch
from training.config import TrainConfig
from training.encoders import Encoders, LogMel
from training.features import makers
from training.model.config import PRESETS
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.text import NoText

BLOCK = 1 << 20
N_FRAMES = 99  # three windows of 49 at a stride of 25
BATCH = 8
STEPS, STEPS_TO_WARM_UP = 30, 6
FIGURES = ("step_s", "data_wait_share")
MODELS = {"full": "hallo3_5b", "tiny": "tiny"}
PICTURES = {"full": (720, 480), "tiny": (256, 256)}


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--ways", nargs="+", choices=["rates", "steps"], default=["rates", "steps"])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="that each way is measured, a turn")
    parser.add_argument("--threads", type=int, default=2, help="of the loader")
    parser.add_argument("--repeats", type=int, default=7, help="turns; one of on the fly")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for size in options.sizes:
        with TemporaryDirectory(prefix="hallo3-loader-") as folder:
            run, encoders = prepared(size, Path(folder), options)
            if "rates" in options.ways:
                compare_rates(size, run, encoders, options)
            if "steps" in options.ways and size == "tiny":
                compare_steps(run, encoders)


def compare_rates(size: str, run: TrainConfig, encoders: Encoders, options: argparse.Namespace) -> None:
    """Print each way's samples and bytes a second, and its share of the raw rate."""
    root = Path(run.datasets[0].uri)
    tars = sorted(root.glob("features/*/*.tar"))
    making = live(run, "auto" if size == "full" else "on_the_fly")
    ways: dict[str, Callable[[float], Rate]] = {
        "raw": lambda seconds: whole(tars, raw, seconds),
        "raw, to memory": lambda seconds: whole(tars, to_memory, seconds),
        "webdataset": lambda seconds: whole(tars, through_webdataset, seconds),
        "stored": lambda seconds: through_loader(run, encoders, seconds, loader.KEPT_BYTES),
        "stored, new clips": lambda seconds: through_loader(run, encoders, seconds, 0),
        "on the fly": lambda seconds: through_loader(making, encoders, seconds, 0),
    }
    if options.cold:
        del ways["on the fly"]
    found: dict[str, list[Rate]] = {name: [] for name in ways}
    for turn in range(options.repeats):
        for name, way in ways.items():
            if name == "on the fly" and turn:
                continue
            if options.cold:
                forget([*tars, *root.glob("shards/*.tar")])
            found[name].append(way(0 if options.cold else options.seconds))
    total = sum(tar.stat().st_size for tar in tars)
    print(f"{size}: {total / 1e6:.0f} MB of features, {options.threads} threads", flush=True)
    print(f"    {'':18s} {'MB/s':>8s} {'of raw':>8s} {'to memory':>10s} {'samples/s':>10s}")
    raw_s, memory_s = (median(found[name]).bytes_s for name in ("raw", "raw, to memory"))
    for name, rates in found.items():
        rate = median(rates)
        shares = f"{rate.bytes_s / 1e6:8.0f} {rate.bytes_s / raw_s:8.1%} {rate.bytes_s / memory_s:10.1%}"
        samples_s = f"{rate.samples_s:10.1f}" if rate.samples_s else ""
        print(f"    {name:18s} {shares if rate.bytes_s else ' ' * 28} {samples_s}", flush=True)


def compare_steps(run: TrainConfig, encoders: Encoders) -> None:
    """Print seconds a training step, and which share of them waits for samples."""
    print(f"training steps of {BATCH} samples, {run.samples.threads} threads of the loader", flush=True)
    making = live(run, "on_the_fly")
    for name, config, kept_bytes in (
        ("stored", run, loader.KEPT_BYTES),
        ("on the fly, pictures kept", making, loader.KEPT_BYTES),
        ("on the fly", making, 0),
    ):
        steps = trained(config, encoders, kept_bytes)
        step_s, waited = (statistics.median(step[what] for step in steps) for what in FIGURES)
        print(f"    {name:26s} {step_s:7.3f} s a step, {waited:6.1%} of it waiting", flush=True)


@dataclass(frozen=True)
class Rate:
    """Of one way, a second."""

    bytes_s: float
    samples_s: float = 0.0


def median(rates: Sequence[Rate]) -> Rate:
    return Rate(
        statistics.median(rate.bytes_s for rate in rates), statistics.median(rate.samples_s for rate in rates)
    )


# --- the dataset


def prepared(size: str, folder: Path, options: argparse.Namespace) -> tuple[TrainConfig, Encoders]:
    """A run with a dataset of its own, whose features are all stored."""
    dataset = make_dataset(folder / "dataset", options.clips, N_FRAMES, PICTURES[size], shard_bytes=8e6)
    encoders = named_encoders(size)
    run = config(size, dataset, folder / "run", options.threads)
    fill(dataset, run, encoders)
    return run, encoders


def config(size: str, dataset: Dataset, output: Path, threads: int) -> TrainConfig:
    values: dict[str, Any] = {"phase": "audio", "dataset": str(dataset.root), "output": str(output)}
    values |= {"device": "cpu", "batch": 1, "validation": {"every_steps": None}}
    values["encoders"] = {"autoencoder": "patch_pca", "text": "none" if size == "tiny" else "t5"}
    values["samples"] = {"features": "stored", "threads": threads, "ahead": 2 * threads}
    never = {f"drop_{name}": 0.0 for name in ("text", "image", "reference", "audio")}
    values["conditions"] = never | {"stored_variants": 2}
    values["model"] = {"preset": MODELS[size], "face": {"embedding_dim": 128}}
    return checked(TrainConfig, values, [], size)


def live(run: TrainConfig, features: str) -> TrainConfig:
    """The same run with its pixels decoded and encoded for every sample."""
    values = run.model_dump()
    values["samples"] |= {"features": features, "window_stride": 24}
    values["conditions"]["stored_variants"] = None
    return TrainConfig.model_validate(values)


@dataclass(frozen=True)
class Named:
    """A network that is not here: its features are stored under its name."""

    digest: str


def named_encoders(size: str) -> Encoders:
    model = PRESETS[MODELS[size]]
    noise = torch.randn(1, 3, 9, 128, 128, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    autoencoder = PatchPcaAutoencoder.fit([noise], model.out_channels)
    if size == "tiny":
        return Encoders(autoencoder, NoText(model.text_length, model.text_dim), LogMel())
    return Encoders(autoencoder, Named("t5-is-not-here"), Named("wav2vec2-is-not-here"))  # type: ignore[arg-type]


def fill(dataset: Dataset, run: TrainConfig, encoders: Encoders) -> None:
    """Noise in place of all features."""
    random = np.random.default_rng(0)
    rows = dataset.manifest(["clip_id", "n_frames", "shard", "byte_offset"]).to_pylist()
    for kind, maker in makers(run, encoders).items():
        if kind == "text" and run.encoders.text == "none":
            continue
        features = maker.features
        shape = shape_of(features, run)
        noise = random.normal(size=shape).astype(np.float16)
        for shard in dataset.version.shards:
            held = sorted((row for row in rows if row["shard"] == shard), key=lambda row: row["byte_offset"])
            with writing_features(dataset.root, features, shard) as writer:
                for row in held:
                    for key in features.keys(row["clip_id"], row["n_frames"]):
                        writer.add(Feature(key, noise))


def shape_of(features: FeatureSet, run: TrainConfig) -> tuple[int, ...]:
    model = run.sizes
    grid = model.out_channels, model.latent_height, model.latent_width
    assert model.audio is not None
    return {
        "text": (model.text_length, model.text_dim),
        "speech": (N_FRAMES, model.audio.layers, model.audio.channels),
        "latents": (model.latent_frames, *grid),
        "conditions": (features.variants or 1, 2, 1, *grid),
    }[features.kind]


# --- the ways


def whole(tars: Sequence[Path], read: Callable[[Path], int], seconds: float) -> Rate:
    """Bytes a second of reading all tars, once and again and again."""
    begun = time.perf_counter()
    total = sum(read(tar) for tar in tars)
    while time.perf_counter() - begun < seconds:
        total += sum(read(tar) for tar in tars)
    return Rate(total / (time.perf_counter() - begun))


def raw(tar: Path) -> int:
    total, block = 0, bytearray(BLOCK)
    with tar.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            total += count
    return total


def to_memory(tar: Path) -> int:
    return len(tar.read_bytes())


def through_webdataset(tar: Path) -> int:
    import webdataset

    found = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    return sum(len(data) for sample in found for data in sample.values() if isinstance(data, bytes))


def through_loader(run: TrainConfig, encoders: Encoders, seconds: float, kept_bytes: int) -> Rate:
    """Samples a second once it runs (from its first batch on, where that is to be once through all), and
    bytes of stored features in them."""
    with patch.object(loader, "KEPT_BYTES", kept_bytes), loader.Samples(run, encoders) as samples:
        batches = iter(samples)
        windows = samples.about()["datasets"][0]["windows"]
        if seconds:
            next(batches)
        begun = time.perf_counter()
        count, total = 0, 0
        while time.perf_counter() - begun < seconds or (not seconds and count < windows):
            for batch in next(batches):
                assert bool(batch.weight.all()), samples.broken.reasons
                count += 1
                total += stored_bytes(batch, run)
        took = time.perf_counter() - begun
    return Rate(total / took, count / took)


def stored_bytes(batch: Batch, run: TrainConfig) -> int:
    """Of the batch's parts, as they lie in the tars; 0 for a run that makes them itself."""
    if run.samples.features != "stored":
        return 0
    assert batch.audio is not None
    frames, window = batch.audio.shape[1:3]
    rows = frames + window - 1 if frames + window - 1 < N_FRAMES else N_FRAMES
    speech = batch.audio[0, 0, 0].numel() * rows
    parts = [batch.latents, batch.image_condition, batch.reference_latent]
    if run.encoders.text != "none":
        parts.append(batch.text)
    return 2 * (speech + sum(part.numel() for part in parts))


def trained(run: TrainConfig, encoders: Encoders, kept_bytes: int) -> list[dict[str, float]]:
    """The figures of a training run's steps but the first few."""
    from training.checkpoint import TrainState
    from training.diffusion import ZeroSnrSchedule
    from training.engine import start_engine
    from training.objective import TrainingObjective
    from training.start_model import start_model
    from training.trainer import train

    steps: list[dict[str, float]] = []
    given = {"batch": BATCH, "micro_batch": BATCH, "max_steps": STEPS, "precision": "fp32"}
    run = TrainConfig.model_validate(run.model_dump() | given | {"trainable": "all", "recompute": "nothing"})
    with (
        alone(),
        TemporaryDirectory(prefix="hallo3-loader-") as output,
        patch.object(loader, "KEPT_BYTES", kept_bytes),
        loader.Samples(run, encoders) as samples,
    ):
        run = TrainConfig.model_validate(run.model_dump() | {"output": output})
        engine = start_engine(
            TrainingObjective(start_model(run).model, ZeroSnrSchedule()), run, torch.device("cpu")
        )
        train(
            engine,
            iter(samples),
            TrainState(),
            run,
            lambda _, figures: steps.append(figures),
            lambda _: None,
        )
    return steps[STEPS_TO_WARM_UP:]


def forget(paths: Sequence[Path]) -> None:
    """Have files read from their disk again."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main(sys.argv[1:])
