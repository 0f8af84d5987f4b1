"""Is there a face, how large is it, and which way does it look? What other figures are to be read with.

boxes, meshes of a clip -> share of frames with a face, its height in frame heights, how far it is turned
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline.models.head_pose import pose_of_mesh
from evaluation.metrics.mean_of_clips import MeanOfClips
from evaluation.metrics.metric import CannotScore, Found, SeenClip


class FaceMetric(MeanOfClips):
    """`face_seen`: the mean share of frames in which a face is seen. A clip without any counts as 0."""

    protocol: Mapping[str, object] = {"face": "as seen by all metrics"}

    def __init__(self) -> None:
        super().__init__(["face_seen"])

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
