import numpy as np
import pytest

from evaluation.metrics.interval import mean_interval


def test_the_interval_of_normal_values_is_that_of_the_textbook() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    found = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
    assert (found.n, found.excludes_zero) == (400, True)


def test_items_that_share_something_are_no_independent_witnesses() -> None:
    values = np.repeat(np.random.default_rng(4).normal(0.0, 1.0, 10), 20)
    alone = mean_interval(values)
    together = mean_interval(values, [str(place // 20) for place in range(200)])
    assert alone.value == together.value
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_about_one_interval_in_twenty_misses_the_mean() -> None:
    draws = np.random.default_rng(5).normal(0.0, 1.0, (200, 14))
    missed = sum(mean_interval(values).excludes_zero for values in draws)
    assert 4 <= missed <= 24  # 5 % of 200 are 10; of few items a percentile interval is somewhat too short


def test_the_same_values_give_the_same_interval() -> None:
    assert mean_interval([0.1, 0.5, 0.2]) == mean_interval([0.1, 0.5, 0.2])


@pytest.mark.parametrize(
    ("values", "groups", "words"),
    [
        ([0.5], None, "at least two independent ones, got 1"),
        ([0.5, 0.4], ["a", "a"], "at least two independent ones, got 1"),
        ([0.5, float("nan")], None, "expected finite numbers, got nan"),
        ([0.5, 0.4], ["a"], "expected one an item, got 1 for 2 items"),
    ],
)
def test_what_has_no_interval_is_refused(values, groups, words) -> None:
    with pytest.raises(ValueError, match=words):
        mean_interval(values, groups)
