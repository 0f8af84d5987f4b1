"""What is left of a person: every byte under a folder, as it lies there and decoded as far as it goes.

Parquet, tar, npz and JSON are opened, and the pictures in pages taken out of their base64.
"""

import base64
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

NEAR = 0.5
"""Nearer than this a vector tells of the person, as a mean over their clips would."""


@dataclass(frozen=True)
class Traces:
    """What to look for."""

    texts: list[str]
    """Names: of clips, sources, contents, people."""
    blobs: list[bytes]
    """Media and thumbnails: any of their pieces is one too many."""
    embedding: np.ndarray
    others: list[bytes] = field(default_factory=list)
    """Other people's media: what they have, too (a JPEG's tables, an encoder's name) is no trace."""


PIECE = 48


def leaks(root: Path, traces: Traces) -> list[str]:
    """Where anything of it was found, and what."""
    found = []
    vector = traces.embedding
    numbers = [vector.astype(np.float32).tobytes(), vector.astype(np.float64).tobytes()]
    digits = [f"{value:.7f}"[:-1].lstrip("-") for value in vector.astype(float)[:8]]
    needles = [text.encode() for text in [*traces.texts, *digits]]
    needles += [number[at : at + 32] for number in numbers for at in range(0, len(number) - 32, 32)]
    for blob in traces.blobs:
        pieces = [blob[at : at + PIECE] for at in range(0, len(blob) - PIECE, 997)]
        own = [piece for piece in pieces if not any(piece in other for other in traces.others)]
        assert own, "nothing of it is its own"
        needles += own
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        found += [f"{name}: its name" for text in traces.texts if text in name]
        for where, piece in _pieces(name, path.read_bytes()):
            if isinstance(piece, np.ndarray):
                if piece.shape == vector.shape and np.linalg.norm(piece - vector) < NEAR:
                    found.append(f"{where}: an embedding")
            else:
                found += [f"{where}: {needle[:24]!r}" for needle in needles if needle in piece]
    return found


def _pieces(name: str, data: bytes) -> Iterator[tuple[str, bytes | np.ndarray]]:
    yield name, data
    if ".parquet" in name:  # also one that a writer left unfinished under a name of its own
        for row in pq.read_table(io.BytesIO(data)).to_pylist():
            yield from _values(name, row)
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield from _pieces(f"{name}/{member.name}", file.read())
    elif name.endswith(".npz"):
        with np.load(io.BytesIO(data)) as arrays:
            for key in arrays.files:
                yield f"{name}/{key}", arrays[key]
    elif name.endswith(".json"):
        yield from _values(name, json.loads(data))
    elif name.endswith(".html"):
        for match in re.finditer(rb"base64,([A-Za-z0-9+/=]+)", data):
            yield f"{name}/base64", base64.b64decode(match[1])


def _values(where: str, value: Any) -> Iterator[tuple[str, bytes | np.ndarray]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield where, str(key).encode()
            yield from _values(f"{where}/{key}", item)
    elif isinstance(value, list):
        if value and all(isinstance(item, float) for item in value):
            yield where, np.array(value)
        for item in value:
            yield from _values(where, item)
    elif isinstance(value, bytes):
        yield where, value
    elif value is not None:
        yield where, str(value).encode()
