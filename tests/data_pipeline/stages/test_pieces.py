"""How shots are divided into clips."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.stages.pieces import Divider, Piece

FPS = 10


@dataclass
class Frame:
    time_s: float


def divided(durations_s: list[float], min_s: float = 2, max_s: float = 14) -> list[tuple[float, float]]:
    """Shots of these lengths, one after the other -> (start, end) of their pieces."""
    divider: Divider[Frame] = Divider(min_s, max_s)
    pieces: list[Piece[Frame]] = []
    number = 0
    for duration_s in durations_s:
        for k in range(round(duration_s * FPS)):
            pieces += divider.push(Frame(number / FPS), begins_shot=k == 0)
            number += 1
    pieces += divider.finish(number / FPS)
    return [(piece.start_s, piece.end_s) for piece in pieces]


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (1.9, []),
        (2.0, [(0, 2)]),
        (14.0, [(0, 14)]),
        (15.0, [(0, 7.5), (7.5, 15)]),
        (16.0, [(0, 8), (8, 16)]),
        (30.0, [(0, 14), (14, 22), (22, 30)]),
        (34.0, [(0, 14), (14, 28), (28, 34)]),
    ],
)
def test_a_shot_is_divided_without_losing_a_remainder(duration_s, expected):
    assert divided([duration_s]) == expected


def test_a_piece_never_spans_a_cut():
    assert divided([3, 1, 5]) == [(0, 3), (4, 9)]


@given(
    shots_s=st.lists(st.integers(1, 400).map(lambda frames: frames / FPS), min_size=1, max_size=5),
    min_s=st.integers(1, 5),
    factor=st.floats(2.5, 8),
)
def test_pieces_of_allowed_length_cover_every_shot_that_is_long_enough(shots_s, min_s, factor):
    max_s = round(min_s * factor, 1)
    pieces = divided(shots_s, min_s, max_s)
    start_s = 0.0
    for shot_s in shots_s:
        inside = [(a, b) for a, b in pieces if start_s - 1e-6 <= a and b <= start_s + shot_s + 1e-6]
        covered_s = sum(b - a for a, b in inside)
        assert covered_s == pytest.approx(shot_s if shot_s >= min_s - 1e-3 else 0)
        start_s += shot_s
    assert all(min_s - 2e-3 <= b - a <= max_s + 2e-3 for a, b in pieces)
    assert all(before[1] <= after[0] for before, after in pairwise(pieces))


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        ((0, 1, 200, 201, 202, 203), [(0, 14), (200, 204)]),
        ((0, 1, 2, 3, 200, 201, 202, 203), [(0, 3), (3, 17), (200, 204)]),
        ((0, 203), [(0, 14)]),
        ((0,), [(0, 14)]),
    ],
)
def test_a_picture_that_stays_on_screen_for_minutes_makes_no_piece_too_long(times_s, expected):
    divider: Divider[Frame] = Divider(2, 14)
    pieces: list[Piece[Frame]] = []
    for time_s in times_s:
        pieces += divider.push(Frame(time_s), begins_shot=False)
    pieces += divider.finish(204)
    assert [(piece.start_s, piece.end_s) for piece in pieces] == expected


def test_no_more_than_a_clip_and_a_bit_is_ever_waiting():
    divider: Divider[Frame] = Divider(2, 14)
    given_back = 0
    for k in range(3000):
        pieces = divider.push(Frame(k / FPS), begins_shot=False)
        given_back += sum(len(piece.frames) for piece in pieces)
        assert k + 1 - given_back <= 16 * FPS + 1
