"""Videos one after the other, by one model: whose turn it is, and how long that takes.

join -> behind those who came before -> being made, by one thread -> made or failed; or left, at any time

How long it takes follows from how long frames have taken so far, here, with this model. Before the first
window of the first video nothing is known, and that is what is said.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evaluation.animator import Made, Take, Told
from training.generate import Sampling

Wanted = Callable[[], None]
"""To be called now and then; what it raises ends the making."""
Make = Callable[[Take, Sampling, Told, Wanted], Made]
"""Makes one video; also `Told` raises what ends it."""
State = Literal["waiting", "working", "made", "failed", "left"]


@dataclass(eq=False)
class Turn:
    """One video and what has become of it. The line changes it."""

    take: Take
    sampling: Sampling
    frames: int
    """That it will have; at first as its sound says."""
    state: State = "waiting"
    done: int = 0
    """Frames."""
    begun_s: float = 0.0
    told_s: float = 0.0
    """When it was last heard of."""
    took_s: float = 0.0
    result: Made | None = None
    error: Exception | None = None

    @property
    def passes_left(self) -> int:
        return (self.frames - self.done) * passes(self.sampling)


@dataclass(frozen=True)
class Place:
    """Where a turn is, at one moment."""

    state: State
    before: int
    """Videos that come first, the one that is being made among them."""
    done: int
    frames: int
    left_s: float | None
    """Until it is there; None: not known yet."""


def passes(sampling: Sampling) -> int:
    """Of the network over a frame; what the time goes with."""
    return sampling.steps * (1 if sampling.guidance is None else 2)


class WaitingLine:
    """Makes one video at a time, in the order in which they came. From any thread.

    Args:
        clock: seconds.
    """

    def __init__(self, make: Make, clock: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._turns: list[Turn] = []
        self._changed = threading.Condition()
        self._closed = False
        self._pass_s: float | None = None
        """Of one frame, as measured last; without looking at picture and sound, which takes seconds."""
        self._thread = threading.Thread(target=self._work, name="videos", daemon=True)
        self._thread.start()

    def join(self, take: Take, sampling: Sampling, frames: int) -> Turn:
        """The end of the line."""
        turn = Turn(take, sampling, frames)
        with self._changed:
            self._turns.append(turn)
            self._changed.notify()
        return turn

    def leave(self, turn: Turn) -> None:
        """Not wanted any more: if it is being made, that ends."""
        with self._changed:
            if turn.state == "waiting":
                self._turns.remove(turn)
            if turn.state in ("waiting", "working"):
                turn.state = "left"

    def place(self, turn: Turn) -> Place:
        """Where a turn is now."""
        with self._changed:
            before = self._turns[: self._turns.index(turn)] if turn in self._turns else []
            left_s = self._left_s([*before, turn])
            return Place(turn.state, len(before), turn.done, turn.frames, left_s)

    def place_of_new(self, frames: int, sampling: Sampling) -> Place:
        """Where a turn would be that joined now."""
        with self._changed:
            new_s = self._left_s(self._turns, frames * passes(sampling))
            return Place("waiting", len(self._turns), 0, frames, new_s)

    def close(self, wait_s: float) -> bool:
        """Make no more, all leave; whether the one that was being made has ended within this time."""
        with self._changed:
            self._closed = True
            for turn in self._turns:
                turn.state = "left"
            self._changed.notify()
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _left_s(self, turns: list[Turn], more_passes: int = 0) -> float | None:
        if self._pass_s is None:
            return None
        since_s = sum(self._clock() - each.told_s for each in turns if each.state == "working")
        left = more_passes + sum(each.passes_left for each in turns)
        return max(0.0, left * self._pass_s - since_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._turns or self._closed)
                if self._closed:
                    return
                turn = self._turns[0]
                turn.state, turn.begun_s = "working", self._clock()
                turn.told_s = turn.begun_s
            self._take_turn(turn)

    def _take_turn(self, turn: Turn) -> None:
        begun: list[float] = []

        def wanted() -> None:
            if turn.state == "left":
                raise _NotWanted

        def told(done: int, frames: int) -> None:
            wanted()
            with self._changed:
                now = self._clock()
                begun.append(now)
                turn.done, turn.frames, turn.told_s = done, frames, now
                if done:
                    self._pass_s = (now - begun[0]) / (done * passes(turn.sampling))

        state: State = "made"
        try:
            turn.result = self._make(turn.take, turn.sampling, told, wanted)
        except _NotWanted:
            state = "left"
        except Exception as error:  # noqa: BLE001  whatever it is, the next one's turn comes
            turn.error, state = error, "failed"
        with self._changed:
            turn.took_s = self._clock() - turn.begun_s
            turn.state = state if turn.state == "working" else "left"
            self._turns.remove(turn)


class _NotWanted(Exception):
    """Nobody waits for this video any more."""
