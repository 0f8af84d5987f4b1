"""The sampler: upstream's runs draw for draw, and what is known of exact solutions."""

import math
from itertools import pairwise

import pytest
import torch

from tests.filled import golden, golden_facts
from tests.training.diffusion.known_targets import NormalMixture, largest_gap, normal
from training.diffusion import (
    ConfiguredGuidance,
    ConstantGuidance,
    DpmSolverSde,
    SeededNoise,
    ZeroSnrSchedule,
)

SCHEDULE = ZeroSnrSchedule()
ONE = NormalMixture(SCHEDULE, means=(1.5,), stds=(1.2,))
TWO = NormalMixture(SCHEDULE, means=(-2.0, 1.0), stds=(0.4, 0.7), shares=(0.3, 0.7))
LATENT = (2, 3, 4, 4, 6)


class Draws:
    """Noise that was recorded, and how often it was asked for."""

    def __init__(self, recorded):
        self.recorded, self.count = recorded, 0

    def __call__(self, shape):
        self.count += 1
        return self.recorded[self.count - 1]


def toy_network(at):
    """The velocity of the golden runs, for the doubled batch."""
    condition = torch.cat([at["uncond"], at["cond"]])
    audio = torch.cat([torch.zeros_like(at["audio"]), at["audio"]]).mean(dim=(1, 2))
    face = torch.cat([at["face"], at["face"]]).mean(dim=1)

    def denoise(x, timesteps):
        def each(numbers):
            return numbers.reshape(-1, 1, 1, 1, 1)

        return each(0.5 * timesteps / 1000) * x + 0.3 * condition + each(0.2 * audio + 0.1 * face)

    return denoise


def run(solver, denoise, x, noise=None, guidance=None):
    return list(solver.trajectory(denoise, x, guidance=guidance, noise=noise))


