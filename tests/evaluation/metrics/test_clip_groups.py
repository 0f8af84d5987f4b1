"""Ten groups of clips: their distance is that of all features, and its interval holds what it should."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from evaluation.metrics.clip_groups import GROUPS, ClipGroups, distance_between, group_of, half_width
from evaluation.metrics.frechet import FeatureStatistics, frechet_distance


def clips_of(n_clips: int, mean: float, seed: int, n_frames: int = 25, dim: int = 1) -> dict[str, np.ndarray]:
    """Clips whose features vary about their own mean by 1, and whose means vary by a third."""
    rng = np.random.default_rng(seed)
    return {
        f"clip-{index}": rng.normal(mean + rng.normal(0, 1 / 3, dim), 1, size=(n_frames, dim))
        for index in range(n_clips)
    }


def groups_of(clips: dict[str, np.ndarray]) -> ClipGroups:
    groups = ClipGroups(next(iter(clips.values())).shape[1])
    for name, features in clips.items():
        groups.update(name, features)
    return groups


def test_a_clips_group_follows_from_its_name_alone():
    assert [group_of(name) for name in ("clip-0", "clip-1", "clip-2")] == [9, 4, 6]
    found = np.bincount([group_of(f"clip-{index}") for index in range(2000)], minlength=GROUPS)
    assert len(found) == GROUPS
    assert found.min() > 150


def test_the_total_is_that_of_all_clips_and_without_a_group_of_the_others():
    clips = clips_of(30, 0.5, seed=0, dim=3)
    groups = groups_of(clips)
    everything = FeatureStatistics(3).update(np.concatenate(list(clips.values())))
    np.testing.assert_allclose(groups.total().covariance, everything.covariance, rtol=1e-10)
    others = [features for name, features in clips.items() if group_of(name) != 4]
    assert len(others) < 30
    np.testing.assert_allclose(groups.total(without=4).mean, np.concatenate(others).mean(axis=0), rtol=1e-10)


def test_clips_in_any_order_on_any_worker_give_the_same_figure_and_interval():
    clips, real = clips_of(40, 0.5, seed=1, dim=4), groups_of(clips_of(40, 0, seed=2, dim=4))
    names = np.random.default_rng(3).permutation(list(clips))
    first = groups_of({name: clips[name] for name in names[:13]})
    second = groups_of({name: clips[name] for name in names[13:]})
    second.merge(first)
    found, expected = distance_between(second, real), distance_between(groups_of(clips), real)
    assert found.n == expected.n == 40
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-8)


def test_merging_leaves_the_other_state_alone():
    first, second = groups_of(clips_of(20, 0, seed=4)), groups_of(clips_of(20, 0, seed=5))
    total = ClipGroups(1)
    total.merge(first)
    before = first.total().count
    total.merge(second)
    assert first.total().count == before


# --- the interval -------------------------------------------------------------------------------------


def test_of_a_mean_with_groups_of_one_size_it_is_the_students_interval():
    means = np.array([1.0, 2.0, 4.0, 3.0])
    without = [np.delete(means, k).mean() for k in range(4)]
    expected = stats.sem(means) * stats.t.ppf(0.975, 3)
    assert half_width(means.mean(), without, [5] * 4) == pytest.approx(expected)


def test_of_a_mean_with_groups_of_other_sizes_large_groups_count_for_more():
    """The formula of Busing et al., written out: a group's pseudovalue is its mean."""
    means, sizes = np.array([1.0, 2.0, 4.0]), np.array([2, 6, 4])
    value = (means * sizes).sum() / 12
    without = [(12 * value - size * mean) / (12 - size) for size, mean in zip(sizes, means, strict=True)]
    variance = (np.square(means - value) / (12 / sizes - 1)).mean()
    expected = np.sqrt(variance) * stats.t.ppf(0.975, 2)
    assert half_width(value, without, sizes) == pytest.approx(expected)


def test_nineteen_of_twenty_intervals_hold_the_true_distance():
    """Of two Gaussians of one deviation, 0.5 apart, so at a distance of 0.25."""
    held = 0
    for seed in range(200):
        found = distance_between(
            groups_of(clips_of(40, 0.5, seed=2 * seed)), groups_of(clips_of(40, 0, seed=2 * seed + 1))
        )
        held += found.low <= 0.25 <= found.high
    assert 180 <= held <= 198


def test_what_moves_real_and_generated_clips_alike_is_not_in_the_interval():
    """Clips of very different people, each of which is generated as it is, but for a shift."""
    rng = np.random.default_rng(6)
    real = {f"clip-{k}": rng.normal(20 * rng.normal(), 1, size=(25, 1)) for k in range(40)}
    generated = {name: features + 3 for name, features in real.items()}
    found = distance_between(groups_of(generated), groups_of(real))
    assert found.value == pytest.approx(9)
    assert found.high - found.low < 1e-6


def test_fewer_than_two_features_are_no_figure_and_one_group_no_interval():
    real = groups_of(clips_of(20, 0, seed=7))
    none = distance_between(ClipGroups(1), real)
    assert (none.n, np.isnan(none.value), np.isnan(none.low)) == (0, True, True)
    one = distance_between(groups_of(clips_of(1, 0, seed=8)), real)
    assert (one.n, np.isfinite(one.value), np.isnan(one.low), np.isnan(one.high)) == (1, True, True, True)


# --- the file, and its size ---------------------------------------------------------------------------


def test_a_saved_state_gives_the_same_interval(tmp_path):
    generated, real = groups_of(clips_of(40, 0.5, seed=9)), groups_of(clips_of(40, 0, seed=10))
    real.save(tmp_path / "real.npz", "protocol")
    loaded = ClipGroups.load(tmp_path / "real.npz", "protocol")
    assert loaded.n_clips == 40
    assert distance_between(generated, loaded) == distance_between(generated, real)


def test_an_empty_state_is_saved_too(tmp_path):
    ClipGroups(7).save(tmp_path / "real.npz", "protocol")
    loaded = ClipGroups.load(tmp_path / "real.npz", "protocol")
    assert (loaded.dim, loaded.n_clips) == (7, 0)


@pytest.mark.slow
def test_a_hundred_thousand_features_of_inception_fit_into_half_a_gigabyte():
    """Ten states of 34 MB, and what one batch needs; the features alone would be 0.8 GB."""
    rng = np.random.default_rng(0)
    groups, n_clips = ClipGroups(2048), 200
    batch = rng.normal(size=(500, 2048)).astype(np.float32)
    tracemalloc.start()
    try:
        for index in range(n_clips):
            groups.update(f"clip-{index}", batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert groups.total().count == 100_000
    assert peak < 500e6
    other = FeatureStatistics(2048).update(batch + 1)
    assert frechet_distance(groups.total(), other) == pytest.approx(2048, rel=1e-2)
