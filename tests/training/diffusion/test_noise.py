"""Noise that follows from what it is for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.diffusion import SeededNoise, seed_of


def test_one_seed_draws_what_a_generator_of_that_seed_draws():
    noise, stream = SeededNoise([42]), torch.Generator().manual_seed(42)
    for shape in [(1, 2, 4, 4, 6), (1, 3, 5)]:
        assert noise(shape).equal(torch.randn(shape, generator=stream))


def test_a_row_does_not_depend_on_the_rows_beside_it():
    together, alone = SeededNoise([1, 2, 3]), SeededNoise([2])
    for _ in range(3):
        assert together((3, 2, 4))[1:2].equal(alone((1, 2, 4)))


@given(st.lists(st.integers(0, 2**63 - 1), max_size=4), st.lists(st.integers(0, 2**63 - 1), max_size=4))
def test_seeds_fit_a_generator_and_differ_where_their_keys_do(one, other):
    seeds = seed_of("noise", *one), seed_of("noise", *other)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert (seeds[0] == seeds[1]) == (one == other)
    assert seed_of("dropout", *one) != seeds[0]


def test_numbers_of_a_key_do_not_run_together():
    assert seed_of("noise", 1, 23) != seed_of("noise", 12, 3)


def test_a_batch_of_another_size_is_refused_in_words():
    with pytest.raises(ValueError, match="seeds: expected one for each of the 3 rows, got 2"):
        SeededNoise([1, 2])((3, 4))
