"""precompute: everything of a dataset that does not change while training, as a Ray job.

    configuration -> which kinds, made how (their digests)
    dataset's version x kinds -> shards that have no features yet
      -> workers, each with one kind's encoder loaded: clip after clip of a shard, in its order
      -> features/{kind}-{digest8}/{shard}.tar and its index

A shard's features are the unit: there whole, or made again by the next job. A clip that cannot be computed
is named in the index with its reason, and harms no other. A worker that dies is replaced and its shard is
begun anew, TRIES times. Workers compute on one thread, one clip at a time, so what comes out is the same
bytes however many they are.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data_pipeline.dataset import Dataset
from data_pipeline.feature_shards import (
    Feature,
    FeatureSet,
    bytes_of,
    is_done,
    remove_features,
    remove_unfinished,
    writing_features,
)
from data_pipeline.shards import Place, ShardError, read_sample
from data_pipeline.storage import Location
from training.config import TrainConfig
from training.encoders import fit_for_run
from training.features import FPS, KINDS, ClipMedia, Maker, load_maker

TRIES = 3

log = logging.getLogger(__name__)


class PrecomputeError(Exception):
    """A job that cannot begin, or that left shards undone; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Clip:
    """A clip of a shard: where its sample lies, and its length."""

    clip_id: str
    place: Place
    n_frames: int


@dataclass(frozen=True)
class Job:
    """One shard's features of one kind."""

    features: FeatureSet
    shard: str
    clips: tuple[Clip, ...]
    """In the shard's order."""


@dataclass(frozen=True)
class Work:
    """All that is to be done, and what is done already."""

    jobs: list[Job]
    done_before: int
    """Shards x kinds."""


@dataclass
class KindDone:
    """What became of one kind."""

    features: FeatureSet
    shards: int = 0
    clips: int = 0
    arrays: int = 0
    missing: int = 0
    """Arrays that could not be computed; the indexes say why."""
    bytes: int = 0
    wall_s: float = 0.0
    """From the job's begin to this kind's last shard."""


@dataclass(frozen=True)
class Written:
    """What a worker wrote of one shard."""

    arrays: int
    missing: int
    bytes: int


Step = Callable[[Job, int], None]
"""Called in the driver: so many clips of a job are computed."""


def default_kinds(config: TrainConfig) -> list[str]:
    """What a run of this configuration looks at: no text where it is zeros, no speech in phase identity."""
    return [
        *(["text"] if config.encoders.text != "none" else []),
        *(["speech"] if config.sizes.audio is not None else []),
        "latents",
        *(["conditions"] if config.conditions.stored_variants else []),
    ]


def with_autoencoder(config: TrainConfig, dataset: Dataset, kinds: Sequence[str] = KINDS) -> TrainConfig:
    """The configuration with an autoencoder: where it names none, the run's own, fitted if these need it.

    Raises EncodersError."""
    if config.encoders.autoencoder or not {"latents", "conditions"} & {*kinds}:
        return config
    folder = str(fit_for_run(config, dataset))
    return config.model_copy(update={"encoders": config.encoders.model_copy(update={"autoencoder": folder})})


def plan(dataset: Dataset, config: TrainConfig, kinds: Sequence[str]) -> Work:
    """What is to be done for these kinds. Leftovers of a job that was killed are deleted.

    Loads each kind's encoder once, for its digest. Raises PrecomputeError and EncodersError."""
    _check(config, kinds)
    shards = _shards(dataset)
    jobs, done = [], 0
    for kind in kinds:
        features = load_maker(kind, config).features
        remove_unfinished(dataset.root, features)
        left = [
            Job(features, shard, clips)
            for shard, clips in shards.items()
            if not is_done(dataset.root, features, shard)
        ]
        jobs += left
        done += len(shards) - len(left)
    return Work(jobs, done)


def precompute(
    dataset: Dataset, config: TrainConfig, work: Work, on_step: Step, workers: int | None = None
) -> tuple[list[KindDone], list[str]]:
    """Do the jobs; what was made, and in words the shards that could not be. Needs Ray to be connected.

    Args:
        workers: None: one a GPU, or one a CPU where there is none.

    Raises:
        PrecomputeError: there is no GPU, and the configuration asks for one.
    """
    done = {job.features: KindDone(job.features) for job in work.jobs}
    failures = []
    begun = time.monotonic()
    for job, outcome in _outcomes(work.jobs, dataset.root, config, workers):
        if isinstance(outcome, int):
            on_step(job, outcome)
        elif isinstance(outcome, str):
            failures.append(f"{job.features.kind} of {job.shard}: {outcome}")
        else:
            kind = done[job.features]
            kind.shards += 1
            kind.clips += len(job.clips)
            kind.arrays += outcome.arrays
            kind.missing += outcome.missing
            kind.bytes += outcome.bytes
            kind.wall_s = time.monotonic() - begun
    return list(done.values()), failures


