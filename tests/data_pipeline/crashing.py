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


def breaks_off(path: Any, source: Any, *rest: Any) -> Any:
    """Gives the clips of a source, and then finds it damaged."""
    from data_pipeline.clip import Reason
    from data_pipeline.media import MediaError
    from data_pipeline.stages.segment import segment_alive

    yield from segment_alive(path, source, *rest)
    raise MediaError(Reason.CORRUPT, f"{path}: damaged at its end")


def hangs_after_a_clip(path: Any, source: Any, *rest: Any) -> Any:
    """Gives the clips of a source, and then nothing more."""
    from data_pipeline.stages.segment import segment_alive

    yield from segment_alive(path, source, *rest)
    time.sleep(3600)


def fails(*_: Any, **__: Any) -> None:
    """Raises what nobody expects."""
    raise ZeroDivisionError("division by zero")
