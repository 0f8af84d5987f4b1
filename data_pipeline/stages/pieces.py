"""Pieces: how shots of unknown length become clips of min_s..max_s while they stream by.

Once more than max_s + min_s of a shot wait, its first max_s become a piece, so that at least min_s
remain. When it ends, what waits is one piece, or two even ones where it is longer than max_s. So at
most max_s + min_s ever wait, and of a shot of min_s or more nothing is lost (beyond a frame's
rounding where max_s is hardly twice min_s).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

TOLERANCE_S = 1e-3  # clip times are whole milliseconds


class Timed(Protocol):
    """A frame, or what is kept of one."""

    @property
    def time_s(self) -> float: ...


Frame = TypeVar("Frame", bound=Timed)


@dataclass(frozen=True, slots=True)
class Piece(Generic[Frame]):
    """The frames of one clip, and where it ends: when the next frame is shown, or the video is over."""

    frames: Sequence[Frame]
    end_s: float

    @property
    def start_s(self) -> float:
        return self.frames[0].time_s

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Divider(Generic[Frame]):
    """Takes frames in order of time, gives back pieces as soon as they are certain."""

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._shot: list[Frame] = []
        self.n_shots = 0

    def push(self, frame: Frame, begins_shot: bool) -> list[Piece[Frame]]:
        """The next frame, and whether a cut lies before it."""
        pieces = []
        if begins_shot or not self._shot:
            pieces = self.finish(frame.time_s)
            self.n_shots += 1
        self._shot.append(frame)
        while frame.time_s - self._shot[0].time_s > self._max_s + self._min_s:
            piece, self._shot = self._divided(self._shot, self._shot[0].time_s + self._max_s)
            pieces.append(piece)
        return pieces

    def finish(self, end_s: float) -> list[Piece[Frame]]:
        """The shot, or the video, is over at `end_s`."""
        if not self._shot:
            return []
        shot, self._shot = self._shot, []
        pieces = [Piece(shot, end_s)]
        if pieces[0].duration_s > self._max_s + TOLERANCE_S:
            first, rest = self._divided(shot, shot[0].time_s + pieces[0].duration_s / 2)
            pieces = [first, Piece(rest, end_s)] if rest else [first]
        # A last picture that stays on screen for long (variable frame rates) may make a piece too long.
        pieces = [Piece(piece.frames, min(piece.end_s, piece.start_s + self._max_s)) for piece in pieces]
        return [piece for piece in pieces if piece.duration_s >= self._min_s - TOLERANCE_S]

    def _divided(self, shot: list[Frame], at_s: float) -> tuple[Piece[Frame], list[Frame]]:
        """Divided at the last frame that is shown by `at_s`."""
        index = sum(frame.time_s <= at_s + TOLERANCE_S for frame in shot) - 1
        if shot[index].time_s - shot[0].time_s < self._min_s:
            # One picture stays on screen for long (variable frame rates): what exceeds `at_s` is lost.
            return Piece(shot[: index + 1], at_s), shot[index + 1 :]
        return Piece(shot[:index], shot[index].time_s), shot[index:]
