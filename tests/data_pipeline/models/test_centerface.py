"""CenterFace: which faces it finds, and where."""

import numpy as np
import pytest

from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.detections import iou
from tests.data_pipeline import face_media


@pytest.fixture(scope="module")
def detector() -> CenterFace:
    return CenterFace()


def test_one_face_is_found_with_its_points_inside_its_box(detector):
    faces = detector.detect(face_media.astronaut())
    assert len(faces) == 1
    assert iou(faces.boxes[0], np.array([180, 62, 270, 175])) > 0.7
    assert (faces.points[0] > faces.boxes[0, :2]).all()
    assert (faces.points[0] < faces.boxes[0, 2:]).all()


def test_points_are_named_as_the_picture_has_them(detector):
    left_eye, right_eye, nose, left_mouth, right_mouth = detector.detect(face_media.astronaut()).points[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_six_people_are_six_faces_surest_first(detector):
    faces = detector.detect(face_media.group())
    assert len(faces) == 6
    assert list(faces.scores) == sorted(faces.scores, reverse=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_has_no_face(detector, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert len(detector.detect(noise)) == 0


def test_a_picture_without_a_face_gives_arrays_of_the_right_shape(detector):
    faces = detector.detect(np.zeros((64, 64, 3), np.uint8))
    assert (faces.boxes.shape, faces.scores.shape, faces.points.shape) == ((0, 4), (0,), (0, 5, 2))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (900, 500), (333, 777)])
def test_boxes_follow_the_picture_through_any_size_and_shape(detector, height, width):
    import cv2

    picture = face_media.astronaut()[:256, 96:352]
    (wanted,) = detector.detect(picture).boxes
    canvas = np.full((height, width, 3), 120, np.uint8)
    side = min(height, width)
    canvas[:side, :side] = cv2.resize(picture, (side, side))
    found = detector.detect(canvas)
    assert len(found) == 1
    assert iou(found.boxes[0], wanted * side / 256) > 0.8


def test_the_same_picture_gives_the_same_bytes_whatever_came_before(detector):
    picture = face_media.astronaut()
    first = detector.detect(picture)
    detector.detect(face_media.group())
    again = detector.detect(picture)
    assert first.boxes.tobytes() == again.boxes.tobytes()
    assert first.points.tobytes() == again.points.tobytes()


def test_a_full_profile_is_a_face_too(detector):
    assert len(detector.detect(face_media.portrait("woman_profile.jpg"))) == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 1, 1), (2, 2, 3, 3), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou_is_the_shared_part_of_the_whole(first, second, expected):
    assert iou(np.array(first, float), np.array(second, float)) == pytest.approx(expected)
