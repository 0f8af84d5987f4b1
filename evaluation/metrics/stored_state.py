"""Arrays in a file that says by which protocol they were measured, so that no other is compared with them."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROTOCOL = "protocol"


def write_state(path: Path, protocol: str, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz file that is there whole or not at all; `protocol`: a hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = {PROTOCOL: np.array(protocol), **arrays}
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            np.savez(file, **stored)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_state(path: Path, protocol: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays `names` of a file of `write_state`.

    Raises ValueError where it is of another protocol or no such file; FileNotFoundError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in (PROTOCOL, *names)}
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no statistics of this form: {error}; delete it") from error
    if (theirs := str(found.pop(PROTOCOL))) != protocol:
        raise ValueError(f"{path} was measured by protocol {theirs}, not {protocol}; measure again")
    return found
