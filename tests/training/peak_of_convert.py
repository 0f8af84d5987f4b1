"""A program for test_convert: converts in files of 40 MB; prints the most bytes that its own memory grew by.

python -m tests.training.peak_of_convert SOURCE OUTPUT
"""

import sys
from pathlib import Path

import torch

from tests.training.own_memory import watched
from training.convert import convert


def main(source: Path, output: Path) -> None:
    torch.set_num_threads(1)
    with watched() as growth:
        convert(source, output, to="upstream", dtype=torch.float32, shard_bytes=40_000_000)
    print(growth.most)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
