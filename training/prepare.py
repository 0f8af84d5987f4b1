"""Everything about a run that can be wrong and be known before its first step, told at once.

    datasets    there, with clips of the split, long enough for a window, with faces of the model's size
    encoders    there, and of the model's sizes; the stored features of exactly these, where a run insists
    start_from  read without its weights: is it of this model?
    machine     the device, GPUs, CPUs, heads to share; room on the disk for a checkpoint

Nothing is computed but what an encoder's digest needs, and nothing is written but the run's empty folder.
"""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.feature_shards import open_features
from data_pipeline.shards import ShardError
from training.config import DatasetShare, TrainConfig
from training.encoders import EncodersError, load_autoencoder, load_speech
from training.features import load_maker
from training.model.loading import check_checkpoint, empty_model
from training.model.pretrained import PretrainedError, load_pretrained
from training.model.weights_map import WeightsError
from training.phases import trained_names
from training.precompute import with_autoencoder

BYTES_OF_OPTIMIZER = 12
"""A trained parameter's in a checkpoint: float32 weight and AdamW's two moments; 4 more for the average."""


class PrepareError(Exception):
    """A run that could not begin; the message names everything that is wrong, and the way out of each."""


def prepare(config: TrainConfig, on_a_cluster: bool = False) -> None:
    """Look at everything that a run needs, before it needs it.

    Args:
        on_a_cluster: the workers will run on other machines: what this one has says nothing of theirs.

    Raises:
        PrepareError: all that is wrong, a line each.
        OSError: the run's folder cannot be written, or there is no room for one checkpoint.
    """
    checks: list[Callable[[TrainConfig], Iterator[str]]] = [_datasets, _encoders, _start_from, _sharing]
    if not on_a_cluster:
        checks.append(_machine)
    problems = [problem for check in checks for problem in check(config)]
    if problems:
        raise PrepareError("\n".join(problems))
    check_room(config)


def ready(config: TrainConfig) -> TrainConfig:
    """The configuration with an autoencoder: where none is named, the run's own, fitted now if need be.

    Raises PrepareError: the dataset is too small for one.
    """
    if config.encoders.autoencoder:
        return config
    share = config.datasets[0]
    try:
        return with_autoencoder(config, Dataset.open(share.uri, share.version))
    except EncodersError as error:
        raise PrepareError(str(error)) from error


def check_room(config: TrainConfig) -> None:
    """Whether the run's folder can be written and has room for one checkpoint and the export; OSError.

    Each of a run's checkpoints is whole before an older one goes, so one more than are kept must fit.
    """
    root = Path(config.output)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=root):
        pass
    needed, free = checkpoint_bytes(config) + export_bytes(config), shutil.disk_usage(root).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{free / 1e9:.1f} GB are free, and a checkpoint and the export take {needed / 1e9:.1f} GB",
            str(root),
        )


def checkpoint_bytes(config: TrainConfig) -> int:
    """How large one checkpoint is: what is trained, with the optimizer's state."""
    average = 4 if config.optimizer.ema_decay is not None else 0
    return _parameters(config)[1] * (BYTES_OF_OPTIMIZER + average)


def export_bytes(config: TrainConfig) -> int:
    """How large the run's export is: all weights."""
    return _parameters(config)[0] * (2 if config.precision == "bf16" else 4)


def _parameters(config: TrainConfig) -> tuple[int, int]:
    """How many parameters there are, and how many are trained."""
    model = empty_model(config.sizes)
    if config.trainable == "lora":
        from training.lora import add_lora

        chosen = set(add_lora(model, config))
    elif config.trainable == "all":
        chosen = {name for name, _ in model.named_parameters()}
    else:
        chosen = set(trained_names((name for name, _ in model.named_parameters()), config.phase))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes.values()), sum(size for name, size in sizes.items() if name in chosen)


def _datasets(config: TrainConfig) -> Iterator[str]:
    for share in config.datasets:
        yield from _dataset(config, share)


def _dataset(config: TrainConfig, share: DatasetShare) -> Iterator[str]:
    try:
        dataset = Dataset.open(share.uri, share.version)
        rows = dataset.manifest(["clip_id", "split", "n_frames", "shard"]).to_pylist()
    except (DatasetError, OSError) as error:
        yield f"dataset: {error}"
        return
    held = {row["clip_id"]: row for row in rows if row["shard"]}
    if not held:
        yield f"dataset: {share.uri} keeps no clip; `hallo3 dataset show` says why clips were rejected"
        return
    split = {clip: row for clip, row in held.items() if row["split"] == config.samples.split}
    if not split:
        there = ", ".join(sorted({row["split"] for row in held.values()}))
        yield f"samples.split: {share.uri} has no clip in {config.samples.split!r}; it has {there}"
        return
    if config.samples.clips:
        split = {clip: row for clip, row in split.items() if clip in config.samples.clips}
        missing = [clip for clip in config.samples.clips if clip not in split]
        if missing and len(config.datasets) == 1:
            yield f"samples.clips: {share.uri} has no clip {', '.join(missing)} in {config.samples.split!r}"
        if not split:
            return
    frames = config.sizes.num_frames
    longest = max(row["n_frames"] for row in split.values())
    if longest < frames:
        yield (
            f"dataset: {share.uri}: its longest clip in {config.samples.split!r} has {longest} frames, a "
            f"window of the model {frames}; take longer clips, or fewer model.latent_frames"
        )
    yield from _faces(config, dataset, next(iter(split)))


