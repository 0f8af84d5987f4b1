"""What an argument of a command may be."""

import argparse
import math
import re
from collections.abc import Callable

SLOWEST, FASTEST = 10, 60
"""Frames a second: below it nothing moves, above it speech features say nothing new."""


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def rate(text: str) -> int:
    """Frames a second."""
    if not text.isdecimal() or not SLOWEST <= int(text) <= FASTEST:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from {SLOWEST} to {FASTEST}")
    return int(text)


def pixels(step: int) -> Callable[[str], tuple[int, int]]:
    """HEIGHTxWIDTH in px, both multiples of `step`."""

    def size(text: str) -> tuple[int, int]:
        sides = re.fullmatch(r"(\d+)x(\d+)", text)
        if not sides:
            raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH, e.g. 480x720")
        height, width = map(int, sides.groups())
        if min(height, width) < step or height % step or width % step:
            raise argparse.ArgumentTypeError(f"{text} is not of multiples of {step} px")
        return height, width

    return size


def from_zero(text: str) -> float:
    """A finite number that is not below 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number
