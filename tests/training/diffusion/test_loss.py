"""The velocity loss: equal to upstream's weighted error of the clean latent, and weighted by element."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filled import golden
from tests.training.diffusion.known_targets import normal
from training.diffusion import ZeroSnrSchedule, velocity_loss

SCHEDULE = ZeroSnrSchedule()
SHAPE = (2, 3, 4, 4, 6)
CLEAN, NOISE, PREDICTED = (normal(SHAPE, seed) for seed in range(3))
INDEX = torch.tensor([10, 700])


def _recorded(name):
    return {key: torch.from_numpy(value) for key, value in golden(f"hallo3_net/{name}").items()}


@pytest.mark.parametrize("name", ["a", "b"])
def test_noised_inputs_and_weights_are_the_golden_ones(name):
    at = _recorded(name)
    index = at["loss.idx"]
    torch.testing.assert_close(SCHEDULE.sqrt_alpha[index], at["loss.sqrt_alpha"], atol=1e-7, rtol=0)
    torch.testing.assert_close(SCHEDULE.loss_weight[index], at["loss.weight"], atol=0, rtol=1e-4)
    noised = SCHEDULE.add_noise(at["in.clean_latent"], at["in.noise"], index)
    torch.testing.assert_close(noised, at["loss.noised"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("stage", ["s1", "s2"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_estimate_and_loss_of_the_golden_output_are_the_golden_ones(name, stage):
    at = _recorded(name)
    output, index = at[f"loss.{stage}.net_out"], at["loss.idx"]
    estimate = SCHEDULE.estimate_clean(at["loss.noised"], output, index)
    torch.testing.assert_close(estimate, at[f"loss.{stage}.denoised"], atol=1e-6, rtol=0)
    loss = velocity_loss(output, at["in.clean_latent"], at["in.noise"], index, SCHEDULE)
    # 5e-7 is one rounding at a loss of 4 to 8: another CPU may round once more.
    torch.testing.assert_close(loss, at[f"loss.{stage}.per_sample"], atol=5e-7, rtol=1.2e-7)


@given(index=st.lists(st.integers(0, 999), min_size=2, max_size=2), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_loss_is_upstreams_weighted_error_of_the_clean_latent(index, seed):
    index = torch.tensor(index)
    clean, noise, predicted = (normal(SHAPE, seed + part) for part in range(3))
    # In float64: upstream's form loses digits at small indices.
    a = SCHEDULE.sqrt_alpha[index].double().reshape(-1, 1, 1, 1, 1)
    sigma = (1 - a**2).sqrt()
    estimate = a * (a * clean + sigma * noise) - sigma * predicted
    upstream = ((estimate - clean) ** 2 / (1 - a**2)).flatten(1).mean(dim=1)
    loss = velocity_loss(predicted, clean, noise, index, SCHEDULE)
    torch.testing.assert_close(loss.double(), upstream, rtol=2e-6, atol=0)


def test_the_true_velocity_has_no_loss_and_zero_has_its_mean_square():
    true = SCHEDULE.velocity(CLEAN, NOISE, INDEX)
    assert velocity_loss(true, CLEAN, NOISE, INDEX, SCHEDULE).equal(torch.zeros(2))
    none = velocity_loss(torch.zeros(SHAPE), CLEAN, NOISE, INDEX, SCHEDULE)
    torch.testing.assert_close(none, true.square().flatten(1).mean(dim=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_loss_is_computed_in_float32_whatever_comes_in(dtype):
    given_ = [latent.to(dtype) for latent in (PREDICTED, CLEAN, NOISE)]
    loss = velocity_loss(*given_, INDEX, SCHEDULE)
    assert loss.dtype == torch.float32
    assert loss.equal(velocity_loss(*(latent.float() for latent in given_), INDEX, SCHEDULE))


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_a_weight_that_is_the_same_everywhere_changes_nothing(scale):
    plain = velocity_loss(PREDICTED, CLEAN, NOISE, INDEX, SCHEDULE)
    weight = torch.full((2, 3, 1, 4, 6), scale)
    torch.testing.assert_close(velocity_loss(PREDICTED, CLEAN, NOISE, INDEX, SCHEDULE, weight), plain)


def test_a_weighted_region_counts_as_often_as_its_weight():
    weight = torch.ones(2, 3, 1, 4, 6)
    weight[:, :, :, 2:, 1:4] = 5
    error = (PREDICTED - SCHEDULE.velocity(CLEAN, NOISE, INDEX)).square()
    outside = error * (weight == 1)
    inside = error * (weight == 5)
    # Of the 24 places of a frame, 6 count five times.
    expected = (outside + 5 * inside).sum(dim=(1, 2, 3, 4)) / (3 * 4 * (18 + 5 * 6))
    torch.testing.assert_close(velocity_loss(PREDICTED, CLEAN, NOISE, INDEX, SCHEDULE, weight), expected)


def test_the_gradient_reaches_the_prediction():
    predicted = PREDICTED.clone().requires_grad_()
    velocity_loss(predicted, CLEAN, NOISE, INDEX, SCHEDULE).mean().backward()
    expected = 2 * (PREDICTED - SCHEDULE.velocity(CLEAN, NOISE, INDEX)) / PREDICTED.numel()
    torch.testing.assert_close(predicted.grad, expected)


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (
            torch.ones(2, 3, 4, 6),
            r"weight: expected a shape that broadcasts to \(2, 3, 4, 4, 6\), got \(2, 3, 4, 6\)",
        ),
        (torch.ones(2, 3, 1, 4, 5), "weight: expected a shape .* got \\(2, 3, 1, 4, 5\\)"),
        (-torch.ones(2, 3, 1, 4, 6), "weight: expected finite numbers of 0 or more"),
        (torch.full((2, 1, 1, 1, 1), float("nan")), "weight: expected finite numbers"),
        (
            torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1),
            "weight: expected above 0 somewhere in every sample",
        ),
    ],
)
def test_an_impossible_weight_is_refused_in_words(weight, says):
    with pytest.raises(ValueError, match=says):
        velocity_loss(PREDICTED, CLEAN, NOISE, INDEX, SCHEDULE, weight)


def test_a_prediction_of_another_shape_is_refused_in_words():
    with pytest.raises(ValueError, match="clean: expected the shape of velocity"):
        velocity_loss(PREDICTED[:, :2], CLEAN, NOISE, INDEX, SCHEDULE)
