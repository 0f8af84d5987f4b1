"""Which sample comes when does not depend on who asks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.order import BLOCK, EpochOrder, Mixture, places_of

shard_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any).map(tuple)
kinds = st.sampled_from(["full", "shards"])


@given(shard_sizes, st.integers(0, 9), kinds, st.integers(1, 50), st.integers(0, 3))
def test_an_epoch_has_every_window_once(sizes, seed, kind, buffer, epoch) -> None:
    order = EpochOrder(sizes, seed, kind, buffer)
    assert sorted(order.permutation(epoch)) == list(range(sum(sizes)))


@given(shard_sizes, kinds, st.integers(0, 200))
def test_a_stream_that_begins_later_goes_on_as_one_that_began_at_the_start(sizes, kind, first) -> None:
    from_the_start = EpochOrder(sizes, 3, kind, 16)
    expected = [from_the_start.window_at(position) for position in range(first + 20)][first:]
    resumed = EpochOrder(sizes, 3, kind, 16)
    assert [resumed.window_at(position) for position in range(first, first + 20)] == expected


@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 50))
def test_workers_together_see_the_batch_that_one_would_see(workers, step) -> None:
    order = EpochOrder((30, 30), 0)
    whole = [order.window_at(12 * step + place) for place in range(12)]
    shared = {
        place: order.window_at(12 * step + place)
        for worker in range(workers)
        for place in places_of(worker, workers, 12)
    }
    assert [shared[place] for place in range(12)] == whole


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [EpochOrder((50,), seed).permutation(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(st.integers(0, 5))
def test_in_shard_order_what_is_read_next_lies_close(epoch) -> None:
    order = EpochOrder((100,) * 20, 0, "shards", buffer=30).permutation(epoch)
    recent = [len(np.unique(order[at : at + 50] // 100)) for at in range(0, 2000, 50)]
    assert np.median(recent) <= 4  # of 20 shards
    full = EpochOrder((100,) * 20, 0).permutation(epoch)
    assert len(np.unique(full[:50] // 100)) > 10


@settings(max_examples=25)
@given(st.lists(st.floats(0.05, 10), min_size=1, max_size=5), st.integers(0, 5))
def test_datasets_have_their_shares_of_every_block(weights, block) -> None:
    orders = tuple(EpochOrder((7 + index,), index) for index in range(len(weights)))
    mixture = Mixture(orders, tuple(weights), seed=0)
    taken = Counter(mixture.at(position)[0] for position in range(block * BLOCK, (block + 1) * BLOCK))
    for index, weight in enumerate(weights):
        assert abs(taken[index] - BLOCK * weight / sum(weights)) < 1


def test_a_dataset_in_a_mixture_goes_through_its_epochs_as_it_would_alone() -> None:
    orders = (EpochOrder((11,), 0), EpochOrder((5, 3), 1))
    mixture = Mixture(orders, (3.0, 1.0), seed=4)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for position in range(2 * BLOCK + 100):
        dataset, window = mixture.at(position)
        seen[dataset].append(window)
    for dataset, windows in seen.items():
        assert windows == [orders[dataset].window_at(n) for n in range(len(windows))]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: EpochOrder((0, 0), 0), "at least one window"),
        (lambda: Mixture((EpochOrder((1,), 0),) * 2, (1.0, 1e-5), 0), "below one sample in 1000"),
        (lambda: places_of(2, 2, 8), "0 to workers - 1 = 1, got 2"),
        (lambda: places_of(0, 3, 8), "multiple of the 3 workers, got 8"),
    ],
)
def test_an_impossible_order_is_refused_in_words(call, says) -> None:
    with pytest.raises(ValueError, match=says):
        call()
