"""BRISQUE: how far a picture's statistics are from those of clean photographs, and what people think of that.

    luma (H, W), at its size and at half of it -> less the local mean, over the local deviation: MSCN
        MSCN, and the products of its neighbours in four directions -> asymmetric generalised Gaussians
    2 x 18 parameters -> in [-1, 1] each -> support vector regression -> score, 0 (good) ... 100 (bad)

Mittal, Moorthy & Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP 2012; the
regression is the authors', trained on people's opinions of the LIVE database. Details are those of their
C++ release, with which it was trained: zeros beyond the edges, an asymmetric fit of the MSCN too, a half
size by cubic interpolation.
"""

import pickle
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from data_pipeline import weights

WEIGHTS = "brisque-live"
MODEL_FILE, RANGES_FILE = "svm.txt", "normalize.pickle"

WINDOW_PX, WINDOW_SIGMA = 7, 7 / 6
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows down, columns right
SHAPES = np.arange(0.2, 10, 0.001)


class Featureless(ValueError):
    """A picture of one colour, in which there is nothing to judge."""


class Brisque:
    """The regression, loaded. Raises WeightsUnavailable where its files are not here."""

    def __init__(self) -> None:
        folder = weights.fetch(WEIGHTS)
        self._gamma, self._rho, self._coefficients, self._support = _read_model(folder / MODEL_FILE)
        self._low, self._high = read_ranges(folder / RANGES_FILE)

    def score(self, luma: np.ndarray) -> float:
        """(H, W) uint8 -> 0 (as good as a photograph) ... 100 (bad), not clipped there.

        Raises Featureless for a picture of one colour."""
        scaled = 2 * (features(luma) - self._low) / (self._high - self._low) - 1
        distances = ((self._support - scaled) ** 2).sum(axis=1)
        return float(self._coefficients @ np.exp(-self._gamma * distances) - self._rho)


def features(luma: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (36,): of the picture, then of its half. Raises Featureless."""
    import cv2

    whole = luma.astype(np.float64)
    half = cv2.resize(whole, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.concatenate([_of_one_size(whole), _of_one_size(half)])


def _of_one_size(picture: np.ndarray) -> np.ndarray:
    """(18,): shape and variance of the MSCN; shape, mean, left and right variance of four products."""
    mscn = _mscn(picture)
    shape, _, left, right = asymmetric_gaussian(mscn)
    found = [shape, (left + right) / 2]
    for down, right_by in NEIGHBOURS:
        shifted = np.roll(mscn, (-down, -right_by), axis=(0, 1))
        inside = np.s_[: len(mscn) - down, max(-right_by, 0) : mscn.shape[1] - max(right_by, 0)]
        found += asymmetric_gaussian((mscn * shifted)[inside])
    return np.array(found)


def _mscn(picture: np.ndarray) -> np.ndarray:
    """Mean-subtracted, contrast-normalised: equations 1 to 3."""
    mean = _blurred(picture)
    deviation = np.sqrt(np.abs(_blurred(picture**2) - mean**2))
    return (picture - mean) / (deviation + 1)


def _blurred(picture: np.ndarray) -> np.ndarray:
    import cv2

    window = (WINDOW_PX, WINDOW_PX)
    return cv2.GaussianBlur(picture, window, WINDOW_SIGMA, borderType=cv2.BORDER_CONSTANT)


def asymmetric_gaussian(x: np.ndarray) -> tuple[float, float, float, float]:
    """Shape, mean, left and right variance of the generalised Gaussian with two sides that fits `x`.

    By moments: Lasmar, Stitou & Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis",
    ICIP 2009. Raises Featureless where a side is empty."""
    from scipy.special import gamma

    if not (x.min() < 0 < x.max()):
        raise Featureless("the picture is of one colour: there is nothing in it whose quality could be told")
    left, right = np.mean(x[x < 0] ** 2), np.mean(x[x > 0] ** 2)
    sides = np.sqrt(left / right)
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    ratio *= (sides**3 + 1) * (sides + 1) / (sides**2 + 1) ** 2
    shape = float(np.interp(ratio, _ratios(), SHAPES))
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    mean = (np.sqrt(right) - np.sqrt(left)) * scale * gamma(2 / shape) / gamma(1 / shape)
    return shape, float(mean), float(left), float(right)


@cache
def _ratios() -> np.ndarray:
    """Of the squared mean magnitude to the mean square, for each of SHAPES; it rises with the shape."""
    from scipy.special import gamma

    return gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def _read_model(path: Path) -> tuple[float, float, np.ndarray, np.ndarray]:
    """gamma, rho, (N,) coefficients and (N, 36) support vectors of LIBSVM's text of a regression by RBF."""
    head, _, body = path.read_text().partition("SV\n")
    settings = dict(line.split(maxsplit=1) for line in head.splitlines())
    rows = [line.split() for line in body.splitlines()]
    support = np.zeros((len(rows), 36))
    for row, (_, *entries) in enumerate(rows):
        for entry in entries:
            column, value = entry.split(":")
            support[row, int(column) - 1] = float(value)  # what is not named is 0
    coefficients = np.array([float(row[0]) for row in rows])
    return float(settings["gamma"]), float(settings["rho"]), coefficients, support


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, lists and dictionaries, and runs nothing that a file names."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"expected plain numbers, found {module}.{name}")


def read_ranges(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(36,) least and greatest of every feature in training."""
    ranges = _PlainUnpickler(BytesIO(path.read_bytes())).load()
    return np.array(ranges["min_"], float), np.array(ranges["max_"], float)
