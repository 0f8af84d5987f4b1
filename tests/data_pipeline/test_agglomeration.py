"""Average linkage against SciPy's own, which takes every distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from data_pipeline import agglomeration, near_groups
from data_pipeline.agglomeration import agglomerate
from data_pipeline.near_groups import Groups

NO = np.zeros(0, bool)


def points(vectors: np.ndarray) -> Groups:
    return Groups(np.ones(len(vectors)), vectors.astype(np.float32), np.zeros(len(vectors)))


def joined(vectors: np.ndarray, distance: float, apart: np.ndarray = NO) -> np.ndarray:
    count = len(vectors)
    return agglomerate(
        points(vectors), np.ones(count, bool), apart if len(apart) else np.zeros(count, bool), distance
    )


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one, other]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


def clouds(seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    middles = random.normal(size=(random.integers(1, 30), 6))
    return middles[random.integers(0, len(middles), count)] + random.normal(size=(count, 6)) * 0.4


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    count=st.integers(2, 150),
    distance=st.floats(0.2, 4),
    neighbours=st.integers(1, 16),
)
def test_it_joins_what_average_linkage_of_squared_distances_joins(seed, count, distance, neighbours):
    vectors = clouds(seed, count).astype(np.float32)
    expected = fcluster(linkage(pdist(vectors, "sqeuclidean"), "average"), distance**2, "distance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agglomeration, "NEIGHBOURS", neighbours)
        assert same_partition(joined(vectors, distance), expected)


def test_the_search_by_cells_finds_the_same_groups(monkeypatch):
    vectors = clouds(3, 800)
    exact = joined(vectors, 1.2)
    monkeypatch.setattr(near_groups, "EXACT_PRODUCT", 0)
    assert same_partition(joined(vectors, 1.2), exact)


def test_a_row_of_borderline_points_is_not_chained_into_one_group():
    row = np.stack([np.arange(40) * 0.3, np.zeros(40)], axis=1)
    groups = joined(row, 0.45)
    spans = [np.ptp(row[groups == group, 0]) for group in np.unique(groups)]
    assert len(spans) > 10
    assert max(spans) < 1


def test_equal_points_are_one_group_however_many_there_are():
    assert (joined(np.ones((300, 4)), 0.1) == 0).all()


def test_what_is_kept_apart_is_never_joined_though_it_is_near():
    groups = joined(np.zeros((4, 3)), 1.0, apart=np.array([True, True, False, False]))
    assert groups[0] != groups[1]
    assert len(np.unique(groups)) == 2


def test_settled_groups_meet_only_through_a_fresh_one():
    vectors = np.array([[0.0, 0.0], [0.4, 0.0], [0.2, 0.0]])
    settled = np.array([False, False])
    nobody = np.zeros(3, bool)
    assert agglomerate(points(vectors[:2]), settled, nobody[:2], 0.45).tolist() == [0, 1]
    fresh = np.array([False, False, True])
    assert agglomerate(points(vectors), fresh, nobody, 0.45).tolist() == [0, 0, 0]
