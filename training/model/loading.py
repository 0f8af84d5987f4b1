"""A checkpoint into a model, tensor by tensor.

    a model built on the meta device (no memory), a checkpoint opened without reading it
      -> names and sizes compared, everything that is wrong told at once, before anything is touched
      -> each tensor: allocated where and as it is wanted, filled from the mapped file
      -> what the checkpoint may lack (face, audio, tables) as it is before training -> LoadReport

So a model of 15 B parameters needs the memory of its own weights and nothing beside them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from training.model.config import ModelConfig
from training.model.initialise import initialise
from training.model.portrait import PortraitModel
from training.model.rotary import RotaryTables
from training.model.sizes import config_of, differences
from training.model.weight_files import Checkpoint, copy_rows, open_checkpoint, shape_of
from training.model.weights_map import Plan, WeightsError, listed

Part = Literal["face", "audio"]


@dataclass(frozen=True)
class LoadReport:
    """What became of every entry of the model and of the checkpoint."""

    path: Path
    vocabulary: str
    loaded: tuple[str, ...]
    """Entries of the model that have the checkpoint's values."""
    initialised: tuple[str, ...]
    """Entries that the checkpoint lacks: as before training."""
    computed: tuple[str, ...]
    """Rotary tables: never loaded, they follow from the grid."""
    left_over: tuple[str, ...]
    """Entries of the checkpoint (its names) that the model has no place for."""
    loaded_bytes: int
    """Memory of the loaded entries, in the model."""
    dtype: torch.dtype

    def __str__(self) -> str:
        lines = [
            f"{self.path} (names of {self.vocabulary}): {len(self.loaded)} entries loaded, "
            f"{self.loaded_bytes / 1e9:.3f} GB of {str(self.dtype).removeprefix('torch.')}"
        ]
        groups = {"initialised": self.initialised, "computed": self.computed, "left over": self.left_over}
        for what, names in groups.items():
            if names:
                lines.append(f"  {what}: {len(names)} ({listed(names)})")
        return "\n".join(lines)


def load_model(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    may_initialise: Collection[Part] = (),
) -> tuple[PortraitModel, LoadReport]:
    """The model that a checkpoint is of: sizes from its config.json or its shapes; see `load_checkpoint`."""
    checkpoint = open_checkpoint(path)
    model = empty_model(config_of(checkpoint))
    return model, load_checkpoint(model, checkpoint, dtype, device, may_initialise)


def empty_model(config: ModelConfig) -> PortraitModel:
    """A model without memory for its weights, to be given to `load_checkpoint`."""
    with torch.device("meta"):
        return PortraitModel(config)


def load_checkpoint(
    model: PortraitModel,
    path: str | Path | Checkpoint,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    may_initialise: Collection[Part] = ("face", "audio"),
) -> LoadReport:
    """Give a model the weights of a checkpoint: ours, upstream's, or a backbone (into both networks).

    Args:
        model: best from `empty_model`; one that has its memory already keeps dtype and device, and is
            filled in place.
        path: see `weight_files.py`.
        dtype: of the weights, on the meta device only (default: the model's); rotary tables stay float32.
        device: where the weights are to be, for a model on the meta device.
        may_initialise: parts that the checkpoint may lack (whole); give () where it must have everything.

    Raises:
        WeightsError: the checkpoint cannot be read or is not of this model. The model is as before.
    """
    checkpoint = path if isinstance(path, Checkpoint) else open_checkpoint(path)
    plan = check_checkpoint(model, checkpoint, may_initialise)
    _allocate(model, dtype, torch.device(device))
    entries = model.state_dict()
    loaded = [name for name in plan.entries if not _is_table(name)]
    with torch.no_grad():
        for name in loaded:
            copy_rows(plan.entries[name], checkpoint.tensors, into=entries[name])
    initialised = [name for name in entries if name not in plan.entries and not _is_table(name)]
    initialise(model, initialised)
    return LoadReport(
        path=checkpoint.path,
        vocabulary=checkpoint.vocabulary,
        loaded=tuple(loaded),
        initialised=tuple(initialised),
        computed=tuple(name for name in entries if _is_table(name)),
        left_over=tuple(plan.left_over),
        loaded_bytes=sum(entries[name].nbytes for name in loaded),
        dtype=next(model.parameters()).dtype,
    )


