"""A program for test_convert: converts in files of 40 MB; prints the most bytes that its own memory grew by.

python -m tests.training.peak_of_convert SOURCE OUTPUT
"""

import sys
import threading
from pathlib import Path

import torch

from tests.training.model.weights_in_little_memory import status
from training.convert import convert


def main(source: Path, output: Path) -> None:
    torch.set_num_threads(1)
    before = status("RssAnon")
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak.append(status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    convert(source, output, to="upstream", dtype=torch.float32, shard_bytes=40_000_000)
    done.set()
    watcher.join()
    print(max(peak) - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
