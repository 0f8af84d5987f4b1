"""E-FID: does the face move as real ones do? Expressions of generated clips against those of real ones.

    meshes (F, 468, 3) -> one head, turned and scaled by what does not move -> (F, 14) coefficients
                       -> Fréchet distance                                               e-fid-mesh

E-FID compares coefficients of an expression model, and came with those of a 3D morphable one (Tian et al.,
"EMO", ECCV 2024). Here they are distances on MediaPipe's face mesh, in tenths of that between the eyes' outer
corners, so the figure bears its backend's name and is comparable with no other. How far a face's features lie
apart at rest is in it too: generated and real clips should be of the same people.
"""

import numpy as np

from data_pipeline.models.face_mesh import (
    CHIN,
    LEFT_EYE_INNER,
    LEFT_EYE_OUTER,
    LEFT_MOUTH,
    NOSE_BASE,
    RIGHT_EYE_INNER,
    RIGHT_EYE_OUTER,
    RIGHT_MOUTH,
    WEIGHTS,
)
from data_pipeline.models.lip_shape import (
    INNER_LOWER,
    INNER_UPPER,
    MIN_PRESENCE,
    OUTER_LOWER,
    OUTER_UPPER,
    on_one_head,
)
from evaluation.metrics.feature_network import protocol_of
from evaluation.metrics.frechet_metric import FEATURES, FrechetMetric
from evaluation.metrics.metric import CannotScore, Found, SeenClip

# Points of the mesh; left and right as the picture has it, brows from the nose outwards.
LEFT_LIDS, RIGHT_LIDS = (159, 145), (386, 374)
LEFT_BROW, RIGHT_BROW = (107, 105, 70), (336, 334, 300)

LEAST_SEEN = 12
"""Frames with a face; fewer are no sample of how it moves."""
TENTHS = 10.0
COEFFICIENTS = (
    "inner lip gap",
    "outer lip gap",
    "mouth width",
    "nose to chin",
    "nose to upper lip",
    "left mouth corner's height",
    "right mouth corner's height",
    "left eye's opening",
    "right eye's opening",
    *(f"{side} brow's {part} height" for side in ("left", "right") for part in ("inner", "outer")),
    "distance between the brows",
)


class EFid(FrechetMetric):
    """Of the frames that show a face."""

    def __init__(self) -> None:
        (mesh,) = WEIGHTS
        protocol = {"coefficients": list(COEFFICIENTS), "unit": "a tenth of the outer eye distance"}
        super().__init__("e-fid-mesh", len(COEFFICIENTS), {**protocol_of(mesh), **protocol})

    def setup(self) -> None:
        """Nothing: who decoded the clip fitted the mesh."""

    def measure(self, clip: SeenClip) -> Found:
        """Raises CannotScore where fewer than 12 frames show a face."""
        meshes = [mesh.points for mesh in clip.meshes if mesh is not None and mesh.presence >= MIN_PRESENCE]
        if len(meshes) < LEAST_SEEN:
            raise CannotScore(
                f"a face in {len(meshes)} of {len(clip.meshes)} frames; {LEAST_SEEN} are needed"
            )
        return Found(arrays={FEATURES: expression_of(np.array(meshes)).astype(np.float32)})


def expression_of(meshes: np.ndarray) -> np.ndarray:
    """(F, 468, 3) meshes of one face -> (F, 14) COEFFICIENTS, however large the head is and however held."""
    head = TENTHS * on_one_head(meshes.astype(np.float64))  # right, down, back
    across, down = head[..., 0], head[..., 1]

    def height(points: tuple[int, ...]) -> np.ndarray:
        return down[:, points].mean(axis=1)

    mouth = height(INNER_UPPER + INNER_LOWER)
    eyes = [height((LEFT_EYE_OUTER, LEFT_EYE_INNER)), height((RIGHT_EYE_OUTER, RIGHT_EYE_INNER))]
    columns = [
        height(INNER_LOWER) - height(INNER_UPPER),
        height(OUTER_LOWER) - height(OUTER_UPPER),
        across[:, RIGHT_MOUTH] - across[:, LEFT_MOUTH],
        down[:, CHIN] - down[:, NOSE_BASE],
        height(OUTER_UPPER) - down[:, NOSE_BASE],
        mouth - down[:, LEFT_MOUTH],
        mouth - down[:, RIGHT_MOUTH],
        *(down[:, lower] - down[:, upper] for upper, lower in (LEFT_LIDS, RIGHT_LIDS)),
        *(
            eye - height(part)
            for eye, brow in zip(eyes, (LEFT_BROW, RIGHT_BROW), strict=True)
            for part in (brow[:2], brow[2:])
        ),
        across[:, RIGHT_BROW[0]] - across[:, LEFT_BROW[0]],
    ]
    return np.column_stack(columns)
