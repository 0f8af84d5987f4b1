"""Guidance scales by step, and how the two predictions are made and joined."""

from itertools import pairwise

import pytest
import torch

from tests.filled import golden
from tests.training.diffusion.known_targets import normal
from training.diffusion import ConfiguredGuidance, ConstantGuidance, RisingGuidance, in_two_passes
from training.diffusion.guidance import guided_velocity


@pytest.mark.parametrize("name", ["shipped25", "shipped50", "scheduled50"])
def test_the_configured_scales_are_the_golden_ones(name):
    at = golden(f"hallo3_diffusion/sampler.{name}")
    timesteps = at["timesteps"].tolist()
    steps = len(timesteps)
    rule = ConfiguredGuidance()
    scales = [rule(step, steps, int(timestep)) for step, timestep in enumerate(timesteps)]
    assert scales == pytest.approx(at["schedule_scale"].tolist(), abs=1e-6)


def test_the_rising_scale_starts_at_one_and_rises_to_almost_one_plus_scale():
    scales = [RisingGuidance(6.0, 5.0)(step, 50, 999 - 20 * step) for step in range(50)]
    assert scales[0] == 1
    assert all(before <= after for before, after in pairwise(scales))
    assert 6.5 < scales[-1] < 7


def test_the_shipped_scale_is_three_and_a_half_in_every_step():
    assert {ConstantGuidance()(step, 50, 999 - step) for step in range(50)} == {3.5}


def test_a_fractional_exponent_of_the_configured_rule_is_refused_in_words():
    with pytest.raises(ValueError, match=r"exponent: expected a whole number.*got 5.5; RisingGuidance"):
        ConfiguredGuidance(exponent=5.5)


def test_the_unconditional_half_comes_first():
    seen = []

    def denoise(x, timesteps):
        seen.append((x, timesteps))
        return torch.cat([torch.full_like(x[:2], 1.0), torch.full_like(x[:2], 4.0)])

    x, timesteps = normal((2, 1, 4, 2, 2), 0), torch.tensor([7.0, 7.0])
    guided = guided_velocity(denoise, x, timesteps, scale=2.0)
    assert guided.equal(torch.full_like(x, 1 + 2 * (4 - 1)))
    assert len(seen) == 1
    assert seen[0][0].equal(torch.cat([x, x]))
    assert seen[0][1].equal(torch.full((4,), 7.0))


def test_two_passes_give_what_one_pass_of_twice_the_batch_gives():
    condition = torch.tensor([0.0, 0.0, 1.0, -2.0]).reshape(4, 1, 1, 1, 1)
    batches = []

    def network(x, timesteps, condition):
        batches.append(len(x))
        return x * timesteps.reshape(-1, 1, 1, 1, 1) + condition

    x, timesteps = normal((2, 1, 4, 2, 2), 0), torch.tensor([7.0, 8.0])
    whole = guided_velocity(lambda x, t: network(x, t, condition), x, timesteps, 3.5)
    halves = in_two_passes(
        lambda x, t: network(x, t, condition[:2]), lambda x, t: network(x, t, condition[2:])
    )
    assert guided_velocity(halves, x, timesteps, 3.5).equal(whole)
    assert batches == [4, 2, 2]


def test_a_network_that_answers_for_half_of_the_batch_is_refused_in_words():
    x = normal((2, 1, 4, 2, 2), 0)
    with pytest.raises(
        ValueError,
        match=r"denoise: expected \(4, 1, 4, 2, 2\) for the doubled batch, .*got \(2, 1, 4, 2, 2\)",
    ):
        guided_velocity(lambda doubled, timesteps: doubled[:2], x, torch.ones(2), 3.5)
