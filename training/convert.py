"""`hallo3 weights convert`: a checkpoint in other names, another dtype, or other files.

    source (mapped, not read) -> plan: which rows make which entry -> shards of about 2 GB, one at a time
      -> OUTPUT/{stem}-00001-of-0000N.safetensors, {stem}.safetensors.index.json, config.json

OUTPUT appears when it is complete. Memory: about two files of OUTPUT, or twice the largest entry.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from training.model.config import ModelConfig
from training.model.sizes import config_of
from training.model.weight_files import Checkpoint, Vocabulary, copy_rows, open_checkpoint, shape_of
from training.model.weights_map import (
    Plan,
    Rows,
    WeightsError,
    listed,
    plan_to_diffusers,
    plan_to_upstream,
)

SHARD_BYTES = 2_000_000_000
STEMS = {"hallo3": "model", "upstream": "model", "diffusers": "diffusion_pytorch_model"}
ROTARY_NAMES = (".rotary.cos", ".rotary.sin", ".freqs_cos", ".freqs_sin")


@dataclass(frozen=True)
class Entry:
    """One tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: list[Rows]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ConvertReport:
    """What was written, and what was not."""

    source: Checkpoint
    output: Path
    to: Vocabulary
    entries: int
    total_bytes: int
    shards: int
    left_over: tuple[str, ...]
    config: ModelConfig | None
    no_config: str
    """Why there is no config.json; "" where there is one."""

    def __str__(self) -> str:
        lines = [
            f"{self.source.path}: {len(self.source.tensors)} entries, names of {self.source.vocabulary}",
            f"{self.output}: {self.entries} entries, names of {self.to}, {self.total_bytes / 1e9:.3f} GB "
            f"in {self.shards} file{'s' if self.shards > 1 else ''}",
        ]
        if self.left_over:
            lines.append(f"left out: {len(self.left_over)} entries ({listed(self.left_over)})")
        lines.append(
            f"config.json: {_words(self.config)}" if self.config else f"no config.json: {self.no_config}"
        )
        return "\n".join(lines)


