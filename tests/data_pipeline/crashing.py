"""Functions for a sandbox that end badly, in ways that real decoders do."""

import ctypes
import time
from typing import Any


def dies_by_signal(*_: Any, **__: Any) -> None:
    """A segmentation fault."""
    ctypes.string_at(0)


def hangs(*_: Any, **__: Any) -> None:
    """Never answers."""
    time.sleep(3600)


def fails(*_: Any, **__: Any) -> None:
    """Raises what nobody expects."""
    raise ZeroDivisionError("division by zero")
