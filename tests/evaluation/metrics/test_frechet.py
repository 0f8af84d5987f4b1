"""The Fréchet distance against recorded ones and known Gaussians; its state, whoever saw which features."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.frechet import ROWS, FeatureStatistics, frechet_distance
from tests.filled import golden, golden_facts


def statistics_of(*batches: np.ndarray) -> FeatureStatistics:
    statistics = FeatureStatistics(batches[0].shape[1])
    for batch in batches:
        statistics.update(batch)
    return statistics


def with_moments(mean: np.ndarray, deviations: np.ndarray, seed: int) -> np.ndarray:
    """50 features of exactly this mean, uncorrelated, of exactly these deviations."""
    drawn = np.random.default_rng(seed).normal(size=(50, len(mean)))
    orthonormal, _ = np.linalg.qr(drawn - drawn.mean(axis=0))
    return mean + orthonormal * deviations * np.sqrt(50 - 1)


# --- the distance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "tolerance"), [("full_rank", 1e-8), ("equal_size", 1e-8), ("singular", 1e-6)]
)
def test_the_distance_is_the_recorded_one(case, tolerance):
    stored, facts = golden("fid/frechet"), golden_facts("fid/frechet")[case]
    a, b = (statistics_of(stored[f"{case}.{side}"]) for side in "ab")
    assert frechet_distance(a, b) == pytest.approx(facts["frechet_unbiased_cov"], rel=tolerance)
    assert frechet_distance(b, a) == pytest.approx(facts["frechet_unbiased_cov"], rel=tolerance)
    assert facts["frechet_population_cov"] != pytest.approx(facts["frechet_unbiased_cov"], rel=1e-3)


@pytest.mark.parametrize(
    ("case", "names", "tolerance"),
    [
        ("frechet.stored_set", ("set.a", "set.b"), 1e-6),
        ("frechet.clips_logits", ("a.logits_eps1e-3", "b.logits_eps1e-3"), 1e-5),
    ],
)
def test_the_distance_of_video_features_is_the_recorded_one(case, names, tolerance):
    """The second has five features of 400 numbers."""
    stored, facts = golden("fvd/i3d"), golden_facts("fvd/i3d")[case]
    found = frechet_distance(*(statistics_of(stored[name]) for name in names))
    assert found == pytest.approx(facts["scipy_sqrtm_unbiased_cov"], rel=tolerance)


def test_the_distance_of_known_gaussians_is_the_formula():
    means = np.array([0.0, 1.0, -2.0]), np.array([3.0, 1.0, 2.0])
    deviations = np.array([1.0, 2.0, 0.5]), np.array([2.0, 2.0, 0.1])
    a, b = (
        statistics_of(with_moments(mean, deviation, seed))
        for seed, (mean, deviation) in enumerate(zip(means, deviations, strict=True))
    )
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_turning_both_sets_alike_changes_nothing_and_one_of_them_does():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 5)) * [1, 2, 3, 4, 5], rng.normal(size=(70, 5)) * [5, 4, 3, 2, 1]
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    plain = frechet_distance(statistics_of(a), statistics_of(b))
    assert frechet_distance(statistics_of(a @ turn), statistics_of(b @ turn)) == pytest.approx(plain)
    assert frechet_distance(statistics_of(a @ turn), statistics_of(b)) != pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("n", [3, 200])
def test_a_set_is_at_no_distance_from_itself(n):
    features = statistics_of(np.random.default_rng(1).normal(size=(n, 20)))
    assert 0 <= frechet_distance(features, features) < 1e-6


def test_features_that_are_all_the_same_leave_the_distance_of_their_means():
    a, b = statistics_of(np.zeros((3, 4))), statistics_of(np.ones((5, 4)))
    assert frechet_distance(a, b) == pytest.approx(4)


def test_what_cannot_be_compared_is_refused():
    two = statistics_of(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="4 and 5 numbers"):
        frechet_distance(two, FeatureStatistics(5))
    with pytest.raises(ValueError, match="two features or more, got 2 and 1"):
        frechet_distance(two, statistics_of(np.zeros((1, 4))))


# --- the state ----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1000),
    n=st.integers(2, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    n_workers=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_any_order_batches_and_workers_give_the_same_moments(seed, n, cuts, n_workers):
    rng = np.random.default_rng(seed)
    features = rng.normal(3, 2, size=(n, 6)).astype(np.float32)
    batches = np.split(rng.permutation(features), sorted(min(cut, n) for cut in cuts))
    workers = [FeatureStatistics(6) for _ in range(n_workers)]
    for batch in batches:
        workers[int(rng.integers(n_workers))].update(batch)
    total = FeatureStatistics(6)
    for worker in workers:
        total.merge(worker)
    assert total.count == n
    np.testing.assert_allclose(total.mean, features.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(total.covariance, np.cov(features.astype(float).T), rtol=1e-9, atol=1e-11)


def test_many_features_at_once_are_taken_in_parts():
    features = np.random.default_rng(2).normal(size=(2 * ROWS + 5, 3)).astype(np.float32)
    found = statistics_of(features)
    assert found.count == len(features)
    np.testing.assert_allclose(found.covariance, np.cov(features.astype(float).T), rtol=1e-9)


def test_what_a_network_gives_is_taken_as_it_is():
    given = torch.rand(5, 3, requires_grad=True)
    ours, theirs = FeatureStatistics(3).update(given), FeatureStatistics(3).update(given.detach().numpy())
    assert np.array_equal(ours.outer, theirs.outer)


def test_float32_features_are_summed_in_float64():
    """Of a large mean and a small spread, whose squares float32 cannot tell apart."""
    features = (1000 + np.random.default_rng(3).normal(size=(5000, 2))).astype(np.float32)
    found = statistics_of(features).covariance
    np.testing.assert_allclose(found, np.cov(features.astype(float).T), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "words"),
    [(np.zeros((2, 3)), r"\(2, 3\), not \(N, 4\)"), (np.array([[0, 1, np.nan, np.inf]]), "2 numbers")],
)
def test_features_that_do_not_fit_or_are_no_numbers_are_refused(features, words):
    statistics = FeatureStatistics(4)
    with pytest.raises(ValueError, match=words):
        statistics.update(features)
    assert statistics.count == 0


def test_states_of_other_features_do_not_merge():
    with pytest.raises(ValueError, match="3 numbers do not go with those of 4"):
        FeatureStatistics(4).merge(FeatureStatistics(3))


# --- the file -----------------------------------------------------------------------------------------


def test_a_saved_state_is_the_state(tmp_path):
    statistics = statistics_of(np.random.default_rng(4).normal(size=(9, 5)))
    statistics.save(tmp_path / "made" / "real.npz", "a" * 64)
    loaded = FeatureStatistics.load(tmp_path / "made" / "real.npz", "a" * 64)
    assert (loaded.dim, loaded.count) == (5, 9)
    np.testing.assert_array_equal(loaded.sum, statistics.sum)
    np.testing.assert_array_equal(loaded.outer, statistics.outer)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["real.npz"]


def test_a_state_of_another_protocol_is_refused(tmp_path):
    FeatureStatistics(2).save(tmp_path / "real.npz", "a" * 64)
    with pytest.raises(ValueError, match=f"was measured by protocol {'a' * 64}, not {'b' * 64}"):
        FeatureStatistics.load(tmp_path / "real.npz", "b" * 64)


def test_a_damaged_file_is_refused_in_words_and_a_missing_one_is_missing(tmp_path):
    path = tmp_path / "real.npz"
    with pytest.raises(FileNotFoundError):
        FeatureStatistics.load(path, "a")
    FeatureStatistics(2).save(path, "a")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="holds no statistics of this form"):
        FeatureStatistics.load(path, "a")
    np.savez(path, protocol=np.array("a"), other=np.zeros(2))
    with pytest.raises(ValueError, match="holds no statistics of this form"):
        FeatureStatistics.load(path, "a")