@pytest.mark.parametrize("name", ["shipped25", "shipped50", "scheduled50"])
def test_a_run_is_upstreams_step_for_step(name):
    at = {key: torch.from_numpy(value) for key, value in golden(f"hallo3_diffusion/sampler.{name}").items()}
    said = golden_facts(f"hallo3_diffusion/sampler.{name}")
    guidance = ConfiguredGuidance() if said["guidance"] == "scheduled" else ConstantGuidance()
    draws = Draws(at["noise"])
    steps = run(DpmSolverSde(SCHEDULE, said["steps"]), toy_network(at), at["x_init"], draws, guidance)
    assert draws.count == said["noise_draws_used"] == 2 * said["steps"] - 3
    assert [done.timestep for done in steps] == at["timesteps"].tolist()
    torch.testing.assert_close(torch.stack([done.x for done in steps]), at["x"], atol=2e-5, rtol=0)
    torch.testing.assert_close(
        torch.stack([done.estimate for done in steps]), at["denoised"], atol=2e-5, rtol=0
    )
    torch.testing.assert_close(steps[-1].x, at["out"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["shipped25", "shipped50"])
def test_upstreams_coefficients_come_from_the_nearest_entry_of_the_training_table(name):
    at = {key: torch.from_numpy(value) for key, value in golden(f"hallo3_diffusion/sampler.{name}").items()}
    table = SCHEDULE.subsampled(len(at["timesteps"]))
    torch.testing.assert_close(table.sqrt_alpha, at["sqrt_alpha"][:-1], atol=1e-7, rtol=0)
    nearest = SCHEDULE.nearest_index(table.sqrt_alpha)
    assert nearest.equal(at["network_table_index"])
    for ours, theirs in [("sqrt_alpha", "network_sqrt_alpha"), ("c_skip", "c_skip"), ("c_out", "c_out")]:
        torch.testing.assert_close(getattr(SCHEDULE, ours)[nearest], at[theirs], atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("solver", "draws"),
    [
        (DpmSolverSde(SCHEDULE, 10), 17),
        (DpmSolverSde(SCHEDULE, 10, compat=False), 9),
        (DpmSolverSde(SCHEDULE, 10, eta=0.0, compat=False), 0),
        (DpmSolverSde(SCHEDULE, 2), 1),
        (DpmSolverSde(SCHEDULE, 1), 0),
    ],
)
def test_noise_is_drawn_so_often(solver, draws):
    noise = Draws(normal((20, *LATENT), 0))
    run(solver, ONE.velocity, normal(LATENT, 1), noise)
    assert noise.count == draws


@pytest.mark.parametrize("steps", [1, 2, 3, 50, 1000])
@pytest.mark.parametrize(("eta", "compat"), [(1.0, True), (0.0, False)])
def test_any_number_of_steps_stays_finite_and_ends_at_the_estimate(steps, eta, compat):
    solver = DpmSolverSde(SCHEDULE, steps, eta, compat)
    done = run(solver, ONE.velocity, normal((1, 1, 1, 2, 2), 1), SeededNoise([2]))
    assert len(done) == steps
    assert all(torch.isfinite(each.x).all() for each in done)
    assert done[-1].x.equal(done[-1].estimate)


def test_without_compat_the_states_have_the_training_tables_noise_levels():
    """A network that knows the clean latent leaves, of the start state, sigma times noise around it."""
    clean = torch.full((1, 1, 1, 100, 100), 3.0)

    def denoise(x, timesteps):
        a = SCHEDULE.sqrt_alpha[timesteps.long()].double()
        return (a * x - clean) / (1 - a**2).sqrt()

    for eta in (0.0, 0.5, 1.0):
        solver = DpmSolverSde(SCHEDULE, 20, eta, compat=False)
        steps = run(solver, denoise, normal(tuple(clean.shape), 1), SeededNoise([2]))
        for done, following in pairwise(steps):
            a = SCHEDULE.sqrt_alpha[following.timestep].item()
            residue = done.x - a * clean
            assert residue.std().item() == pytest.approx(math.sqrt(1 - a**2), rel=0.03)
        torch.testing.assert_close(steps[-1].x, clean, atol=1e-4, rtol=0)


def _error_at_the_middle(solver_steps):
    """How far the deterministic state that arrives at timestep 499 is from the exact solution's."""
    x = normal((1, 1, 1, 100, 100), 0)
    steps = run(DpmSolverSde(SCHEDULE, solver_steps, eta=0.0, compat=False), ONE.velocity, x)
    arrived = next(done for done, then in pairwise(steps) if then.timestep == 499)
    a = SCHEDULE.sqrt_alpha[499].item()
    exact = a * 1.5 + math.sqrt(a**2 * 1.2**2 + 1 - a**2) * x
    return (arrived.x - exact).abs().max().item()


def test_the_deterministic_solution_converges_with_the_square_of_the_steps():
    errors = [_error_at_the_middle(steps) for steps in (20, 40, 80, 160)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(1.8 < order < 2.2 for order in orders), orders


@pytest.mark.parametrize(("eta", "compat"), [(1.0, True), (1.0, False), (0.5, False), (0.0, False)])
def test_samples_of_a_normal_target_have_its_mean_and_spread(eta, compat):
    x = normal((1, 1, 1, 300, 500), 0)
    sampled = DpmSolverSde(SCHEDULE, 50, eta, compat).sample(
        ONE.velocity, x, guidance=None, noise=SeededNoise([1])
    )
    # The last step gives an expectation, so at timestep 19 it takes 0.8 % from the spread.
    a = SCHEDULE.sqrt_alpha[19].item()
    spread = 1.2**2 * a / math.sqrt(a**2 * 1.2**2 + 1 - a**2)
    assert sampled.mean().item() == pytest.approx(1.5, abs=0.015)
    assert sampled.std().item() == pytest.approx(spread, rel=0.012)


def test_more_steps_bring_the_spread_closer_to_the_targets():
    x = normal((1, 1, 1, 200, 200), 0)
    x = (x - x.mean()) / x.std()

    def lack(steps):
        solver = DpmSolverSde(SCHEDULE, steps, eta=0.0, compat=False)
        return abs(solver.sample(ONE.velocity, x, guidance=None, noise=None).std().item() - 1.2)

    assert lack(200) < lack(50) < lack(12)
    assert lack(200) < 0.003


def test_stochastic_and_deterministic_samples_are_of_the_targets_distribution():
    x = normal((1, 1, 1, 100, 200), 0)
    stochastic, mixed, deterministic = (
        DpmSolverSde(SCHEDULE, 80, eta, compat=False).sample(
            TWO.velocity, x, guidance=None, noise=SeededNoise([3])
        )
        for eta in (1.0, 0.5, 0.0)
    )
    target = TWO.drawn(20_000, seed=4)
    # Two samples of this size from one distribution are 0.0195 apart or more once in a thousand times.
    assert largest_gap(stochastic, deterministic) < 0.025
    for sampled in (stochastic, mixed, deterministic):
        assert largest_gap(sampled, target) < 0.025
    assert largest_gap(normal((20_000,), 5), target) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("target", [ONE, TWO], ids=["normal", "mixture"])
def test_the_deterministic_solution_is_that_of_diffusers(target):
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=SCHEDULE.beta_start,
        beta_end=SCHEDULE.beta_end,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(50)
    x = start = normal((1, 1, 4, 20, 20), 0)
    for timestep in theirs.timesteps:
        x = theirs.step(target.velocity(x, timestep[None]).float(), timestep, x).prev_sample
    solver = DpmSolverSde(SCHEDULE, 50, eta=0.0, compat=False)
    ours = solver.sample(target.velocity, start, guidance=None, noise=None)
    # Theirs cannot start at a = 0 and takes 2^-12 for it: the two are up to 9e-4 apart.
    torch.testing.assert_close(ours, x, atol=2e-3, rtol=0)
    assert (x - start).abs().max() > 0.5


def test_guidance_is_asked_each_step_and_scale_one_is_the_conditional_network():
    asked = []

    def rule(step, steps, timestep):
        asked.append((step, steps, timestep))
        return 1.0

    def doubled(x, timesteps):
        half = len(x) // 2
        return torch.cat([torch.zeros_like(x[:half]), ONE.velocity(x[half:], timesteps[half:])])

    solver = DpmSolverSde(SCHEDULE, 5, compat=False)
    x = normal(LATENT, 0)
    guided = run(solver, doubled, x, SeededNoise([1, 2]), rule)
    plain = run(solver, ONE.velocity, x, SeededNoise([1, 2]))
    assert asked == [(step, 5, done.timestep) for step, done in enumerate(guided)]
    assert [done.scale for done in guided] == [1.0] * 5
    assert [done.scale for done in plain] == [None] * 5
    torch.testing.assert_close(guided[-1].x, plain[-1].x, atol=1e-5, rtol=0)


def test_a_sample_does_not_depend_on_those_beside_it():
    solver = DpmSolverSde(SCHEDULE, 8)
    x = normal(LATENT, 0)
    together = solver.sample(ONE.velocity, x, guidance=None, noise=SeededNoise([1, 2]))
    alone = solver.sample(ONE.velocity, x[1:], guidance=None, noise=SeededNoise([2]))
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)


def test_the_state_is_float32_whatever_the_network_and_the_start_are():
    dtypes = set()

    def denoise(x, timesteps):
        dtypes.update([x.dtype, timesteps.dtype])
        assert timesteps.shape == (2,)
        return ONE.velocity(x, timesteps).bfloat16()

    start = normal(LATENT, 0).bfloat16()
    steps = run(DpmSolverSde(SCHEDULE, 4), denoise, start, SeededNoise([1, 2]))
    assert dtypes == {torch.float32}
    assert {done.x.dtype for done in steps} | {done.estimate.dtype for done in steps} == {torch.float32}


def test_no_step_keeps_a_graph_and_the_caller_keeps_its_gradients():
    weight = torch.ones((), requires_grad=True)
    solver = DpmSolverSde(SCHEDULE, 3, eta=0.0, compat=False)
    for done in solver.trajectory(
        lambda x, t: weight * ONE.velocity(x, t), normal(LATENT, 0), guidance=None, noise=None
    ):
        assert not done.x.requires_grad
        assert (2 * weight).requires_grad


def test_the_start_state_and_past_steps_are_left_as_they_were():
    start = normal(LATENT, 0)
    steps, copies = [], []
    for done in DpmSolverSde(SCHEDULE, 6).trajectory(
        ONE.velocity, start, guidance=None, noise=SeededNoise([1, 2])
    ):
        steps.append(done)
        copies.append((done.x.clone(), done.estimate.clone()))
    assert start.equal(normal(LATENT, 0))
    assert all(done.x.equal(x) and done.estimate.equal(e) for done, (x, e) in zip(steps, copies, strict=True))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": 0}, "steps: expected 1 to num_timesteps = 1000, got 0"),
        ({"steps": 1001}, "steps: expected 1 to num_timesteps = 1000, got 1001"),
        ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
        ({"eta": 1.5, "compat": False}, r"eta: expected 0 \(deterministic\) to 1, got 1.5"),
        ({"eta": 0.0}, r"eta: expected 1 as upstream's sampler \(compat\) has it, got 0.0; add compat=False"),
    ],
)
def test_an_impossible_sampler_is_refused_in_words(arguments, says):
    with pytest.raises(ValueError, match=says):
        DpmSolverSde(SCHEDULE, **arguments)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (
            torch.full(LATENT, float("nan")),
            "x: expected a finite start state, got 576 NaN or infinite of 576",
        ),
        (torch.full(LATENT, float("inf")), "x: expected a finite start state"),
        (torch.zeros(LATENT, dtype=torch.int64), "x: expected a floating-point dtype, got torch.int64"),
        (torch.zeros(4), r"x: expected a batch \(B, T, C, H, W\) of one sample or more, got \(4,\)"),
        (torch.zeros(0, 3, 4, 4, 6), "of one sample or more"),
    ],
)
def test_an_impossible_start_is_refused_in_words(x, says):
    with pytest.raises(ValueError, match=says):
        DpmSolverSde(SCHEDULE, 4).sample(ONE.velocity, x, guidance=None, noise=SeededNoise([1, 2]))


