"""How far two sets of features lie apart: the Fréchet distance of the Gaussians that their moments describe.

    features (N, D) -> count, sum, sum of outer products: these add up, whichever worker saw which of them
    two of these    -> means, covariances -> |m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))

Dowson & Landau, "The Fréchet distance between multivariate normal distributions", 1982; as FID: Heusel et
al., NeurIPS 2017.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.linalg import eigvalsh
from scipy.linalg.lapack import dpstrf

from evaluation.metrics.stored_state import read_state, write_state

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 4096
"""Features that are turned into float64 at a time, so that memory does not grow with their number."""


class FeatureStatistics:
    """The moments of features of `dim` numbers: 8 dim (dim + 1) bytes, however many features.

    Sums are float64, so workers, batches and order change nothing but the last digits."""

    def __init__(self, dim: int):
        self.dim = dim
        self.count = 0
        self.sum = np.zeros(dim)
        self.outer = np.zeros((dim, dim))

    def update(self, features: "np.ndarray | Tensor") -> Self:
        """Take in (N, dim) numbers, also as a network gives them: a tensor on any device.

        Raises ValueError for another shape and where one is not finite."""
        if not isinstance(features, np.ndarray):
            features = features.detach().cpu().numpy()
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features are {features.shape}, not (N, {self.dim})")
        if not np.isfinite(features).all():
            raise ValueError(f"{int((~np.isfinite(features)).sum())} numbers of the features are not finite")
        for start in range(0, len(features), ROWS):
            rows = features[start : start + ROWS].astype(np.float64)
            self.count += len(rows)
            self.sum += rows.sum(axis=0)
            self.outer += rows.T @ rows
        return self

    def merge(self, other: Self) -> Self:
        """Take in what `other` has seen. Raises ValueError where its features are of another size."""
        if other.dim != self.dim:
            raise ValueError(f"features of {other.dim} numbers do not go with those of {self.dim}")
        self.count += other.count
        self.sum += other.sum
        self.outer += other.outer
        return self

    @property
    def mean(self) -> np.ndarray:
        """(dim,)"""
        return self.sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """(dim, dim), over count - 1, as NumPy's `cov` and published figures have it."""
        return (self.outer - np.outer(self.sum, self.mean)) / (self.count - 1)

    def save(self, path: Path, protocol: str) -> None:
        """Keep it in a file; `protocol`: a hash of what the features depend on."""
        write_state(path, protocol, {"count": np.array(self.count), "sum": self.sum, "outer": self.outer})

    @classmethod
    def load(cls, path: Path, protocol: str) -> Self:
        """What `save` kept. Raises ValueError where it is of another protocol, or no such file."""
        state = read_state(path, protocol, ("count", "sum", "outer"))
        statistics = cls(len(state["sum"]))
        statistics.count = int(state["count"])
        statistics.sum, statistics.outer = state["sum"], state["outer"]
        return statistics


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """The squared Fréchet distance, as FID and FVD report it, >= 0; in float64.

    The trace of the root of C_a C_b is the sum of the roots of the eigenvalues of L' C_b L, where L L' = C_a:
    symmetric, and small where there are fewer features than dimensions, in which case `sqrtm` wavers.

    Raises ValueError where the sizes differ or a set has fewer than two features.
    """
    if a.dim != b.dim:
        raise ValueError(f"features of {a.dim} and {b.dim} numbers cannot be compared")
    if min(a.count, b.count) < 2:
        raise ValueError(f"a covariance needs two features or more, got {a.count} and {b.count}")
    few, many = sorted((a, b), key=lambda statistics: statistics.count)
    covariance, other = few.covariance, many.covariance
    root = _root(covariance)
    roots = np.sqrt(eigvalsh(root.T @ other @ root).clip(min=0)) if root.size else np.zeros(0)
    trace = np.trace(covariance) + np.trace(other) - 2 * roots.sum()
    return max(0.0, float(np.square(few.mean - many.mean).sum() + trace))


def _root(covariance: np.ndarray) -> np.ndarray:
    """(D, R) L with L L' = covariance, where R is its rank to within rounding.

    Cholesky's with pivoting (LAPACK's pstrf): for ranks of tens in thousands of dimensions it is ten times as
    fast as an eigendecomposition, and where the rank is full, too."""
    factor, pivots, rank, _ = dpstrf(covariance, lower=1)
    root = np.zeros((len(covariance), rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]
    return root
