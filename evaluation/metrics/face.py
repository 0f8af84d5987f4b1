"""Is there a face, how large is it, and which way does it look? What other figures are to be read with.

boxes, meshes of a clip -> share of frames with a face, its height in frame heights, how far it is turned
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from data_pipeline.models.head_pose import pose_of_mesh
from evaluation.metrics.interval import mean_interval
from evaluation.metrics.metric import CannotScore, Figure, Found, SeenClip


class FaceMetric:
    """`face_seen`: the mean share of frames in which a face is seen. A clip without any counts as 0."""

    names: Sequence[str] = ("face_seen",)
    protocol: Mapping[str, object] = {"face": "as seen by all metrics"}

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def setup(self) -> None:
        """It has no network."""

    def measure(self, clip: SeenClip) -> Found:
        """`face_seen`; `face_fraction`, `yaw_deg`: medians over the frames with a face, else not there.

        Raises CannotScore: there is no frame."""
        if not len(clip.frames):
            raise CannotScore(f"{clip.name}: there is no frame")
        values = {"face_seen": float(clip.seen.mean())}
        if clip.seen.any():
            heights = clip.boxes[clip.seen, 3] - clip.boxes[clip.seen, 1]
            values["face_fraction"] = float(np.median(heights)) / clip.frames.shape[1]
        turned = [abs(pose_of_mesh(mesh).yaw_deg) for mesh in clip.meshes if mesh is not None]
        if turned:
            values["yaw_deg"] = float(np.median(turned))
        return Found(values)

    def update(self, clip: str, found: Found) -> None:
        """Take a clip in, once."""
        self._seen[clip] = found.values["face_seen"]

    def merge(self, other: Self) -> None:
        """Take another state's clips in."""
        self._seen |= other._seen

    def compute(self) -> list[Figure]:
        """The mean over clips; NaN where there is none."""
        return [mean_figure("face_seen", self._seen)]


def mean_figure(name: str, values: Mapping[str, float]) -> Figure:
    """The mean of one value a clip, by the clip's name; its interval where there are two."""
    by_name = [values[clip] for clip in sorted(values)]
    if len(by_name) < 2:
        return Figure(name, by_name[0] if by_name else float("nan"), float("nan"), float("nan"), len(by_name))
    found = mean_interval(by_name)
    return Figure(name, found.value, found.low, found.high, found.n)
