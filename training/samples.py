"""The loader: which batches a worker gets, step after step, made ahead in the background.

    step s, place i -> position s * batch + i of the run's endless stream -> dataset and window (order.py)
      -> threads read, decode and encode: one sample each (sample.py)
      -> this worker's samples, micro_batch at a time -> list[Batch], one for each of the step's micro-batches

A sample that cannot be made leaves its place empty: zeros of weight 0, on whichever worker it falls, however
many there are. What is wrong with it is told once a clip. A run's only state is its step.
"""

import logging
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from zipfile import BadZipFile

import torch
from torch import Tensor

from data_pipeline.feature_shards import FeatureMissing, window_key
from data_pipeline.media import MediaError
from data_pipeline.shards import ShardError
from training.batch import Batch
from training.config import TrainConfig
from training.diffusion.noise import seed_of
from training.encoders import Encoders
from training.model.digest import digest_of
from training.order import EpochOrder, Mixture, places_of
from training.recent import Recent
from training.sample import KEPT_BYTES, Draw, Sample, SampleMaker, UnfitFace, empty_sample, stored_features
from training.windows import SamplesError, Selection, Window, evenly, preview_clips, select

__all__ = ["Samples", "SamplesError", "held_out", "preview_clips"]

HELD_OUT = Draw(seed=0, step=-1, place=0, training=False)
"""Held-out samples are the same in every run, whatever its seed."""

CLIPS_TRIED = 8
BROKEN = (
    *(ShardError, MediaError, FeatureMissing, BadZipFile, zlib.error, EOFError),
    *(LookupError, OSError, RuntimeError, ValueError),
)
"""What a clip that is damaged, gone or not as the manifest says may raise; anything else is a fault here."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """What became of one place of a batch."""

    sample: Sample
    place: int
    whole: bool
    """False: it is broken, and `sample` is empty."""


class Broken:
    """What could not be made so far, told once a clip; for several threads."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        """By clip_id."""

    def add(self, window: Window, error: Exception) -> None:
        clip_id = window.clip.clip_id
        reason = f"{type(error).__name__}: {error}"
        if self.reasons.setdefault(clip_id, reason) is reason:
            log.warning("samples of clip %s are skipped: %s", clip_id, reason)


class Samples:
    """The batches of one worker from a step on; read ahead by threads until closed.

        with Samples(config, encoders, data_rank, first_step) as samples:
            for batches in samples:  # a step's micro-batches, in order

    Args:
        data_rank: 0 ... config.data_parallel - 1; workers that compute a sample together have the same.
        first_step: counted from 0 at the begin of the run.

    Raises:
        SamplesError: there is nothing to train on, or it is of other sizes than the model's.
    """

    def __init__(
        self, config: TrainConfig, encoders: Encoders, data_rank: int = 0, first_step: int = 0
    ) -> None:
        self.config = config
        self.broken = Broken()
        self._places = places_of(data_rank, config.data_parallel, config.batch)
        self._next_step = first_step
        self._selections = select(config)
        self._makers = _makers(config, self._selections, encoders)
        for maker, each in zip(self._makers, self._selections, strict=True):
            _check_fits(maker, each)
        self._mixture = _mixture(config, self._selections)
        self._threads = ThreadPoolExecutor(config.samples.threads, thread_name_prefix="samples")
        self._coming: deque[list[Future[Made]]] = deque()

    def __iter__(self) -> Iterator[list[Batch]]:
        """Step after step, without end; from where it was left, if asked again."""
        while True:
            while len(self._coming) < self.config.samples.ahead:
                step = self._next_step
                self._coming.append([self._threads.submit(self._made, step, place) for place in self._places])
                self._next_step += 1
            made = [each.result() for each in self._coming[0]]
            self._coming.popleft()
            yield _batches(made, self.config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what they have begun is still finished."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    def about(self) -> dict[str, Any]:
        """What the run is trained on, for its checkpoint and the model's card."""
        judged = [each.held_out for each in self._selections]
        return {
            "datasets": [_about(*both) for both in zip(self._selections, self._makers, strict=True)],
            "held_out": {
                "clips": sum(windows.clips for windows in judged),
                "windows": min(sum(len(windows) for windows in judged), self.config.validation.windows),
            },
        }

    def _made(self, step: int, place: int) -> Made:
        """The sample of a place of a step's batch."""
        dataset, number = self._mixture.at(step * self.config.batch + place)
        window = self._selections[dataset].trained[number]
        return _try(self._makers[dataset], window, Draw(self.config.seed, step, place), self.broken)


