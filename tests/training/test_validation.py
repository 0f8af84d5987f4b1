"""Held-out losses that compare, of the weights that will be exported."""

import pytest

from tests.training.engine_run import alone, batch_of, small_config, small_engine, take_steps
from training.validation import QUANTILES, averaged, held_out_losses


def test_held_out_losses_are_by_quantile_and_the_same_however_the_run_was_seeded(tmp_path) -> None:
    with alone():
        found = []
        for seed in (0, 1):
            config = small_config(tmp_path, f"seed={seed}")
            engine = small_engine(config)
            batches = [batch_of(config, 0, [0, 1]), batch_of(config, 0, [2, 3])]
            found.append(held_out_losses(engine, batches, config))
            assert engine.training
    assert found[0] == found[1]
    by_quantile = [found[0][f"loss_{quantile}"] for quantile in QUANTILES]
    assert len({*by_quantile}) == 9
    assert abs(found[0]["loss"] - sum(by_quantile) / 9) < 1e-12


def test_what_fills_the_last_batch_up_does_not_count(tmp_path) -> None:
    with alone():
        config = small_config(tmp_path)
        engine = small_engine(config)
        two = batch_of(config, 0, [0, 1])
        alone_in_it = batch_of(config, 0, [0])
        two.weight[1] = 0
        padded, single = (held_out_losses(engine, [batch], config) for batch in (two, alone_in_it))
        assert held_out_losses(engine, [], config) == {}
    assert abs(padded["loss"] - single["loss"]) < 1e-6


@pytest.mark.parametrize("stage", [2, *(pytest.param(other, marks=pytest.mark.slow) for other in (0, 1, 3))])
def test_the_average_stands_in_for_the_weights_and_they_come_back_bit_for_bit(tmp_path, stage) -> None:
    config = small_config(tmp_path, f"deepspeed.zero_stage={stage}")
    with alone():
        engine = small_engine(config)
        take_steps(engine, config, 0, 3)
        batch = [batch_of(config, 9, [0, 1])]
        plain = held_out_losses(engine, batch, config)
        with averaged(engine, config):
            assert held_out_losses(engine, batch, config) != plain
        assert held_out_losses(engine, batch, config) == plain
        one_more = take_steps(engine, config, 3, 4)
    with alone():
        assert take_steps(small_engine(config), config, 0, 4)[-1:] == one_more
