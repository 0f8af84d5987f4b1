"""The face mesh and what is read from it: presence, pose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.face_mesh import LEFT_EYE_OUTER, NOSE_TIP, RIGHT_EYE_OUTER, FaceMesh, Mesh
from data_pipeline.models.head_pose import calibrated_yaw, pose_of_mesh, pose_of_points
from tests.data_pipeline import face_media


@pytest.fixture(scope="module")
def fit():
    detector, mesh = CenterFace(), FaceMesh()

    def fit_first(image: np.ndarray) -> Mesh:
        faces = detector.detect(image)
        return mesh.fit(image, faces.boxes[0], faces.points[0, :2])

    return fit_first


@pytest.fixture(scope="module")
def frontal(fit) -> Mesh:
    return fit(face_media.astronaut())


def turned(mesh: Mesh, yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Mesh:
    """The mesh after the head turned: towards the picture's left, upwards, clockwise."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    around_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    around_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return Mesh((mesh.points @ (around_z @ around_x @ around_y).T).astype(np.float32), mesh.presence)


def test_the_mesh_lies_on_the_face(frontal):
    assert frontal.points.shape == (468, 3)
    assert frontal.presence > 0.99
    assert np.abs(frontal.points[NOSE_TIP, :2] - [225, 124]).max() < 8
    assert frontal.points[LEFT_EYE_OUTER, 0] < 210 < 240 < frontal.points[RIGHT_EYE_OUTER, 0]


def test_the_nose_is_nearer_than_the_eyes(frontal):
    assert frontal.points[NOSE_TIP, 2] < frontal.points[[LEFT_EYE_OUTER, RIGHT_EYE_OUTER], 2].min()


def test_noise_is_no_face():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    mesh = FaceMesh().fit(noise, np.array([100.0, 100, 200, 200]), np.array([[120.0, 130], [180, 130]]))
    assert mesh.presence < 0.01


def test_a_face_at_the_edge_of_the_picture_is_still_fitted(fit):
    picture = face_media.astronaut()[:, 200:]
    assert np.isfinite(fit(picture).points).all()


@pytest.mark.parametrize("degrees", [-25, 25])
def test_roll_is_read_from_a_rotated_picture(fit, frontal, degrees):
    import cv2

    matrix = cv2.getRotationMatrix2D((224, 120), -degrees, 1)
    rotated = cv2.warpAffine(face_media.astronaut(), matrix, (512, 512))
    change = pose_of_mesh(fit(rotated)).roll_deg - pose_of_mesh(frontal).roll_deg
    assert change == pytest.approx(degrees, abs=3)


def test_a_mirrored_face_looks_the_other_way(fit):
    picture = face_media.group()[
        :, :430
    ]  # holds one person who looks to the left, and one who tilts her head
    picture = picture[120:300, 240:430]
    pose, mirrored = (pose_of_mesh(fit(np.ascontiguousarray(image))) for image in (picture, picture[:, ::-1]))
    assert pose.yaw_deg > 25
    assert mirrored.yaw_deg < -25
    assert mirrored.roll_deg == pytest.approx(-pose.roll_deg, abs=8)


@pytest.mark.parametrize("degrees", [-15, -5, 5, 15])
def test_a_small_turn_of_the_mesh_is_read_as_it_is(frontal, degrees):
    zero = pose_of_mesh(frontal)
    assert pose_of_mesh(turned(frontal, yaw_deg=degrees)).yaw_deg == pytest.approx(
        zero.yaw_deg + degrees, abs=2
    )
    assert pose_of_mesh(turned(frontal, pitch_deg=degrees)).pitch_deg == pytest.approx(
        zero.pitch_deg + degrees, abs=2
    )
    assert pose_of_mesh(turned(frontal, roll_deg=degrees)).roll_deg == pytest.approx(
        zero.roll_deg + degrees, abs=2
    )


@pytest.mark.parametrize("yaw_deg", [-70, -45, -20, 0, 20, 45, 70])
def test_five_points_of_a_turned_face_give_its_yaw(yaw_deg):
    face = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.5, -0.59], [-0.4, 1, 0], [0.4, 1, 0]])
    angle = np.radians(yaw_deg)
    seen = np.stack([face[:, 0] * np.cos(angle) + face[:, 2] * np.sin(angle), face[:, 1]], axis=1)
    assert pose_of_points(seen * 40 + 100).yaw_deg == pytest.approx(yaw_deg, abs=1)


@given(st.floats(-90, 90), st.floats(-90, 90))
def test_calibration_keeps_order_and_sign_and_never_leaves_the_quarter_turn(first, second):
    low, high = sorted((first, second))
    assert calibrated_yaw(low) <= calibrated_yaw(high)
    assert calibrated_yaw(-low) == -calibrated_yaw(low)
    assert abs(low) <= abs(calibrated_yaw(low)) <= 90


def test_portraits_that_look_into_the_camera_read_under_15_degrees(fit):
    for name in ("male_face.png", "woman_waterfall.jpg", "woman_bw.jpg", "obama.jpg", "einstein.jpg"):
        assert abs(pose_of_mesh(fit(face_media.portrait(name))).yaw_deg) < 15, name


def test_a_full_profile_reads_beyond_the_default_limit(fit):
    assert abs(pose_of_mesh(fit(face_media.portrait("woman_profile.jpg"))).yaw_deg) > 45