def convert(
    source: str | Path,
    output: Path,
    to: Vocabulary = "hallo3",
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    tell: Callable[[str], object] = lambda line: None,
) -> ConvertReport:
    """Write a checkpoint anew.

    Args:
        to: whose names. `diffusers` has a place for the denoiser's backbone alone.
        dtype: of all floating-point entries but the rotary tables; None keeps each entry's.
        tell: is given a line for every file that was written.

    Raises:
        FileExistsError: there is something at `output`.
        WeightsError: the source cannot be read, or a number does not fit into `dtype`.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"{output} exists; name a new folder")
    checkpoint = open_checkpoint(source)
    plan = _plan(checkpoint, to)
    entries = [_entry(name, parts, checkpoint, dtype) for name, parts in plan.entries.items()]
    shards = list(_shards(entries, shard_bytes))
    config, no_config = _config(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.{os.getpid()}.partial"
    partial.mkdir()
    try:
        _write(partial, STEMS[to], shards, checkpoint, tell)
        if written := _config_json(checkpoint, config, to):
            (partial / "config.json").write_text(json.dumps(written, indent=2) + "\n")
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ConvertReport(
        source=checkpoint,
        output=output,
        to=to,
        entries=len(entries),
        total_bytes=sum(entry.size for entry in entries),
        shards=len(shards),
        left_over=tuple(plan.left_over),
        config=config,
        no_config=no_config,
    )


def _plan(checkpoint: Checkpoint, to: Vocabulary) -> Plan:
    first = checkpoint.in_our_names()
    if to == checkpoint.vocabulary:
        kept = [name for name in checkpoint.tensors if name not in set(first.left_over)]
        return Plan({name: [Rows(name)] for name in kept}, first.left_over)
    if to == "hallo3":
        return first
    if to == "upstream":
        second = plan_to_upstream(first.entries)
        return Plan(_composed(first, second, prefix=""), first.left_over)
    network = "denoiser."
    own = [name.removeprefix(network) for name in first.entries if name.startswith(network)]
    second = plan_to_diffusers(own)
    others = [name for name in first.entries if not name.startswith(network)]
    left_over = first.left_over + [network + name for name in second.left_over] + others
    return Plan(_composed(first, second, prefix=network), left_over)


def _composed(first: Plan, second: Plan, prefix: str) -> dict[str, list[Rows]]:
    """`second` on top of `first`. One of the two is a pure renaming: only diffusers cuts and joins."""
    entries = {}
    for name, parts in second.entries.items():
        if len(parts) == 1 and parts[0] == Rows(parts[0].source):
            entries[name] = first.entries[prefix + parts[0].source]
        else:
            entries[name] = [
                part._replace(source=first.entries[prefix + part.source][0].source) for part in parts
            ]
    return entries


def _entry(name: str, parts: list[Rows], checkpoint: Checkpoint, wanted: torch.dtype | None) -> Entry:
    dtype = checkpoint.tensors[parts[0].source].dtype
    for part in parts[1:]:
        dtype = torch.promote_types(dtype, checkpoint.tensors[part.source].dtype)
    if wanted and dtype.is_floating_point and not name.endswith(ROTARY_NAMES):
        dtype = wanted
    return Entry(name, shape_of(parts, checkpoint.tensors), dtype, parts)


def _shards(entries: list[Entry], limit: int) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    for entry in entries:
        if shard and sum(other.size for other in shard) + entry.size > limit:
            yield shard
            shard = []
        shard.append(entry)
    yield shard


def _write(
    folder: Path,
    stem: str,
    shards: list[list[Entry]],
    checkpoint: Checkpoint,
    tell: Callable[[str], object],
) -> None:
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = folder / f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {entry.name: _filled(entry, checkpoint) for entry in shard}
        try:
            save_file(tensors, file, metadata={"format": "pt"})
        except SafetensorError as error:  # the disk is full, most likely
            raise OSError(f"{file.name} cannot be written to {folder.parent}: {error}") from error
        file.chmod(folder.stat().st_mode & 0o666)  # save_file leaves it to its owner alone
        weight_map |= {entry.name: file.name for entry in shard}
        tell(f"{file.name}: {len(shard)} entries, {file.stat().st_size / 1e9:.3f} GB")
    total = sum(entry.size for shard in shards for entry in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _filled(entry: Entry, checkpoint: Checkpoint) -> Tensor:
    tensor = torch.empty(entry.shape, dtype=entry.dtype)
    copy_rows(entry.parts, checkpoint.tensors, into=tensor)
    narrower = any(
        _reaches_further(checkpoint.tensors[part.source].dtype, entry.dtype) for part in entry.parts
    )
    if narrower and tensor.isinf().any() and not _has_infinity(entry, checkpoint):
        raise WeightsError(
            f"{entry.name}: has numbers beyond {entry.dtype}'s largest, {torch.finfo(entry.dtype).max:g}; "
            "convert to bfloat16 or float32"
        )
    return tensor


def _reaches_further(source: torch.dtype, target: torch.dtype) -> bool:
    both = source.is_floating_point and target.is_floating_point
    return both and torch.finfo(source).max > torch.finfo(target).max


def _has_infinity(entry: Entry, checkpoint: Checkpoint) -> bool:
    return any(bool(checkpoint.tensors[part.source].isinf().any()) for part in entry.parts)


def _config(checkpoint: Checkpoint) -> tuple[ModelConfig | None, str]:
    try:
        return config_of(checkpoint), ""
    except WeightsError as error:
        return None, str(error)


def _words(config: ModelConfig) -> str:
    frames, height, width = config.latent_frames, config.latent_height, config.latent_width
    audio = f"{config.audio.tokens} audio tokens" if config.audio else "no audio"
    return (
        f"{config.num_layers} layers, {config.num_heads} heads of {config.head_dim}, "
        f"latents {frames} x {height} x {width}, "
        f"{config.text_length} text tokens, {config.face.tokens} face tokens, {audio}"
    )


def _config_json(checkpoint: Checkpoint, config: ModelConfig | None, to: Vocabulary) -> dict[str, Any] | None:
    if to == checkpoint.vocabulary == "diffusers":
        return checkpoint.config
    if config is None:
        return None
    return _diffusers_config(config) if to == "diffusers" else config.model_dump()


def _diffusers_config(config: ModelConfig) -> dict[str, Any]:
    """CogVideoXTransformer3DModel's settings; those not named here have CogVideoX-5B's values by default."""
    return {
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "time_embed_dim": config.time_embed_dim,
        "text_embed_dim": config.text_dim,
        "num_layers": config.num_layers,
        "sample_width": config.latent_width,
        "sample_height": config.latent_height,
        "sample_frames": config.num_frames,
        "patch_size": config.patch_size,
        "max_text_seq_length": config.text_length,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    }
