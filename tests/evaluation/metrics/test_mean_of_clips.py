"""Means over clips: who measured what, and in which order, changes nothing."""

import math
from copy import deepcopy
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import Figure, Found

CLIPS = {
    f"clip {number:02}": {"score": float(value), **({"margin": float(value) / 3} if number % 3 else {})}
    for number, value in enumerate(np.random.default_rng(0).lognormal(sigma=3, size=12))
}


def state(*names: str) -> MeanOfClips:
    metric = MeanOfClips(["score", "margin"])
    for name in names:
        metric.update(name, Found(CLIPS[name]))
    return metric


def merged(states: list[MeanOfClips]) -> MeanOfClips:
    def both(first: MeanOfClips, second: MeanOfClips) -> MeanOfClips:
        first = deepcopy(first)
        first.merge(second)
        return first

    return reduce(both, states, state())


WHOLE = state(*CLIPS).compute()


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(sorted(CLIPS)), edges=st.lists(st.integers(0, len(CLIPS)), max_size=4))
def test_any_split_over_workers_in_any_order_gives_identical_figures(order, edges) -> None:
    places = [0, *sorted(edges), len(order)]
    parts = [state(*order[start:end]) for start, end in pairwise(places)]
    assert merged(parts).compute() == WHOLE
    assert merged(parts[::-1]).compute() == WHOLE


def test_a_figure_is_the_mean_of_the_clips_that_have_its_value() -> None:
    score, margin = WHOLE
    assert (score.name, score.n, margin.name, margin.n) == ("score", 12, "margin", 8)
    assert score.value == pytest.approx(np.mean([row["score"] for row in CLIPS.values()]))
    assert margin.value == pytest.approx(
        np.mean([row["margin"] for row in CLIPS.values() if "margin" in row])
    )
    assert score.low < score.value < score.high


def test_of_one_clip_there_is_no_interval_and_of_none_no_value() -> None:
    one, none = state("clip 00").compute()
    assert (one.value, one.n) == (CLIPS["clip 00"]["score"], 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert none.n == 0
    assert all(map(math.isnan, (none.value, none.low, none.high)))


def test_other_columns_of_a_row_are_no_figures() -> None:
    metric = MeanOfClips(["score"])
    for name in "ab":
        metric.update(name, Found({"score": 2.0, "seen": 0.5}))
    assert metric.compute() == [Figure("score", 2.0, 2.0, 2.0, 2)]


def test_no_clip_counts_twice() -> None:
    with pytest.raises(ValueError, match="'clip 01': it is in the state already"):
        state("clip 01", "clip 01")
    with pytest.raises(ValueError, match=r"'clip 01': it is in both states \(1 are\)"):
        state("clip 00", "clip 01").merge(state("clip 01", "clip 02"))


def test_states_of_other_figures_and_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        state().merge(MeanOfClips(["score"]))
    with pytest.raises(ValueError, match="'a': margin is nan; leave out"):
        state().update("a", Found({"score": 1.0, "margin": math.nan}))
