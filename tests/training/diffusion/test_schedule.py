"""The noise tables against tests/golden/hallo3_diffusion, and what they are used for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filled import golden
from tests.training.diffusion.known_targets import normal
from training.diffusion import ZeroSnrSchedule

TABLES = {name: torch.from_numpy(table) for name, table in golden("hallo3_diffusion/tables").items()}
SCHEDULE = ZeroSnrSchedule()


@pytest.mark.parametrize("name", ["sqrt_alpha", "c_skip", "c_out", "c_in"])
def test_the_training_table_is_the_golden_one(name):
    ours = getattr(SCHEDULE, name)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, TABLES[name], atol=1e-7, rtol=0)


def test_the_cumulative_alphas_are_the_golden_ones():
    torch.testing.assert_close(
        SCHEDULE.alphas_cumprod, TABLES["alphas_cumprod_before_rescale_f64"], atol=1e-15, rtol=0
    )


def test_the_loss_weights_are_the_golden_ones():
    torch.testing.assert_close(SCHEDULE.loss_weight, TABLES["weight"], atol=0, rtol=1e-4)


@pytest.mark.parametrize("steps", [10, 25, 50])
def test_a_sampler_table_is_the_golden_one(steps):
    table = SCHEDULE.subsampled(steps)
    assert table.timesteps.equal(TABLES[f"sub{steps}.timesteps_descending"])
    torch.testing.assert_close(table.sqrt_alpha, TABLES[f"sub{steps}.sqrt_alpha"], atol=1e-7, rtol=0)


def test_a_shifted_table_is_the_golden_one():
    shifted = ZeroSnrSchedule(shift=3.0).sqrt_alpha
    torch.testing.assert_close(shifted, TABLES["shift3.sqrt_alpha"], atol=1e-7, rtol=0)


def test_a_shift_divides_the_signal_to_noise_ratio():
    def snr(shift):
        alphas_cumprod = ZeroSnrSchedule(shift=shift).alphas_cumprod
        return alphas_cumprod / (1 - alphas_cumprod)

    torch.testing.assert_close(snr(3.0) * 3, snr(1.0))


def test_a_sampler_of_all_steps_walks_along_the_training_table():
    table = SCHEDULE.subsampled(1000)
    assert table.timesteps.equal(torch.arange(999, -1, -1))
    assert table.sqrt_alpha.equal(SCHEDULE.sqrt_alpha.flip(0))


@given(
    num_timesteps=st.integers(2, 400),
    start=st.floats(1e-4, 5e-3),
    widening=st.floats(1.0, 5.0),
    shift=st.floats(0.2, 8.0),
)
@settings(max_examples=40, deadline=None)
def test_any_table_falls_from_its_start_to_exactly_zero(num_timesteps, start, widening, shift):
    schedule = ZeroSnrSchedule(num_timesteps, start, start * widening, shift)
    table = schedule.sqrt_alpha
    assert table[-1] == 0
    assert (table.diff() < 0).all()
    assert table[0].item() == pytest.approx(schedule.alphas_cumprod[0].sqrt().item(), abs=1e-6)
    torch.testing.assert_close(schedule.c_skip**2 + schedule.c_out**2, torch.ones(num_timesteps))
    assert (schedule.loss_weight >= 1).all()


@given(steps=st.integers(1, 1000))
@settings(max_examples=60, deadline=None)
def test_any_sampler_starts_at_pure_noise_and_falls(steps):
    table = SCHEDULE.subsampled(steps)
    assert len(table.timesteps) == steps
    assert table.timesteps[0] == 999
    assert table.sqrt_alpha[0] == 0
    assert (table.timesteps.diff() < 0).all()
    assert (table.sqrt_alpha.diff() > 0).all()


@given(
    index=st.lists(st.integers(0, 999), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_the_estimate_from_the_true_velocity_is_the_clean_latent(index, dtype, seed):
    clean = normal((len(index), 2, 3, 2, 4), seed).to(dtype)
    noise = normal(tuple(clean.shape), seed + 1).to(dtype)
    index = torch.tensor(index)
    noised = SCHEDULE.add_noise(clean, noise, index)
    velocity = SCHEDULE.velocity(clean, noise, index)
    assert noised.dtype == velocity.dtype == torch.float32
    estimate = SCHEDULE.estimate_clean(noised, velocity, index)
    torch.testing.assert_close(estimate, clean.float(), atol=3e-6, rtol=0)


def test_each_sample_is_noised_by_its_own_index():
    clean, noise = normal((3, 2, 4, 2, 2), 0), normal((3, 2, 4, 2, 2), 1)
    index = torch.tensor([0, 999, 500])
    together = SCHEDULE.add_noise(clean, noise, index)
    alone = [SCHEDULE.add_noise(clean[i : i + 1], noise[i : i + 1], index[i : i + 1]) for i in range(3)]
    assert together.equal(torch.cat(alone))
    assert together[1].equal(noise[1])


def test_the_nearest_entry_of_an_entry_is_itself():
    assert SCHEDULE.nearest_index(SCHEDULE.sqrt_alpha).equal(torch.arange(1000))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_timesteps": 1}, "num_timesteps: expected 2 or more, got 1"),
        ({"num_timesteps": 10.0}, "num_timesteps: expected a whole number, got 10.0"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "beta_start, beta_end: expected .* got 0.5 and 0.1"),
        ({"beta_end": 1.0}, "beta_start, beta_end: expected .* got 0.00085 and 1.0"),
        ({"shift": 0.0}, "shift: expected a positive number, got 0.0"),
        ({"shift": float("nan")}, "shift: expected a positive number, got nan"),
    ],
)
def test_an_impossible_schedule_is_refused_in_words(arguments, says):
    with pytest.raises(ValueError, match=says):
        ZeroSnrSchedule(**arguments)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.0, True])
def test_an_impossible_number_of_steps_is_refused_in_words(steps):
    with pytest.raises(ValueError, match=f"steps: expected .* got {steps}"):
        SCHEDULE.subsampled(steps)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (torch.tensor([0, 1000]), "index: expected 0 to 999, got 0 to 1000"),
        (torch.tensor([-1, 3]), "index: expected 0 to 999, got -1 to 3"),
        (torch.tensor([0.0, 1.0]), "index: expected whole numbers .* got torch.float32"),
        (torch.tensor([True, False]), "index: expected whole numbers .* got torch.bool"),
        (torch.tensor(5), r"index: expected one for each sample, \(2,\), got \(\)"),
        (torch.tensor([1, 2, 3]), r"index: expected one for each sample, \(2,\), got \(3,\)"),
    ],
)
def test_an_impossible_index_is_refused_in_words(index, says):
    latent = torch.zeros(2, 1, 4, 2, 2)
    with pytest.raises(ValueError, match=says):
        SCHEDULE.add_noise(latent, latent, index)


def test_latents_that_do_not_fit_are_refused_in_words():
    latent, index = torch.zeros(2, 1, 4, 2, 2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"noise: expected the shape of clean, .*got \(2, 1, 4, 2, 3\)"):
        SCHEDULE.add_noise(latent, torch.zeros(2, 1, 4, 2, 3), index)
    with pytest.raises(ValueError, match=r"velocity: expected a floating-point dtype, got torch.int64"):
        SCHEDULE.estimate_clean(latent, latent.long(), index)
    with pytest.raises(ValueError, match="noise: expected on cpu as clean, got meta"):
        SCHEDULE.velocity(latent, latent.to("meta"), index)
