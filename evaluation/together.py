"""Several workers make one video: the first reads and writes, all share the networks (sequence_parallel.py).

    first worker   files -> what a video is made of -> to the others -> windows of frames -> the file
    the others     what a video is made of, as it comes                -> the same windows, which they drop

So inputs are the same on all, bit for bit, and only the first needs the files. All compute in step: whoever
fails in the middle of a window leaves the others waiting, and all must be started anew.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from training.model.portrait import PortraitModel

Frames = Callable[..., Iterator[np.ndarray]]
"""`Generator.frames`"""
PATIENCE = timedelta(days=30)
"""The others wait for the next video without a limit of their own: whoever started them watches them."""


def open_meeting() -> dist.TCPStore:
    """Where workers find each other, on a free port of this machine."""
    return dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)


def join_meeting(host: str, port: int) -> dist.TCPStore:
    """The meeting that the first worker opened."""
    return dist.TCPStore(host, port, is_master=False, timeout=PATIENCE)


def share(model: PortraitModel, device: str, store: dist.TCPStore, rank: int, ranks: int) -> None:
    """Become one of the workers that work on each sample together; returns when all are there.

    Args:
        device: cpu; or cuda, the only GPU that this process sees.
    """
    how: dict[str, Any] = {"backend": "gloo"}
    if device == "cuda":  # what videos are made of lies on the CPU and goes from there
        how = {"backend": "cpu:gloo,cuda:nccl", "device_id": torch.device("cuda", 0)}
    dist.init_process_group(store=store, rank=rank, world_size=ranks, timeout=PATIENCE, **how)
    dist.barrier()
    model.share_samples()


class Leading:
    """The first worker's `frames`: the others make each video along."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self.in_step = True
        """Whether the others wait for the next video."""

    def __call__(self, *given: Any, **named: Any) -> Iterator[np.ndarray]:
        """The windows of `Generator.frames`."""
        dist.broadcast_object_list([(given, named)])
        self.in_step = False
        yield from self._frames(*given, **named)
        self.in_step = True


def follow(frames: Frames) -> None:
    """Every other worker's part, video after video; ends only by what it raises."""
    while True:
        told: list[Any] = [None]
        dist.broadcast_object_list(told)
        given, named = told[0]
        for _ in frames(*given, **named):
            pass
