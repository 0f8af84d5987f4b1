"""Stratified indices: upstream's by rank, and ours by place in the global batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filled import golden_facts
from training.diffusion import stratified_indices, stratified_range

FACTS = golden_facts("hallo3_diffusion/stratified_index_sampling")


@pytest.mark.parametrize("row", FACTS["rows"], ids=lambda row: f"{row['world_size']} ranks")
def test_a_ranks_range_is_the_golden_one(row):
    size, per_group = row["indices_per_group"], row["ranks_per_group"]
    for rank in range(row["world_size"]):
        group = rank // per_group
        expected = range(group * size, (group + 1) * size)
        assert stratified_range(rank, row["world_size"], FACTS["num_idx"]) == expected


@given(world_size=st.integers(1, 300), num_timesteps=st.integers(1, 2000))
@settings(max_examples=60, deadline=None)
def test_the_ranks_ranges_cut_the_table_into_equal_parts(world_size, num_timesteps):
    ranges = [stratified_range(rank, world_size, num_timesteps) for rank in range(world_size)]
    parts = list(dict.fromkeys(ranges))
    assert [index for part in parts for index in part] == list(range(num_timesteps))
    assert len({ranges.count(part) for part in parts}) == 1


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_is_not_there_is_refused_in_words(rank, world_size):
    with pytest.raises(ValueError, match=f"rank: expected 0 to .*, got {rank}"):
        stratified_range(rank, world_size)


@given(
    batch_size=st.integers(1, 48),
    workers=st.integers(1, 12),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_any_number_of_workers_draws_the_same_batch(batch_size, workers, seed, step):
    whole = stratified_indices(range(batch_size), batch_size, seed=seed, step=step)
    for worker in range(workers):
        places = range(worker, batch_size, workers)
        own = stratified_indices(places, batch_size, seed=seed, step=step)
        assert own.dtype == torch.int64
        assert own.equal(whole[worker::workers])


@given(batch_size=st.integers(1, 3000), num_timesteps=st.integers(1, 1500), step=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_each_place_draws_from_its_own_part_of_the_table(batch_size, num_timesteps, step):
    places = range(0, batch_size, max(1, batch_size // 50))
    drawn = stratified_indices(places, batch_size, seed=1, step=step, num_timesteps=num_timesteps).tolist()
    for place, index in zip(places, drawn, strict=True):
        first = place * num_timesteps // batch_size
        last = -(-(place + 1) * num_timesteps // batch_size) - 1
        assert first <= index <= last < num_timesteps


def test_the_part_of_a_place_is_that_of_a_rank_where_each_has_one_sample():
    for step in range(50):
        drawn = stratified_indices(range(8), 8, seed=0, step=step).tolist()
        assert all(index in stratified_range(rank, 8) for rank, index in enumerate(drawn))


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_every_index_is_as_likely_as_any_other(batch_size):
    from scipy.stats import chisquare

    table, steps = 20, 6000
    drawn = torch.cat(
        [
            stratified_indices(range(batch_size), batch_size, seed=5, step=step, num_timesteps=table)
            for step in range(steps // batch_size)
        ]
    )
    # Stratified counts vary less than free ones do, so the test is a strict one.
    assert chisquare(torch.bincount(drawn, minlength=table).numpy()).pvalue > 0.001


def test_a_batch_covers_the_table_more_evenly_than_free_draws_would():
    means = [
        stratified_indices(range(16), 16, seed=0, step=step).double().mean().item() for step in range(200)
    ]
    # Free draws: 1000 / sqrt(12 * 16) = 72. Stratified: 1000 / 16 / sqrt(12 * 16) = 4.5.
    assert torch.tensor(means).std() < 6


def test_another_seed_or_step_draws_other_indices():
    one, two, three = (
        stratified_indices(range(8), 8, seed=seed, step=step) for seed, step in [(0, 0), (0, 1), (1, 0)]
    )
    assert not one.equal(two)
    assert not one.equal(three)


def test_a_worker_without_a_place_draws_nothing():
    assert stratified_indices([], 4, seed=0, step=0).shape == (0,)


@pytest.mark.parametrize("position", [4, -1])
def test_a_place_outside_of_the_batch_is_refused_in_words(position):
    with pytest.raises(ValueError, match=f"positions: expected 0 to batch_size - 1 = 3, got {position}"):
        stratified_indices([position], 4, seed=0, step=0)