def _faces(config: TrainConfig, dataset: Dataset, clip_id: str) -> Iterator[str]:
    """One clip's identity embedding against the model's door: all clips of a dataset have one backend."""
    try:
        member = dataset.sample_of(clip_id)[f"{clip_id}.npz"]
        with np.load(io.BytesIO(member)) as arrays:
            identity, backend = arrays["identity"], str(arrays["identity_backend"])
    except (ShardError, OSError, KeyError, ValueError) as error:
        yield f"dataset: {dataset.root}: its clip {clip_id} cannot be read: {error}; `hallo3 dataset verify`"
        return
    wanted = config.sizes.face.embedding_dim
    if identity.shape[-1] != wanted:
        yield (
            f"model.face.embedding_dim: the model takes {wanted} numbers of a face, {dataset.root} has "
            f"{identity.shape[-1]} (made by {backend}); give model.face.embedding_dim={identity.shape[-1]}, "
            "or curate with another faces.backend"
        )


def _encoders(config: TrainConfig) -> Iterator[str]:
    wanted = config.encoders
    good = True
    loads: list[Callable] = [load_speech] if config.sizes.audio is not None else []
    for load in [*([load_autoencoder] if wanted.autoencoder else []), *loads]:
        try:
            load(wanted, config.sizes)
        except EncodersError as error:
            good = False
            yield str(error)
    if wanted.text != "none":
        yield from _text(config)
    if good and config.samples.features == "stored":
        yield from _stored(config)


def _text(config: TrainConfig) -> Iterator[str]:
    """By T5's configuration alone: its weights are 10 GB."""
    from transformers import T5Config

    try:
        found = load_pretrained(T5Config.from_pretrained, config.encoders.text, "text_encoder")
    except PretrainedError as error:
        yield f"encoders.text: {error}"
        return
    if found.d_model != config.sizes.text_dim:
        yield (
            f"encoders.text={config.encoders.text} makes embeddings of {found.d_model}, the model has "
            f"text_dim={config.sizes.text_dim}; name another encoder or change model.text_dim"
        )


def _stored(config: TrainConfig) -> Iterator[str]:
    """Whether what `samples.features=stored` insists on is there; text's digest would need its weights."""
    kinds = [*(["latents"] if config.encoders.autoencoder else [])]
    kinds += ["speech"] if config.sizes.audio is not None else []
    for kind in kinds:
        features = load_maker(kind, config).features
        for share in config.datasets:
            dataset = _opened(share)
            if dataset is not None and open_features(dataset, kind, features.digest) is None:
                yield (
                    f"samples.features=stored: {share.uri} has no {kind} of these encoders; make them with "
                    f"`hallo3 dataset precompute {share.uri} --for CONFIG`, or give samples.features=auto"
                )


def _opened(share: DatasetShare) -> Dataset | None:
    try:
        return Dataset.open(share.uri, share.version)
    except DatasetError:
        return None  # told by _datasets


def _start_from(config: TrainConfig) -> Iterator[str]:
    if config.start_from is None:
        if config.trainable != "all":
            yield (
                f"start_from is empty and trainable={config.trainable}: a part would be trained of a model "
                "whose other weights have learned nothing; give start_from (the preset's first lines say "
                "which), or trainable=all"
            )
        return
    try:
        check_checkpoint(empty_model(config.sizes), config.start_from)
    except (WeightsError, OSError) as error:
        yield f"start_from: {error}"


def _sharing(config: TrainConfig) -> Iterator[str]:
    heads, workers = config.sizes.num_heads, config.sequence_parallel
    if heads % workers:
        yield f"sequence_parallel={workers} must divide the model's {heads} heads, which its workers share"


def _machine(config: TrainConfig) -> Iterator[str]:
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    asked = config.num_workers * gpus_each(config, here)
    if config.device == "cuda" and not here:
        yield "device=cuda: PyTorch sees no GPU here; give device=cpu, or --on a cluster that has them"
    elif asked > here:
        yield (
            f"num_workers={config.num_workers}: {asked:g} GPUs are asked for, {here} are here; "
            f"give num_workers={here}, or --on a cluster that has them"
        )
    cpus = max(2, os.cpu_count() or 2)
    if config.num_workers * config.ray.cpus > cpus:
        yield (
            f"num_workers={config.num_workers} x ray.cpus={config.ray.cpus:g}: {cpus} CPUs are here; "
            f"give fewer workers, or ray.cpus={cpus / config.num_workers:.2g}"
        )


def device_of(config: TrainConfig, gpus: float) -> Literal["cpu", "cuda"]:
    """What the workers compute on, where there are so many GPUs."""
    if config.device == "auto":
        return "cuda" if gpus else "cpu"
    return config.device


def gpus_each(config: TrainConfig, gpus: float) -> float:
    """GPUs that one worker asks for, where there are so many in all."""
    if device_of(config, gpus) == "cpu":
        return 0.0
    return 1.0 if config.ray.gpus is None else config.ray.gpus
