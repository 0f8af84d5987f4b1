"""One video at a time, in order; how long it takes is what it has taken, and nothing before that."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from evaluation.animator import Made, Take, Told
from evaluation.waiting_line import Turn, WaitingLine, Wanted
from training.generate import Sampling

TEN_STEPS = Sampling(steps=10, guidance=None)
GUIDED = Sampling(steps=10, guidance=3.5)


@dataclass
class Maker:
    """Makes videos of ten frames, two a window, each when it is let; its clock says what it is told to."""

    now_s: float = 0.0
    made: list[str] = field(default_factory=list)
    _let: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _did: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    failing: Exception | None = None

    def __call__(self, take: Take, sampling: Sampling, told: Told, wanted: Wanted) -> Made:
        told(0, 10)
        for done in range(2, 11, 2):
            self._did.release()
            self._let.acquire()
            wanted()
            told(done, 10)
        if self.failing:
            raise self.failing
        self.made.append(take.output.name)
        return Made(10, ())

    def window(self, seconds: float = 0.0) -> None:
        """Wait until one is being made; it takes so long and is there."""
        self._did.acquire()
        self.now_s += seconds
        self._let.release()

    def await_next(self) -> None:
        """Wait until the one before is there and another one is being made."""
        self._did.acquire()
        self._did.release()

    def go(self) -> None:
        """All that is to come, without a stop."""
        for _ in range(1000):
            self._let.release()


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def line(maker) -> Iterator[WaitingLine]:
    line = WaitingLine(maker, lambda: maker.now_s)
    yield line
    maker.go()
    assert line.close(10)


def join(line: WaitingLine, name: str, sampling: Sampling = TEN_STEPS, frames: int = 10) -> Turn:
    return line.join(Take(Path("a.png"), Path("a.wav"), Path(name)), sampling, frames)


def until(line: WaitingLine, turn: Turn, *states: str) -> None:
    finished = threading.Event()
    while line.place(turn).state not in states:
        assert not finished.wait(0.002)


def test_videos_are_made_in_the_order_in_which_they_came(line, maker) -> None:
    turns = [join(line, name) for name in ("first", "second", "third")]
    maker.await_next()
    assert [line.place(turn).state for turn in turns] == ["working", "waiting", "waiting"]
    assert [line.place(turn).before for turn in turns] == [0, 1, 2]
    maker.go()
    until(line, turns[-1], "made")
    assert maker.made == ["first", "second", "third"]


def test_nothing_is_known_before_the_first_window_of_the_first_video(line, maker) -> None:
    first, second = join(line, "first"), join(line, "second", GUIDED)
    maker.await_next()
    assert line.place(first).left_s is None
    assert line.place_of_new(10, TEN_STEPS).left_s is None
    maker.window(3)
    maker.await_next()
    assert line.place(first).left_s == 12  # 8 of 10 frames, 3 s for 2
    assert line.place(second).left_s == 12 + 30  # guidance takes twice as long
    new = line.place_of_new(20, TEN_STEPS)
    assert (new.before, new.left_s) == (2, 12 + 30 + 30)


def test_what_a_window_takes_is_counted_down_while_it_is_made(line, maker) -> None:
    turn = join(line, "first")
    maker.window(3)
    maker.await_next()
    maker.now_s += 2
    assert line.place(turn).left_s == 10
    maker.now_s += 50
    assert line.place(turn).left_s == 0


def test_the_rate_is_kept_for_later_videos_and_goes_with_the_steps(line, maker) -> None:
    first = join(line, "first")
    for _ in range(5):
        maker.window(1)
    until(line, first, "made")
    assert first.took_s == 5
    assert line.place_of_new(10, Sampling(steps=30, guidance=None)).left_s == 15


def test_whoever_leaves_makes_room_at_once(line, maker) -> None:
    first, second, third = (join(line, name) for name in ("first", "second", "third"))
    maker.await_next()
    line.leave(second)
    assert line.place(third).before == 1
    line.leave(first)
    maker.go()
    until(line, third, "made")
    assert maker.made == ["third"]
    assert [line.place(turn).state for turn in (first, second)] == ["left", "left"]


def test_to_leave_what_is_made_changes_nothing(line, maker) -> None:
    turn = join(line, "first")
    maker.go()
    until(line, turn, "made")
    line.leave(turn)
    assert line.place(turn).state == "made"


def test_one_that_fails_says_why_and_the_next_one_is_made(line, maker) -> None:
    maker.failing = RuntimeError("out of memory")
    first = join(line, "first")
    maker.go()
    until(line, first, "failed")
    assert str(first.error) == "out of memory"
    maker.failing = None
    until(line, join(line, "second"), "made")


def test_a_line_that_is_closed_makes_no_more(maker) -> None:
    line = WaitingLine(maker, lambda: maker.now_s)
    first, second = join(line, "first"), join(line, "second")
    maker.await_next()
    assert not line.close(0)
    assert {line.place(first).state, line.place(second).state} == {"left"}
    maker.go()
    assert line.close(10)
    assert maker.made == []
