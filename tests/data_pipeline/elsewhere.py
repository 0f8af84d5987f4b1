"""Functions for a sandbox in another environment: they need nothing but Python's own library."""

import os
import resource
import sys
import time
from importlib.util import find_spec
from pathlib import Path


class TheirError(Exception):
    """Of a library that the parent may not have."""


def prefix() -> str:
    """Which environment this is."""
    return sys.prefix


def finds(module: str) -> bool:
    return find_spec(module) is not None


def address_space_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def note(path: Path) -> None:
    """Add this process to a list."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


def fails() -> None:
    raise TheirError("that model is not here")


def dies(number: int) -> None:
    os.kill(os.getpid(), number)


def hangs() -> None:
    time.sleep(3600)
