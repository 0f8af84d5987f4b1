"""What every metric is: a worker measures clips, states add up, figures come out.

clip -> measure -> what was found in it, which is kept on disk: heavy, on any worker, in any order
found -> update -> state; merge: the clips of another state; any order and any number of states give the same
compute -> figures, each with its interval and the number of clips in it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from data_pipeline.models.face_mesh import Mesh


@dataclass(frozen=True)
class Figure:
    """One number of a benchmark."""

    name: str
    """As it is reported; a stand-in's figure never has the name of the published network's."""
    value: float
    low: float
    high: float
    """Its interval at a confidence of 95 %; both NaN where too few clips were scored for one."""
    n: int
    """Clips in it."""


@dataclass(frozen=True)
class SeenClip:
    """A decoded video with its sound and the face in it, looked for once for all metrics."""

    name: str
    """Of its item; unique in a benchmark."""
    frames: np.ndarray
    """(F, H, W, 3) uint8 RGB."""
    fps: float
    sound: np.ndarray
    """(S,) int16 mono at 16 kHz; empty where there is none."""
    boxes: np.ndarray
    """(F, 4) float32, x0 y0 x1 y1 of the face in pixels; NaN where none is seen."""
    meshes: Sequence["Mesh | None"]
    """(F,) the mesh of the face in every frame; None where none is seen."""
    reference: np.ndarray
    """(H', W', 3) uint8 RGB: the portrait that the video was made from."""
    decoys: Sequence[np.ndarray] = field(default=())
    """Other speech, as `sound`, which a clip's own must beat."""

    @cached_property
    def seen(self) -> np.ndarray:
        """(F,) bool: a face is there."""
        return np.isfinite(self.boxes).all(axis=1)


@dataclass(frozen=True)
class Found:
    """What one metric found in one clip."""

    values: Mapping[str, float] = field(default_factory=dict)
    """Columns of this clip's row in the table of clips."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the state needs besides, such as features (N, D) float32 and curves to be drawn."""


class CannotScore(ValueError):
    """This metric does not apply to this clip, such as one without a face; its words say why."""


class Metric(Protocol):
    """One file each in this folder. Making one is cheap; networks are loaded by `setup`, once a worker."""

    names: Sequence[str]
    """Of the figures that `compute` gives."""
    protocol: Mapping[str, object]
    """What its figures depend on besides the clips: sizes, strides, the sha256 of its network."""

    def setup(self) -> None:
        """Load the networks of `measure`. Raises WeightsUnavailable where they are not here."""

    def measure(self, clip: SeenClip) -> Found:
        """What is found in `clip`; changes no state. Raises CannotScore."""

    def update(self, clip: str, found: Found) -> None:
        """Take what was found in the clip of this name into the state, once."""

    def merge(self, other: Self) -> None:
        """Take the clips of another state into this one."""

    def compute(self) -> list[Figure]:
        """The figures of all clips so far, in the order of `names`; NaN where there are too few clips."""
