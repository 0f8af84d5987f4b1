"""Average linkage of a million points: groups are joined, nearest first, while they are near enough.

    groups -> pairs of near ones -> the pairs that are mutually nearest are joined -> pairs measured anew
    -> ... -> where a list of neighbours is used up, neighbours of what there is now -> ...

Two groups' distance takes in all pairs of their members (near_groups.py). So a few members between two
groups do not chain them together, as they would if the nearest pair counted.

Joining pairs that are mutually nearest, many at a time, gives what joining the nearest of all, one after
the other, gives: average linkage never brings a union nearer to a third group than its parts were
(Murtagh, "A survey of recent advances in hierarchical clustering algorithms", 1983). For the same reason
a group with nothing near it is done, and a list of neighbours holds for all distances up to its last.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.near_groups import BLOCK, Groups, nearest_groups

NEIGHBOURS = 16
ROUNDING = 1e-4  # of squared distances in single precision, relative


@dataclass(slots=True)
class _Pairs:
    """Groups a < b that may be joined, and their squared distance; each pair once."""

    a: np.ndarray
    b: np.ndarray
    squared: np.ndarray


def agglomerate(groups: Groups, fresh: np.ndarray, apart: np.ndarray, distance: float) -> np.ndarray:
    """(G,) int64: for every group the first one, by index, of those that it is joined with.

    Groups that are not `fresh` (G,) bool are settled: they are joined with one another only through a
    fresh one. No two of `apart` (G,) bool are joined, and nothing further apart than `distance`. `groups`
    is used up.
    """
    linkage = _Linkage(groups, apart.copy(), distance**2)
    unsure = np.flatnonzero(fresh)
    reachable = np.arange(len(groups))
    neighbours = NEIGHBOURS
    while len(unsure):
        linkage.look_around(unsure, reachable, neighbours)
        if not linkage.join_nearest():
            neighbours *= 2
        alive = linkage.parent == np.arange(len(groups))
        unsure = np.flatnonzero(alive & (linkage.seen_to <= linkage.limit))
        near = ~fresh
        near[np.concatenate([linkage.pairs.a, linkage.pairs.b, unsure])] = True
        reachable = np.flatnonzero(alive & near)
    return linkage.roots()


class _Linkage:
    """All groups while they are being joined; a group that was joined to another stays, unused."""

    def __init__(self, groups: Groups, apart: np.ndarray, limit: float) -> None:
        self.groups = groups
        self.apart = apart
        self.limit = limit
        self.parent = np.arange(len(groups))
        self.seen_to = np.full(len(groups), np.inf)  # nearer neighbours than this are all among the pairs
        self.pairs = self._measured(np.empty(0, np.int64), np.empty(0, np.int64))

    def look_around(self, asked: np.ndarray, among: np.ndarray, neighbours: int) -> None:
        """Add the pairs of the groups `asked` with their nearest in `among`."""
        free = ~self.apart[asked]
        for some, others in (
            (asked[free], among),
            (asked[~free], among[~self.apart[among]]),
        ):
            if len(some) and len(others):
                self._look(some, others, neighbours)
            else:
                self.seen_to[some] = np.inf

    def join_nearest(self) -> int:
        """Join mutually nearest pairs until no pair is surely one; returns how many were joined."""
        joined = 0
        while True:
            first, second = self._mutually_nearest()
            if len(first) == 0:
                return joined
            self._join(first, second)
            joined += len(first)
            name = np.arange(len(self.parent))
            name[second] = first
            self._rename(name)

    def roots(self) -> np.ndarray:
        """(G,) int64: the group that each one has become part of."""
        parent = self.parent
        while (parent[parent] != parent).any():
            parent = parent[parent]
        return parent

    def _look(self, asked: np.ndarray, among: np.ndarray, neighbours: int) -> None:
        k = min(neighbours + 1, len(among))  # one of them is the group itself
        squared, other = nearest_groups(self.groups, asked, among, k)
        itself = other == asked[:, None]
        furthest = np.where(itself, 0, squared).max(axis=1) * (1 + ROUNDING)
        complete = (furthest > self.limit) | (k == len(among))
        self.seen_to[asked] = np.where(complete, np.inf, furthest)
        near = (squared <= self.limit * (1 + ROUNDING)) & ~itself & (other >= 0)
        asker = np.broadcast_to(asked[:, None], other.shape)
        self.pairs = self._measured(
            np.concatenate([self.pairs.a, asker[near]]), np.concatenate([self.pairs.b, other[near]])
        )

    def _measured(self, a: np.ndarray, b: np.ndarray) -> _Pairs:
        """Each pair once, without those that are too far apart or never joined."""
        low, high = np.minimum(a, b), np.maximum(a, b)
        use = (low != high) & ~(self.apart[low] & self.apart[high])
        low, high = np.divmod(np.unique(low[use] * len(self.parent) + high[use]), len(self.parent))
        squared = self.groups.squared_distances(low, high)
        near = squared <= self.limit
        return _Pairs(low[near], high[near], squared[near])

    def _mutually_nearest(self) -> tuple[np.ndarray, np.ndarray]:
        a, b, squared = self.pairs.a, self.pairs.b, self.pairs.squared
        nearest = np.full(len(self.parent), np.inf)
        np.minimum.at(nearest, a, squared)
        np.minimum.at(nearest, b, squared)
        sure = squared <= np.minimum(self.seen_to[a], self.seen_to[b])
        mutual = np.flatnonzero(sure & (squared == nearest[a]) & (squared == nearest[b]))
        a, b, squared = a[mutual], b[mutual], squared[mutual]
        order = np.lexsort((b, a, squared))
        return _first_of_ties(a[order], b[order])

    def _join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Each of `first` becomes its union with its partner in `second`."""
        groups = self.groups
        n, m = groups.counts[first], groups.counts[second]
        within = (n * groups.spreads[first] + m * groups.spreads[second]) / (n + m)
        groups.spreads[first] = within + n * m / (n + m) ** 2 * groups.squared_gaps(first, second)
        share = (m / (n + m)).astype(np.float32)[:, None]
        for i in range(0, len(first), BLOCK):
            one, other, part = first[i : i + BLOCK], second[i : i + BLOCK], share[i : i + BLOCK]
            groups.centres[one] = (1 - part) * groups.centres[one] + part * groups.centres[other]
        groups.counts[first] = n + m
        self.apart[first] |= self.apart[second]
        self.parent[second] = first
        self.seen_to[first] = np.minimum(self.seen_to[first], self.seen_to[second])
        self.seen_to[second] = np.inf

    def _rename(self, name: np.ndarray) -> None:
        """Measure anew the pairs of groups that were joined: `name` says what a group is now."""
        pairs = self.pairs
        changed = name != np.arange(len(name))
        changed[name[changed]] = True
        touched = changed[pairs.a] | changed[pairs.b]
        anew = self._measured(name[pairs.a[touched]], name[pairs.b[touched]])
        self.pairs = _Pairs(
            np.concatenate([pairs.a[~touched], anew.a]),
            np.concatenate([pairs.b[~touched], anew.b]),
            np.concatenate([pairs.squared[~touched], anew.squared]),
        )


def _first_of_ties(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs in their order those that are the first one for both of their groups."""
    both = np.stack([a, b], axis=1).ravel()
    _, first, which = np.unique(both, return_index=True, return_inverse=True)
    is_first = (first[which] // 2).reshape(-1, 2) == np.arange(len(a))[:, None]
    use = is_first.all(axis=1)
    return a[use], b[use]
