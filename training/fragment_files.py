"""Fragments of tensors in safetensors files, one file a worker, to be read by any number of workers.

    write  each fragment goes to the host and into the file by itself: no second copy of all is made
    read   an index over all files' headers -> the byte ranges that hold the elements asked for, and no others

A tensor's key is `kind:start:name`: float32, the elements of `name` from `start` on.
"""

import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor


class CheckpointError(Exception):
    """A checkpoint that is not whole or not of this run; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Piece:
    """Elements `start` ... `end` of a tensor, under `key` in an open file."""

    start: int
    end: int
    key: str
    file: Any


def write_fragments(path: Path, pieces: Iterable[tuple[str, str, int, Tensor]]) -> int:
    """Write (kind, name, start, elements) each, float32 on any device, and bring it to the disk.

    Returns its bytes. Raises OSError.
    """
    tensors = {f"{kind}:{start}:{name}": elements for kind, name, start, elements in pieces}
    header, end = {}, 0
    for key, elements in tensors.items():
        offsets = [end, end := end + 4 * elements.numel()]
        header[key] = {"dtype": "F32", "shape": [elements.numel()], "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for elements in tensors.values():
            file.write(elements.cpu().numpy().data)
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size


class FragmentFiles:
    """Files of `write_fragments`, opened without reading them. Raises CheckpointError for a damaged one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pieces: dict[tuple[str, str], list[Piece]] = {}
        for path in paths:
            for kind, name, piece in _opened(path):
                self._pieces.setdefault((kind, name), []).append(piece)
        self.kinds = {kind for kind, _ in self._pieces}

    def read(self, kind: str, name: str, start: int, into: Tensor) -> None:
        """Fill `into` (n,) with the elements of a tensor from `start` on. Raises CheckpointError."""
        filled, end = 0, start + into.numel()
        for piece in self._pieces.get((kind, name), ()):
            first, last = max(start, piece.start), min(end, piece.end)
            if first < last:
                found = piece.file.get_slice(piece.key)[first - piece.start : last - piece.start]
                into[first - start : last - start].copy_(found)
                filled += last - first
        if filled != into.numel():
            raise CheckpointError(
                f"{into.numel() - filled} of the elements {start} ... {end} of {name} ({kind}) are in no file"
            )


def _opened(path: Path) -> Iterator[tuple[str, str, Piece]]:
    try:
        file = safe_open(path, framework="pt", device="cpu")
        for key in file.keys():  # noqa: SIM118 - no mapping
            kind, start, name = key.split(":", 2)
            (numel,) = file.get_slice(key).get_shape()
            yield kind, name, Piece(int(start), int(start) + numel, key, file)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error
