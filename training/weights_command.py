"""`hallo3 weights convert`: the command around `training.convert`."""

import sys
from pathlib import Path
from typing import Any

import torch

from training.convert import convert
from training.model.weights_map import WeightsError

PROBLEM, WRONG_INPUT = 1, 2


def convert_weights(source: Path, output: Path, to: Any, dtype: str | None) -> int:
    """Convert and say what was done. Returns the exit status."""
    if not source.exists():
        return _fail(f"{source}: there is no such file or folder", WRONG_INPUT)
    try:
        report = convert(source, output, to, getattr(torch, dtype) if dtype else None, tell=print)
    except FileExistsError as error:
        return _fail(str(error), WRONG_INPUT)
    except (WeightsError, OSError) as error:
        return _fail(str(error), PROBLEM)
    print(report)
    return 0


def _fail(message: str, status: int) -> int:
    print(f"hallo3: {message}", file=sys.stderr)
    return status
