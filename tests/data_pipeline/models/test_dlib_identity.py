"""Identity: one person stays one, six people are six."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.dlib_identity import (
    SAME_PERSON_DISTANCE,
    DlibIdentity,
    cut_chip,
    fit_similarity,
)
from data_pipeline.models.face_mesh import FaceMesh
from tests.data_pipeline import face_media


@pytest.fixture(scope="module")
def embed_all():
    detector, mesh, identity = CenterFace(480), FaceMesh(), DlibIdentity()

    def embed(image: np.ndarray) -> np.ndarray:
        faces = detector.detect(image)
        fits = [
            mesh.fit(image, box, points[:2]) for box, points in zip(faces.boxes, faces.points, strict=True)
        ]
        return np.array([identity.embed(image, fit) for fit in fits])

    return embed


@pytest.fixture(scope="module")
def astronaut(embed_all) -> np.ndarray:
    return embed_all(face_media.astronaut())[0]


def dark(image: np.ndarray) -> np.ndarray:
    return (image * 0.35).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), 2)


def rotated(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.warpAffine(image, cv2.getRotationMatrix2D((224, 120), 25, 1), (512, 512))


def mirrored(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def half_size(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("spoil", [dark, blurred, rotated, mirrored, half_size])
def test_a_person_stays_the_same_person(embed_all, astronaut, spoil):
    (embedding,) = embed_all(spoil(face_media.astronaut()))
    assert np.linalg.norm(embedding - astronaut) < SAME_PERSON_DISTANCE


def test_seven_people_are_all_different(embed_all, astronaut):
    people = np.concatenate([embed_all(face_media.group()), astronaut[None]])
    distances = np.linalg.norm(people - people[:, None], axis=2)[np.triu_indices(7, 1)]
    assert len(distances) == 21
    assert distances.min() > SAME_PERSON_DISTANCE


def test_the_chip_has_the_eyes_and_nose_where_the_network_expects_them():
    image = face_media.astronaut()
    faces = CenterFace().detect(image)
    chip = cut_chip(image, FaceMesh().fit(image, faces.boxes[0], faces.points[0, :2]))
    assert chip.shape == (150, 150, 3)
    (again,) = CenterFace(160, 0.4).detect(chip).points
    assert np.abs(again[0] - [48, 47]).max() < 8
    assert np.abs(again[1] - [100, 47]).max() < 8


@given(
    scale=st.floats(0.1, 10),
    angle=st.floats(-3, 3),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_a_similarity_is_recovered_from_the_points_that_it_moved(scale, angle, shift):
    points = np.array([[0.0, 0], [3, 1], [-2, 4], [5, 5], [1, -3]])
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = fit_similarity(points, points @ matrix.T + shift)
    np.testing.assert_allclose(found, np.column_stack([matrix, shift]), atol=1e-6)
