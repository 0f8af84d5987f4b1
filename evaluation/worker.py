"""One process that holds the model and makes videos, in an actor: what it does, and what it says of each."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import torch

from data_pipeline.media import MediaError
from evaluation.animator import AnimateError, Animator, Made, Take
from evaluation.parts import BeingMade
from evaluation.picture import PictureError
from evaluation.together import Leading, follow, join_meeting, open_meeting, share

SAY_ALL = (AnimateError, BeingMade, MediaError, PictureError)
"""Errors that say what is wrong, and with what."""


@dataclass(frozen=True)
class Progress:
    """Frames of a video that there are, and that there will be."""

    made: int
    of: int


@dataclass(frozen=True)
class There:
    """The video was there."""


@dataclass(frozen=True)
class Failed:
    """The video cannot be made."""

    words: str


Happened = Progress | Made | There | Failed
Load = Callable[..., Animator]
"""`Animator.load` with all its arguments but `device`."""


class Worker:
    """The first of a team is asked to `prepare`, then to `animate`; the others to `follow`."""

    def __init__(self, load: Load, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._load = load
        self._device = device
        self._leading: Leading | None = None

    def open_meeting(self) -> tuple[str, int]:
        """Where the others of the team find this one."""
        from ray.util import get_node_ip_address

        self._meeting = open_meeting()
        return get_node_ip_address(), self._meeting.port

    def prepare(self, ranks: int) -> None:
        """Load the model, as the first of a team; returns when all have it."""
        self._animator = self._load(device=self._device)
        if ranks > 1:
            share(self._animator.generator.model, self._device, self._meeting, 0, ranks)
            self._animator.frames = self._leading = Leading(self._animator.frames)

    def follow(self, meeting: tuple[str, int], rank: int, ranks: int) -> None:
        """Load the model and compute along what the first one makes; ends only by what it raises."""
        animator = self._load(device=self._device)
        share(animator.generator.model, self._device, join_meeting(*meeting), rank, ranks)
        follow(animator.frames)

    def animate(self, take: Take) -> Iterator[Happened]:
        """Make a video; what happens, as it happens. Raises where the team cannot go on."""
        happened: SimpleQueue[Happened | None] = SimpleQueue()
        with ThreadPoolExecutor(1) as thread:
            made = thread.submit(self._made, take, lambda *frames: happened.put(Progress(*frames)))
            made.add_done_callback(lambda _: happened.put(None))
            while (each := happened.get()) is not None:
                yield each
        error = made.exception()
        if error is not None and may_go_well(error):
            raise error
        yield made.result() if error is None else Failed(words_of(error))
        if self._leading is not None and not self._leading.in_step:
            raise RuntimeError("the others of the team are in the midst of a video")

    def _made(self, take: Take, told: Callable[[int, int], None]) -> Made | There:
        return There() if self._animator.has_made(take) else self._animator.animate(take, told)


def may_go_well(error: BaseException) -> bool:
    """Whether another team may not meet it: a peer of this worker, or its GPU, is gone."""
    from training.failures import mendable

    return mendable(error) and not isinstance(error, OSError)


def words_of(error: BaseException) -> str:
    """Why a video cannot be made."""
    if isinstance(error, SAY_ALL):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory is full; --two-passes and --workers-a-video take less of it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
