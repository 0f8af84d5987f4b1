"""The nearest groups of a group, among a million: exact where that is affordable, else nearly so.

How far apart two groups are is the root mean square distance over all pairs of their members. It follows
from what a group keeps of them: |c_a - c_b|^2 + s_a + s_b, with the centre c and the members' mean squared
distance s to it. With the root of s as a further coordinate that is a Euclidean distance, which a library
can search.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

EXACT_PRODUCT = 2_000_000_000
"""Queries times groups up to which every distance is taken."""
ALONE_PRODUCT = 20_000_000
"""Queries times groups up to which further threads cost more than they give."""
CELLS_PER_ROOT = 4  # cells of the approximate search, in square roots of the number of groups
CELLS_SEARCHED = 8
GROUPS_PER_CELL = 40  # to learn the cells from
BLOCK = 65_536


@dataclass(slots=True)
class Groups:
    """Points, or groups of points, as average linkage knows them."""

    counts: np.ndarray
    """(G,) float64: members."""
    centres: np.ndarray
    """(G, D) float32: their mean."""
    spreads: np.ndarray
    """(G,) float64: their mean squared distance to the centre; 0 for a single point."""

    def __len__(self) -> int:
        return len(self.counts)

    def subset(self, some: np.ndarray) -> "Groups":
        """Those at places, or under a mask."""
        return Groups(self.counts[some], self.centres[some], self.spreads[some])

    def squared_gaps(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(P,) float64: squared distance between the centres of each pair."""
        gaps = np.empty(len(first))
        for start in range(0, len(first), BLOCK):
            some = slice(start, start + BLOCK)
            difference = self.centres[first[some]] - self.centres[second[some]]
            gaps[some] = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
        return gaps

    def squared_distances(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(P,) float64: mean squared distance over all pairs of members, for each pair of groups."""
        return self.squared_gaps(first, second) + self.spreads[first] + self.spreads[second]

    def points(self, some: np.ndarray) -> np.ndarray:
        """(S, D + 1) float32: what the search sees."""
        spread = np.sqrt(self.spreads[some]).astype(np.float32)
        return np.concatenate([self.centres[some], spread[:, None]], axis=1)


def concatenated(groups: Groups, others: Groups) -> Groups:
    """Both, in this order."""
    return Groups(
        np.concatenate([groups.counts, others.counts]),
        np.concatenate([groups.centres, others.centres]),
        np.concatenate([groups.spreads, others.spreads]),
    )


def nearest_groups(
    groups: Groups, asked: np.ndarray, among: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` groups of `among` nearest to each one of `asked`, itself perhaps one of them.

    Returns (A, k) float32 squared distances and (A, k) int64 groups, -1 where none was found. Always the
    same for the same input."""
    product = len(asked) * len(among)
    with threadpool_limits(1 if product <= ALONE_PRODUCT else None):
        return _searched(groups, asked, among, k, is_exact=product <= EXACT_PRODUCT)


def _searched(
    groups: Groups, asked: np.ndarray, among: np.ndarray, k: int, is_exact: bool
) -> tuple[np.ndarray, np.ndarray]:
    index = _exact(groups) if is_exact else _cells(groups, among)
    for start in range(0, len(among), BLOCK):
        index.add(groups.points(among[start : start + BLOCK]))
    squared = np.empty((len(asked), k), np.float32)
    found = np.empty((len(asked), k), np.int64)
    for start in range(0, len(asked), BLOCK):
        some = slice(start, start + BLOCK)
        queries = groups.points(asked[some])
        queries[:, -1] = 0
        squared[some], place = index.search(queries, k)
        squared[some] += groups.spreads[asked[some], None].astype(np.float32)
        found[some] = np.where(place < 0, -1, among[place])
    return squared, found


def _exact(groups: Groups) -> Any:
    import faiss

    return faiss.IndexFlatL2(groups.centres.shape[1] + 1)


def _cells(groups: Groups, among: np.ndarray) -> Any:
    """An index that looks only into the cells around a query."""
    import faiss

    width = groups.centres.shape[1] + 1
    n_cells = max(1, min(round(CELLS_PER_ROOT * len(among) ** 0.5), len(among) // GROUPS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, n_cells)
    index.cp.niter = 5
    index.cp.seed = 1
    index.nprobe = CELLS_SEARCHED
    sample = among[:: max(1, len(among) // (GROUPS_PER_CELL * n_cells))]
    index.train(groups.points(sample))
    return index
