"""Files of weights, opened without reading them: every tensor is a view into the mapped file.

    a folder or file -> its weight files -> {name: tensor} -> in whose vocabulary the names are

Folders: safetensors shards with or without an index, diffusers' `transformer/`, DeepSpeed's `latest` with
`mp_rank_00_model_states.pt`. Only safetensors and torch's zip files are read, the latter with
`weights_only`: tensors, numbers and containers, and never code.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.model.weights_map import (
    Plan,
    Rows,
    WeightsError,
    listed,
    plan_from_diffusers,
    plan_from_upstream,
    plan_to_upstream,
)

Vocabulary = Literal["hallo3", "upstream", "diffusers"]

DEEPSPEED_FILE = "mp_rank_00_model_states.pt"
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")

# What DeepSpeed's files hold beside tensors: the command line, and numpy's random state.
_NUMPY_REBUILDER = np.ones(1).__reduce__()[0]  # numpy 1 and 2 write it under different names
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    type(np.dtype("uint32")),
    (_NUMPY_REBUILDER, "numpy.core.multiarray._reconstruct"),
    (_NUMPY_REBUILDER, "numpy._core.multiarray._reconstruct"),
]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one or more files, mapped and not read, by the names they have there."""

    path: Path
    files: list[Path]
    tensors: dict[str, Tensor]
    vocabulary: Vocabulary
    config: dict[str, Any] | None
    """config.json of the folder."""

    def in_our_names(self) -> Plan:
        """How to make PortraitModel's entries of it. A backbone alone goes into both networks.

        Raises:
            WeightsError: unknown names, or a part of a joined matrix is missing.
        """
        if self.vocabulary == "diffusers":
            return _both_networks(plan_from_diffusers(self.tensors), prefix="")
        if self.vocabulary == "hallo3":
            plan_to_upstream(self.tensors)  # refuses unknown names
            return Plan({name: [Rows(name)] for name in self.tensors})
        plan = plan_from_upstream(self.tensors)
        hallo3 = any(name.startswith("reference.") or ".face_" in name for name in plan.entries)
        return plan if hallo3 else _both_networks(plan, prefix="denoiser.")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a file or folder of weights.

    Raises:
        WeightsError: it is missing, damaged, incomplete, of another kind, or asks for code to be run.
    """
    path = Path(path)
    files = weight_files(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = _opened(file)
        if twice := tensors.keys() & found.keys():
            raise WeightsError(
                f"{path}: {listed(sorted(twice))} is in more than one file; which one counts? "
                "Give the file (or its index) instead of the folder"
            )
        tensors |= found
    return Checkpoint(path, files, tensors, _vocabulary(path, tensors), _config(files[0].parent))


def weight_files(path: Path) -> list[Path]:
    """The files that a path stands for. Raises WeightsError where there are none, or some are missing."""
    if path.is_file():
        return _indexed(path) if path.name.endswith(".index.json") else [path]
    if not path.is_dir():
        raise WeightsError(f"{path}: there is no such file or folder")
    if (path / "transformer").is_dir():
        return weight_files(path / "transformer")
    if (path / "latest").is_file():
        return weight_files(_beside(path / "latest", (path / "latest").read_text().strip()))
    indexes = sorted(path.glob("*.safetensors.index.json"))
    if len(indexes) > 1:
        raise WeightsError(f"{path}: {listed(index.name for index in indexes)}: which one? Give its path")
    if indexes:
        return _indexed(indexes[0])
    if shards := sorted(path.glob("*.safetensors")):
        return _complete(path, shards)
    if (path / DEEPSPEED_FILE).is_file():
        return _of_one_rank(path)
    pickles = sorted(file for file in path.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if len(pickles) == 1:
        return pickles
    found = f"{len(pickles)} of the latter" if pickles else "none"
    raise WeightsError(
        f"{path}: expected *.safetensors, {DEEPSPEED_FILE} or one "
        f"{' '.join(PICKLE_SUFFIXES)} file, found {found}"
    )


def shape_of(parts: list[Rows], tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The shape of what these rows make. Raises WeightsError where they do not fit together."""
    shapes = {part.source: tuple(tensors[part.source].shape) for part in parts}
    made = set()
    for part in parts:
        given, (_, cut), (_, joined) = shapes[part.source], part.take, part.put
        if cut > 1 and (not given or given[0] % cut):
            raise WeightsError(f"{part.source}: {given} cannot be cut into {cut} equal blocks of rows")
        made.add((given[0] // cut * joined, *given[1:]) if given and (cut > 1 or joined > 1) else given)
    if len(made) > 1:
        raise WeightsError(
            "parts of one matrix differ in size: " + ", ".join(f"{n} {s}" for n, s in shapes.items())
        )
    return made.pop()


def copy_rows(parts: list[Rows], tensors: Mapping[str, Tensor], into: Tensor) -> None:
    """Fill a tensor from the mapped file, converting on the way; nothing else is allocated for it."""
    for part in parts:
        (index, cut), (place, joined) = part.take, part.put
        source = tensors[part.source]
        if cut == 1 and joined == 1:
            into.copy_(source)
        else:
            into.chunk(joined)[place].copy_(source.chunk(cut)[index])


def _both_networks(backbone: Plan, prefix: str) -> Plan:
    return Plan(
        {
            network + name.removeprefix(prefix): parts
            for network in ("denoiser.", "reference.")
            for name, parts in backbone.entries.items()
        },
        backbone.left_over,
    )


def _indexed(index: Path) -> list[Path]:
    try:
        named = json.loads(index.read_text())["weight_map"]
        names = sorted(set(named.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: not an index of safetensors shards: {error!r}") from error
    files = [_beside(index, name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise WeightsError(
            f"{index}: {listed(missing)} is missing ({len(missing)} of {len(files)} files); get it, "
            "or the whole checkpoint anew"
        )
    return files


def _complete(folder: Path, shards: list[Path]) -> list[Path]:
    """All shards of a folder without an index; those numbered `-00001-of-00003` must be complete."""
    for shard in shards:
        if found := SHARD_NAME.fullmatch(shard.name):
            stem, width, count = found["stem"], len(found["number"]), found["count"]
            wanted = [f"{stem}-{i:0{width}d}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
            if missing := [name for name in wanted if not (folder / name).is_file()]:
                raise WeightsError(f"{folder}: {listed(missing)} is missing")
    return shards


def _of_one_rank(folder: Path) -> list[Path]:
    ranks = sorted(folder.glob("mp_rank_*_model_states.pt"))
    if len(ranks) > 1:
        raise WeightsError(
            f"{folder}: cut over {len(ranks)} model-parallel ranks; merge it first; "
            "only whole matrices are read"
        )
    return ranks


def _beside(file: Path, name: str) -> Path:
    """The entry of the same folder that a file names; a file may not point elsewhere."""
    if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
        raise WeightsError(f"{file}: names {name!r}, expected the name of a file or folder beside it")
    return file.parent / name


def _opened(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as stream:
        start = stream.read(64)
    if start.startswith(b"PK\x03\x04"):
        return _opened_pickle(file)
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{file}: a Git LFS pointer, not the weights; run `git lfs pull` where it came from"
        )
    if start[8:9] == b"{":
        return _opened_safetensors(file)
    if start[:1] == b"\x80":
        raise WeightsError(
            f"{file}: a bare pickle, which is never read; load it where you trust it, torch.save it anew"
        )
    raise WeightsError(
        f"{file}: neither safetensors nor a file of torch.save (it is {file.stat().st_size} bytes and starts "
        f"with {start[:16]!r})"
    )


def _opened_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        opened = safe_open(file, framework="pt", device="cpu")
        return {name: opened.get_tensor(name) for name in opened.offset_keys()}
    except SafetensorError as error:
        raise WeightsError(f"{file}: damaged or cut short ({error}); get it anew") from error


def _opened_pickle(file: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise _refused(file, error) from error
    return _state(file, content)


def _refused(file: Path, error: Exception) -> WeightsError:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # noqa: BLE001
        foreign = []
    if foreign:
        return WeightsError(
            f"{file}: to read it, code would have to run ({listed(foreign)}), so it is not read; save its "
            "tensors alone (torch.save or safetensors) in a place where you trust it"
        )
    reason = str(error).strip().partition("\n")[0]
    return WeightsError(f"{file}: damaged, cut short or not of torch.save ({reason}); get it anew")


def _state(file: Path, content: object) -> dict[str, Tensor]:
    """The state dict of what torch.load gave: itself, or its entry `module` (DeepSpeed) or `state_dict`."""
    for wrapper in ("module", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file}: holds a {type(content).__name__}, expected a dictionary of tensors")
    if others := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        raise WeightsError(f"{file}: {listed(others)} is no tensor, expected a dictionary of tensors alone")
    return {str(name): value.detach() for name, value in content.items()}


def _vocabulary(path: Path, names: Iterable[str]) -> Vocabulary:
    marks: list[tuple[Vocabulary, tuple[str, ...]]] = [
        ("upstream", ("model.diffusion_model.", "ref_model.diffusion_model.")),
        ("hallo3", ("denoiser.", "reference.")),
        ("diffusers", ("transformer_blocks.",)),
    ]
    for vocabulary, prefixes in marks:
        if any(name.startswith(prefixes) for name in names):
            return vocabulary
    raise WeightsError(
        f"{path}: no weights of Hallo3 or CogVideoX; expected names with model.diffusion_model., "
        f"denoiser. or transformer_blocks., found {listed(names) or 'nothing'}"
    )


def _config(folder: Path) -> dict[str, Any] | None:
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise WeightsError(f"{file}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{file}: expected an object of settings")
    return config