def held_out(config: TrainConfig, encoders: Encoders, data_rank: int = 0) -> list[Batch]:
    """This worker's share of the windows that a run is judged by, the same ones every time.

    `validation.windows` of them, evenly over all held-out clips, numbered by `Batch.positions`. Every worker
    has as many batches; the last are filled up with samples of weight 0. Empty, for all workers, where
    nothing is held out.
    """
    selections = select(config)
    makers = _makers(config, selections, encoders)
    there = [
        (maker, each.held_out, number)
        for maker, each in zip(makers, selections, strict=True)
        for number in range(len(each.held_out))
    ]
    chosen = [there[at] for at in evenly(len(there), config.validation.windows)]
    at_once = config.data_parallel * config.micro_batch
    broken = Broken()
    made = []
    for place in places_of(data_rank, config.data_parallel, -(-len(chosen) // at_once) * at_once):
        if place < len(chosen):
            maker, windows, number = chosen[place]
            made.append(_try(maker, windows[number], replace(HELD_OUT, place=place), broken))
        else:
            made.append(Made(empty_sample(config, "nothing"), place, whole=False))
    return _batches(made, config)


def _makers(config: TrainConfig, selections: Sequence[Selection], encoders: Encoders) -> list[SampleMaker]:
    recent = Recent(KEPT_BYTES)
    n_frames = sum(each.trained.n_frames + each.held_out.n_frames for each in selections)
    stored = [stored_features(each.dataset, config, encoders) for each in selections]
    return [
        SampleMaker(config, each.dataset, encoders, found, recent, n_frames)
        for each, found in zip(selections, stored, strict=True)
    ]


def _mixture(config: TrainConfig, selections: Sequence[Selection]) -> Mixture:
    orders = tuple(
        EpochOrder(
            each.trained.shard_sizes,
            seed_of("dataset", config.seed, number),
            config.samples.order,
            config.samples.buffer,
        )
        for number, each in enumerate(selections)
    )
    try:
        return Mixture(orders, tuple(each.weight for each in selections), config.seed)
    except ValueError as error:
        raise SamplesError(f"dataset: {error}") from error


def _check_fits(maker: SampleMaker, selection: Selection) -> None:
    """Whether the faces of a dataset are of the model's size: all its clips have them of one backend.

    By the first clip that can be read; where none of the first few can, that shows as broken samples."""
    for at in range(min(CLIPS_TRIED, selection.trained.clips)):
        clip = selection.trained.clip(at)
        try:
            maker.face(clip)
        except UnfitFace as error:
            raise SamplesError(f"dataset: {selection.dataset.root}: clip {clip.clip_id}: {error}") from error
        except BROKEN:
            continue
        return


def _try(maker: SampleMaker, window: Window, draw: Draw, broken: Broken) -> Made:
    """The sample of a window, or an empty one if anything is wrong with it."""
    try:
        return Made(maker.make(window, draw), draw.place, whole=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except BROKEN as error:
        broken.add(window, error)
        return Made(
            empty_sample(maker.config, window_key(window.clip.clip_id, window.start)), draw.place, whole=False
        )


def _batches(made: Sequence[Made], config: TrainConfig) -> list[Batch]:
    size = config.micro_batch
    return [_batch(made[first : first + size]) for first in range(0, len(made), size)]


def _batch(made: Sequence[Made]) -> Batch:
    samples = [each.sample for each in made]
    return Batch(
        positions=torch.tensor([each.place for each in made]),
        weight=torch.tensor([float(each.whole) for each in made]),
        latents=_stacked([sample.latents for sample in samples]),
        image_condition=_stacked([sample.image_condition for sample in samples]),
        reference_latent=_stacked([sample.reference_latent for sample in samples]),
        text=_stacked([sample.text for sample in samples]),
        face=_stacked([sample.face for sample in samples]),
        audio=_stacked_or_none([sample.audio for sample in samples]),
        mouth=_stacked_or_none([sample.mouth for sample in samples]),
        keys=tuple(sample.key for sample in samples),
    )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """(B, ...); of one sample nothing is copied."""
    return parts[0][None] if len(parts) == 1 else torch.stack([*parts])


def _stacked_or_none(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return _stacked(there) if there else None


def _about(selection: Selection, maker: SampleMaker) -> dict[str, Any]:
    dataset, version = selection.dataset, selection.dataset.version
    return {
        "uri": str(dataset.root),
        "name": dataset.name,
        "version": version.version,
        "digest": digest_of({}, shards=version.shards, manifest=version.manifest_sha256),
        "weight": selection.weight,
        "clips": selection.trained.clips,
        "windows": len(selection.trained),
        "stored": {kind: found.features.digest for kind, found in sorted(maker.stored.items())},
    }