def _outcomes(
    jobs: Sequence[Job], root: Location, config: TrainConfig, workers: int | None
) -> Iterator[tuple[Job, int | Written | str]]:
    """As they come: how many clips of a job are computed; at last what was written, or why nothing was."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    device, number, asked = _placing(config, workers)
    start = partial(ray.remote(Worker).options(**asked).remote, root, config, device)
    waiting = deque((job, 1) for job in jobs)
    idle: list[Any] = [start() for _ in range(min(number, len(jobs)))]
    running: dict[Any, tuple[Job, int, Any]] = {}
    while waiting or running:
        while waiting and idle:
            (job, attempt), worker = waiting.popleft(), idle.pop()
            running[worker.run.options(num_returns="streaming").remote(job)] = job, attempt, worker
        stream: Any = ray.wait(list(running), num_returns=1, fetch_local=False)[0][0]
        job, attempt, worker = running[stream]
        try:
            yield job, ray.get(next(stream))
            continue
        except StopIteration:
            idle.append(worker)
        except RayTaskError as error:
            idle.append(worker)
            yield job, f"{type(error.cause).__name__}: {error.cause}"
        except RayError:
            log.warning("a worker died with %s of %s", job.features.kind, job.shard)
            ray.kill(worker)  # or what it held is held for good, where only its answer was lost
            remove_unfinished(root, job.features, job.shard)
            idle.append(start())
            if attempt < TRIES:
                waiting.appendleft((job, attempt + 1))
            else:
                yield job, f"its worker died {TRIES} times; a clip that kills decoders, or too little memory"
        del running[stream]


def _placing(config: TrainConfig, workers: int | None) -> tuple[str, int, dict[str, Any]]:
    """On which device, how many workers, and what each asks of Ray."""
    import ray

    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if config.device != "cpu" else 0
    if config.device == "cuda" and not gpus:
        raise PrecomputeError("device=cuda, but no node of this Ray cluster has a GPU; give device=cpu")
    most = gpus or max(1, int(there.get("CPU", 1) // config.ray.cpus))
    asked = {"num_cpus": config.ray.cpus, "num_gpus": 1 if gpus else 0}
    return "cuda" if gpus else "cpu", min(workers or most, most), asked


class Worker:
    """Computes shards, in an actor; keeps the encoder of the kind that it is at."""

    def __init__(self, root: Location, config: TrainConfig, device: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.root = root
        self.config = config
        self.device = device
        self._maker: Maker | None = None

    def run(self, job: Job) -> Iterator[int | Written]:
        """How many clips are computed, after each; at the end what was written.

        Raises PrecomputeError where this machine's encoder is another one or no clip at all can be computed,
        OSError for storage that does not work, and what says that memory is short: another try may do."""
        maker = self._maker_of(job.features)
        with writing_features(self.root, job.features, job.shard) as writer:
            for number, clip in enumerate(job.clips, start=1):
                for feature in _features(maker, self.root, clip):
                    writer.add(feature)
                yield number
            if writer.missing > 1 and not writer.arrays:
                raise PrecomputeError(
                    f"none of its clips can be computed; the first: {writer.rows[0]['error']}"
                )
        if not (self.root / "shards" / job.shard).exists():
            remove_features(self.root, job.features, job.shard)
            raise PrecomputeError("the shard was deleted meanwhile, as a purge does; nothing is kept of it")
        yield Written(writer.arrays, writer.missing, bytes_of(self.root, job.features, job.shard))

    def _maker_of(self, features: FeatureSet) -> Maker:
        if self._maker is None or self._maker.features != features:
            self._maker = None  # two need not fit beside each other
            maker = load_maker(features.kind, self.config, self.device)
            if maker.features != features:
                raise PrecomputeError(
                    f"the encoder on this machine has the digest {maker.features.digest}, where the job was "
                    f"begun it has {features.digest}; have the same files everywhere"
                )
            self._maker = maker
        return self._maker


def _features(maker: Maker, root: Location, clip: Clip) -> list[Feature]:
    """A clip's arrays; where anything is wrong with the clip, the reason instead of each."""
    import torch

    keys = maker.features.keys(clip.clip_id, clip.n_frames)
    if not keys:
        return []
    try:
        members = read_sample(root / "shards", clip.place)
        media = ClipMedia(
            clip.clip_id, clip.n_frames, {f".{name.partition('.')[2]}": members[name] for name in members}
        )
        arrays = list(maker.arrays(media))
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("its features are not finite numbers")
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # one broken clip harms only itself
        if isinstance(error, ShardError) and isinstance(error.__cause__, OSError):  # storage, not the clip
            raise
        reason = f"{type(error).__name__}: {error}"
        return [Feature(key, None, reason) for key in keys]
    return [Feature(key, array) for key, array in zip(keys, arrays, strict=True)]


def _check(config: TrainConfig, kinds: Sequence[str]) -> None:
    unknown = sorted({*kinds} - {*KINDS})
    if unknown or not kinds:
        raise PrecomputeError(
            f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(unknown) or 'none'}"
        )
    if "text" in kinds and config.encoders.text == "none":
        raise PrecomputeError("kinds: encoders.text is none, whose zeros are not stored; leave text out")


def _shards(dataset: Dataset) -> dict[str, tuple[Clip, ...]]:
    """The clips of every shard of the version, in their order. Raises PrecomputeError."""
    columns = ["clip_id", "shard", "byte_offset", "byte_size", "n_frames", "fps"]
    rows = dataset.manifest(columns)
    rows = rows.filter(pc.is_valid(rows["shard"])).sort_by(
        [("shard", "ascending"), ("byte_offset", "ascending")]
    )
    if not rows.num_rows:
        raise PrecomputeError(
            f"{dataset.root}: version {dataset.version.version} keeps no clip; `hallo3 dataset show` says why"
        )
    found: dict[str, list[Clip]] = {}
    for row in rows.to_pylist():
        if row["fps"] != FPS:
            raise PrecomputeError(
                f"{dataset.root}: clip {row['clip_id']} has {row['fps']} frames a second, models are "
                f"trained on {FPS}; curate with encode.fps={FPS}"
            )
        place = Place(row["shard"], row["byte_offset"], row["byte_size"])
        found.setdefault(row["shard"], []).append(Clip(row["clip_id"], place, row["n_frames"]))
    return {shard: tuple(clips) for shard, clips in found.items()}