def check_checkpoint(
    model: PortraitModel,
    path: str | Path | Checkpoint,
    may_initialise: Collection[Part] = ("face", "audio"),
) -> Plan:
    """Whether `load_checkpoint` would take it, and how; no weight is read. Raises WeightsError."""
    checkpoint = path if isinstance(path, Checkpoint) else open_checkpoint(path)
    plan = checkpoint.in_our_names()
    _compare(model.state_dict(), plan, checkpoint, may_initialise)
    return plan


def _compare(
    entries: dict[str, Tensor], plan: Plan, checkpoint: Checkpoint, may_initialise: Collection[Part]
) -> None:
    """Refuse a checkpoint that is not of this model, with all that is wrong in one message."""
    given = {name: shape_of(parts, checkpoint.tensors) for name, parts in plan.entries.items()}
    expected = {name: tuple(value.shape) for name, value in entries.items()}
    others = [name for name in expected if name in given and expected[name] != given[name]]
    lacking = [name for name in expected if name not in given and not _may_lack(name, given, may_initialise)]
    unplaced = [name for name in given if name not in expected]
    problems = []
    if others:
        shown = [f"{name}: expected {expected[name]}, given {given[name]}" for name in others]
        problems.append(f"{len(others)} entries of another size ({listed(shown)})")
    if lacking:
        problems.append(f"{len(lacking)} entries missing ({listed(lacking)})")
    if unplaced:
        problems.append(f"{len(unplaced)} entries that the model has no place for ({listed(unplaced)})")
    if not problems:
        return
    hint = differences(given, expected) or _about_parts(lacking, unplaced, given)
    raise WeightsError(
        f"{checkpoint.path} is not of this model: {'; '.join(problems)}" + (f". {hint}" if hint else "")
    )


def _about_parts(lacking: list[str], unplaced: list[str], given: Collection[str]) -> str:
    if unplaced and all(_part(name) == "audio" for name in unplaced):
        return "The model has no audio part (audio=None), the checkpoint has one"
    parts = sorted({_part(name) or "" for name in lacking} - {""})
    return "; ".join(
        f"Its {part} part is incomplete"
        if any(_part(name) == part for name in given)
        else f"It has no {part} part; with {part!r} in may_initialise that would start untrained"
        for part in parts
    )


def _may_lack(name: str, given: Collection[str], may_initialise: Collection[Part]) -> bool:
    """Tables and unused rows may be missing; a part that may be initialised, if all of it is missing."""
    if _is_table(name) or name.endswith(".unused_position_embeddings"):
        return True
    part = _part(name)
    return part in may_initialise and not any(_part(other) == part for other in given)


def _part(name: str) -> Part | None:
    if ".face_" in name:
        return "face"
    return "audio" if ".audio_" in name else None


def _is_table(name: str) -> bool:
    return ".rotary." in name


def _allocate(model: nn.Module, dtype: torch.dtype | None, device: torch.device) -> None:
    """Memory for everything that is on the meta device; what is elsewhere already stays as it is."""
    for module in model.modules():
        if isinstance(module, RotaryTables) and module.cos.is_meta:
            module.to_empty(device=device)  # computes its tables there
        for name, weight in [*module.named_parameters(recurse=False)]:
            if weight.is_meta:
                empty = torch.empty(weight.shape, dtype=dtype or weight.dtype, device=device)
                setattr(module, name, nn.Parameter(empty, requires_grad=weight.requires_grad))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            if buffer.is_meta:
                setattr(module, name, torch.empty(buffer.shape, dtype=dtype or buffer.dtype, device=device))
