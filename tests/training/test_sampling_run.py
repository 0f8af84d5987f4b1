"""The short guided sampling runs of tests/golden/hallo3_net: the networks and the sampler together."""

from functools import cache

import pytest
import torch

from tests.training.golden_networks import golden_model, recorded
from training.diffusion import ConstantGuidance, DpmSolverSde, ZeroSnrSchedule, in_two_passes

model = cache(golden_model)


def conditions(name):
    """Of the recorded run's one sample: both halves' text and audio, and what they share."""
    at = recorded(name)
    first = {key: value[:1] for key, value in at.items() if key.startswith("in.")}
    text = torch.cat([first["in.uncond_text"], first["in.text"]])
    audio = torch.cat([torch.zeros_like(first["in.audio"]), first["in.audio"]])
    bank = model(name, 2).reference(first["in.ref_latent"], first["in.uncond_text"])
    shared = {
        "image_condition": first["in.concat_latent"],
        "face": first["in.face"],
        "reference": bank,
    }
    return at, first["in.noisy_latent"], text, audio, shared


def sampled(at, denoise, start):
    draws = iter(at["sample.noise"])
    steps = DpmSolverSde(ZeroSnrSchedule(), len(at["sample.x"])).trajectory(
        denoise, start, guidance=ConstantGuidance(), noise=lambda shape: next(draws)[None]
    )
    done = list(steps)
    assert not list(draws)
    return torch.cat([step.x for step in done]), torch.cat([step.estimate for step in done])


def assert_is_the_recorded_run(at, x, estimates):
    torch.testing.assert_close(x, at["sample.x"], atol=5e-5, rtol=0)
    torch.testing.assert_close(estimates, at["sample.denoised"], atol=5e-5, rtol=0)
    torch.testing.assert_close(x[-1:], at["sample.out"], atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", ["a", "b"])
@torch.no_grad()
def test_a_guided_run_with_conditions_prepared_once_is_upstreams(name):
    at, start, text, audio, shared = conditions(name)
    denoiser = model(name, 2).denoiser
    prepared = denoiser.prepare(text, reference=shared["reference"], face=shared["face"], audio=audio)
    image_condition = shared["image_condition"].repeat(2, 1, 1, 1, 1)
    x, estimates = sampled(at, lambda x, t: denoiser.denoise(x, t, image_condition, prepared), start)
    assert_is_the_recorded_run(at, x, estimates)


@torch.no_grad()
def test_a_guided_run_in_two_passes_is_upstreams():
    at, start, text, audio, shared = conditions("b")
    denoiser = model("b", 2).denoiser

    def half(row):
        def denoise(x, timesteps):
            return denoiser(x, timesteps, text[row : row + 1], audio=audio[row : row + 1], **shared)

        return denoise

    assert_is_the_recorded_run(at, *sampled(at, in_two_passes(half(0), half(1)), start))
