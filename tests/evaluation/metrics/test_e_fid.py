"""E-FID on the face mesh: what moves a coefficient and what does not, and faces that move otherwise."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.face_mesh import FaceMesh, Mesh
from data_pipeline.models.lip_shape import INNER_LOWER, OUTER_LOWER
from evaluation.metrics.e_fid import COEFFICIENTS, LEAST_SEEN, LEFT_BROW, LEFT_LIDS, EFid, expression_of
from evaluation.metrics.metric import CannotScore
from tests.data_pipeline.face_media import astronaut
from tests.evaluation.metrics.clips import seen_clip


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(468, 3), of a woman who smiles at the camera."""
    picture = astronaut()
    found = CenterFace().detect(picture)
    return FaceMesh().fit(picture, found.boxes[0], found.points[0, :2]).points.astype(np.float64)


def moved(face: np.ndarray, points: tuple[int, ...], offset: tuple[float, float, float]) -> np.ndarray:
    other = face.copy()
    other[list(points)] += offset
    return other


def held_otherwise(face: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn = Rotation.from_euler("yxz", rng.uniform(-25, 25, 3), degrees=True)
    return turn.apply(face) * rng.uniform(0.5, 2) + rng.uniform(-100, 100, 3)


def coefficient(name: str) -> int:
    return COEFFICIENTS.index(name)


def clip_of(name: str, faces: list[np.ndarray], presence: float = 1.0):
    meshes = [Mesh(face.astype(np.float32), presence) for face in faces]
    return seen_clip(name, np.zeros((len(faces), 8, 8, 3), np.uint8), meshes)


def speaking(face: np.ndarray, seed: int, opened: float, n_frames: int = 30) -> list[np.ndarray]:
    """The lower lip goes down by up to `opened` pixels while the head moves."""
    rng = np.random.default_rng(seed)
    lip = INNER_LOWER + OUTER_LOWER
    return [
        held_otherwise(moved(face, lip, (0, opened * rng.random(), 0)), seed * 1000 + k)
        for k in range(n_frames)
    ]


def test_a_coefficient_for_every_name_and_all_of_a_smiling_face_are_plausible(face):
    (found,) = expression_of(face[None])
    named = dict(zip(COEFFICIENTS, found, strict=True))
    assert 2 < named["mouth width"] < 9
    assert 0 < named["inner lip gap"] < named["outer lip gap"] < named["nose to chin"]
    for side in ("left", "right"):
        assert 0.2 < named[f"{side} eye's opening"] < 3
        assert named[f"{side} brow's inner height"] > 0.5


def test_turning_moving_and_scaling_the_head_change_nothing(face):
    """Each frame's own pose is taken off, and then the clip's."""
    still = expression_of(np.repeat(face[None], 4, axis=0))
    found = expression_of(np.array([held_otherwise(face, seed) for seed in range(4)]))
    np.testing.assert_allclose(found - found[0], 0, atol=1e-6)
    np.testing.assert_allclose(found, still, atol=1e-6)


@pytest.mark.parametrize(
    ("points", "offset", "names"),
    [
        (
            INNER_LOWER,
            (0, 9, 0),
            {"inner lip gap", "left mouth corner's height", "right mouth corner's height"},
        ),
        (LEFT_LIDS[1:], (0, 9, 0), {"left eye's opening"}),
        (LEFT_BROW[2:], (0, -9, 0), {"left brow's outer height"}),
        ((61,), (0, -9, 0), {"left mouth corner's height"}),
    ],
)
def test_what_moves_in_a_face_moves_its_coefficients_up_and_no_others(face, points, offset, names):
    before, after = expression_of(np.array([face, moved(face, points, offset)]))
    rise = after - before
    assert {COEFFICIENTS[k] for k in np.flatnonzero(rise > 0.1)} == names
    assert np.abs(rise[[coefficient(name) for name in COEFFICIENTS if name not in names]]).max() < 0.1


def test_faces_that_open_their_mouths_less_are_farther_than_others_that_do_so_as_much(face):
    states = {name: EFid() for name in ("real", "alike", "mumbling")}
    for name, opened, first in (("real", 30, 0), ("alike", 30, 50), ("mumbling", 5, 100)):
        for k in range(6):
            clip = clip_of(f"clip-{k}", speaking(face, first + k, opened))
            states[name].update(clip.name, states[name].measure(clip))
    (alike,), (mumbling,) = (states[name].compute_against(states["real"]) for name in ("alike", "mumbling"))
    assert alike.name == "e-fid-mesh"
    assert alike.n == 6
    assert alike.value < 0.1 * mumbling.value
    assert alike.high < mumbling.low


def test_frames_without_a_face_are_left_out(face):
    metric = EFid()
    faces = speaking(face, 0, 10)
    whole = clip_of("a", faces)
    unsure = [Mesh(np.zeros((468, 3), np.float32), 0.1)]
    gaps = seen_clip("a", np.zeros((32, 8, 8, 3), np.uint8), [None, *whole.meshes, *unsure])
    expected = metric.measure(whole).arrays["features"]
    np.testing.assert_array_equal(metric.measure(gaps).arrays["features"], expected)


def test_a_clip_that_hardly_shows_a_face_cannot_be_scored(face):
    clip = clip_of("a", [face] * (LEAST_SEEN - 1))
    with pytest.raises(CannotScore, match="a face in 11 of 11 frames; 12 are needed"):
        EFid().measure(clip)


def test_the_protocol_names_the_mesh_and_the_coefficients():
    protocol = EFid().protocol
    assert protocol["network"] == "mediapipe-face-mesh"
    assert protocol["coefficients"] == list(COEFFICIENTS)
    assert protocol["feature_size"] == 14