def test_a_stochastic_sampler_without_noise_is_refused_in_words():
    with pytest.raises(ValueError, match=r"noise: expected SeededNoise or the like for eta = 1.0, got None"):
        DpmSolverSde(SCHEDULE, 4).sample(ONE.velocity, torch.zeros(LATENT), guidance=None, noise=None)


def test_a_prediction_that_is_not_finite_names_its_step():
    def denoise(x, timesteps):
        return x / (timesteps.reshape(-1, 1, 1, 1, 1) - 499)

    solver = DpmSolverSde(SCHEDULE, 4)
    with pytest.raises(
        ValueError, match=r"denoise: expected finite numbers, .* in step 2 of 4, timestep 499"
    ):
        solver.sample(denoise, normal(LATENT, 0), guidance=None, noise=SeededNoise([1, 2]))


def test_predictions_and_noise_of_another_shape_are_refused_in_words():
    solver, x = DpmSolverSde(SCHEDULE, 4), normal(LATENT, 0)
    with pytest.raises(
        ValueError, match=r"denoise: expected the state's shape \(2, 3, 4, 4, 6\), got \(2, 3\)"
    ):
        solver.sample(lambda x, t: x[:, :, 0, 0, 0], x, guidance=None, noise=SeededNoise([1, 2]))
    with pytest.raises(ValueError, match="noise: expected the state's shape"):
        solver.sample(ONE.velocity, x, guidance=None, noise=lambda shape: torch.zeros(2, 3))
