"""The faces stage: what it says of clips whose faces are known."""

import copy
import dataclasses

import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.clip import Clip
from data_pipeline.config import FacesConfig
from data_pipeline.models.embedded_faces import WEIGHTS
from data_pipeline.stages.faces import Faces
from tests.data_pipeline import face_media, onnx_models
from tests.data_pipeline.face_media import clip_of, real_clip
from tests.data_pipeline.onnx_models import picture

FIELDS = {
    "n_faces_max",
    "other_face_ratio",
    "face_fraction",
    "face_height_px",
    "face_detected_ratio",
    "face_gap_s",
    "yaw_deg_p95",
    "pitch_deg_p95",
    "roll_deg_p95",
    "identity_consistency",
    "face_confidence",
    "face_backend",
    "identity_embedding",
    "track",
}


@pytest.fixture(scope="module")
def stage() -> Faces:
    faces = Faces(FacesConfig())
    faces.setup()
    return faces


@pytest.fixture(scope="module")
def woman() -> np.ndarray:
    """(256, 256, 3), her face about 112 px high."""
    return face_media.astronaut()[:256, 96:352]


def moving(image: np.ndarray, n_frames: int) -> list[np.ndarray]:
    """The picture drifting by a pixel a frame."""
    return [np.roll(image, shift, axis=1) for shift in range(n_frames)]


def person_of_group(index: int) -> np.ndarray:
    """(256, 256, 3): one of the six."""
    import cv2

    x, y = [(114, 330), (795, 415), (1180, 335)][index]
    return cv2.resize(face_media.group()[y - 105 : y + 105, max(x - 105, 0) : x + 100], (256, 256))


def test_one_person_is_measured_and_only_the_stages_own_fields_change(stage, woman):
    clip = clip_of(moving(woman, 10))
    before = copy.copy(clip)
    stage(clip)
    changed = {
        field.name
        for field in dataclasses.fields(Clip)
        if getattr(clip, field.name) is not getattr(before, field.name)
    }
    assert changed == FIELDS
    assert clip.n_faces_max == 1
    assert clip.other_face_ratio == 0
    assert clip.face_detected_ratio == 1
    assert clip.face_gap_s == 0
    assert clip.face_fraction == pytest.approx(112 / 256, rel=0.1)
    assert clip.identity_consistency == 1
    assert clip.yaw_deg_p95 < 10
    assert clip.face_confidence > 0.87
    assert clip.face_backend == "centerface+mediapipe-face-mesh+dlib-face-recognition"


def test_the_track_holds_fractions_of_the_frame(stage, woman):
    track = stage(clip_of(moving(woman, 5))).track
    assert track.boxes.shape == (5, 4)
    assert track.landmarks.shape == (5, 468, 2)
    assert (track.boxes > 0).all()
    assert (track.boxes < 1).all()
    left, top, right, bottom = track.boxes[0]
    x, y = track.landmarks[0].T
    assert left - 0.1 < x.min() < x.max() < right + 0.1
    assert top - 0.1 < y.min() < y.max() < bottom + 0.1
    assert track.identity.shape == (128,)


def test_the_identity_of_the_row_is_that_of_the_track(stage, woman):
    clip = stage(clip_of(moving(woman, 5)))
    assert clip.identity_embedding == clip.track.identity.tolist()


def test_the_height_of_the_face_is_told_in_pixels_of_the_source(stage, woman):
    small, large = (stage(clip_of(moving(woman, 3), scale)).face_height_px for scale in (1, 4))
    assert large == pytest.approx(4 * small)
    assert small == pytest.approx(112, rel=0.1)


def test_a_second_face_is_measured_against_the_first(stage, woman):
    import cv2

    canvas = np.full((256, 512, 3), 90, np.uint8)
    canvas[:, :256] = woman
    canvas[64:192, 320:448] = cv2.resize(woman, (128, 128), interpolation=cv2.INTER_AREA)
    clip = stage(clip_of(moving(canvas, 5)))
    assert clip.n_faces_max == 2
    assert clip.other_face_ratio == pytest.approx(0.5, abs=0.1)


def test_six_people_are_six_faces(stage):
    assert stage(clip_of([face_media.group()] * 3)).n_faces_max == 6


def test_a_face_that_leaves_is_missed_for_as_long_as_it_is_away(stage, woman):
    empty = np.full_like(woman, 100)
    clip = stage(clip_of(moving(woman, 6) + [empty] * 6 + moving(woman, 8)))
    assert clip.face_detected_ratio == pytest.approx(14 / 20)
    assert clip.face_gap_s == pytest.approx(1.2)
    assert np.isnan(clip.track.boxes[6:12]).all()
    assert np.isfinite(clip.track.boxes[:6]).all()


def test_a_clip_without_a_face_says_so_and_leaves_the_rest_unmeasured(stage):
    clip = stage(clip_of([np.full((120, 200, 3), shade, np.uint8) for shade in range(50, 60)]))
    assert clip.n_faces_max == 0
    assert clip.face_detected_ratio == 0
    assert clip.face_gap_s == pytest.approx(2.0)
    assert clip.face_fraction is clip.yaw_deg_p95 is clip.identity_consistency is clip.track is None


def test_one_person_after_another_in_the_same_place_is_not_one_identity(stage):
    clip = stage(clip_of(moving(person_of_group(0), 15) + moving(person_of_group(1), 15)))
    assert clip.face_detected_ratio > 0.9
    assert clip.identity_consistency < 0.8


def test_the_pose_is_that_of_the_worst_frames(stage, woman):
    import cv2

    def tilted(degrees: float) -> np.ndarray:
        return cv2.warpAffine(woman, cv2.getRotationMatrix2D((128, 120), degrees, 1), (256, 256))

    clip = stage(clip_of([tilted(degrees) for degrees in np.linspace(0, 30, 12)]))
    assert clip.roll_deg_p95 == pytest.approx(27, abs=4)


def test_a_clip_without_frames_is_left_alone(stage):
    clip = Clip(source_uri="x", clip_id="y")
    assert stage(clip) == Clip(source_uri="x", clip_id="y")


def test_the_same_clip_gives_the_same_numbers(stage, woman):
    first, second = (stage(clip_of(moving(woman, 4))) for _ in range(2))
    assert first.track.landmarks.tobytes() == second.track.landmarks.tobytes()
    assert first.track.identity.tobytes() == second.track.identity.tobytes()
    assert first.yaw_deg_p95 == second.yaw_deg_p95


def test_the_stage_uses_the_models_that_the_digest_of_its_backend_covers():
    registered = {name for name, weight in weights.registry().items() if "faces.embedded" in weight.used_by}
    assert set(WEIGHTS) == registered


@pytest.mark.parametrize(
    "name",
    ["videoretalking_face4.mp4", "aniportrait_pose_ref.mp4", "latentsync_demo3.mp4", "grid_lbbc2a.mpg"],
)
def test_a_real_clip_of_one_speaker_shows_one_steady_face(stage, name):
    clip = stage(real_clip(name))
    assert clip.other_face_ratio == 0
    assert clip.face_detected_ratio == 1
    assert clip.yaw_deg_p95 < 25
    assert clip.identity_consistency == 1
    assert clip.face_confidence > 0.87


@pytest.mark.parametrize("name", ["clearvoice_001.avi", "facenet_crowd.mp4", "aniportrait_lyl.mp4"])
def test_a_real_clip_of_several_people_has_another_large_face(stage, name):
    clip = stage(real_clip(name))
    assert clip.n_faces_max >= 2
    assert clip.other_face_ratio > 0.8


@pytest.mark.parametrize("name", ["cogvideo_kitten.mp4", "videoxfun_pose.mp4", "torchcodec_nasa.mp4"])
def test_a_real_clip_without_people_has_no_face(stage, name):
    assert stage(real_clip(name)).n_faces_max == 0


def test_confidence_does_not_depend_on_the_size_of_the_face(stage, woman):
    import cv2

    far = cv2.resize(face_media.astronaut(), (200, 200), interpolation=cv2.INTER_AREA)
    small, large = stage(clip_of([far] * 3)), stage(clip_of([woman] * 3))
    assert small.face_height_px < 50 < 100 < large.face_height_px
    assert small.face_confidence == pytest.approx(large.face_confidence, abs=0.04)


def test_half_a_face_behind_something_lowers_the_confidence(stage, woman):
    hidden = woman.copy()
    hidden[60:, 90:128] = np.random.default_rng(0).integers(0, 256, (196, 38, 3))
    seen, covered = stage(clip_of([woman] * 3)), stage(clip_of([hidden] * 3))
    assert covered.face_confidence < seen.face_confidence - 0.05


def test_a_hand_over_a_real_face_lowers_the_confidence(stage):
    assert stage(real_clip("mmaction_makeup.avi")).face_confidence < 0.85


@pytest.fixture(scope="module")
def insightface_stage(tmp_path_factory) -> Faces:
    pytest.importorskip(
        "insightface", reason="insightface is not installed: pip install 'hallo3[insightface]'"
    )
    pack = onnx_models.write_pack(tmp_path_factory.mktemp("packs") / "filled", 20.0, 10.0, -5.0)
    faces = Faces(FacesConfig(backend="insightface", insightface={"pack": str(pack)}))
    faces.setup()
    return faces


def test_insightface_measures_the_same_fields(insightface_stage):
    clip = clip_of([picture((144 + 4 * frame, 160, "left")) for frame in range(10)], scale=2)
    before = copy.copy(clip)
    insightface_stage(clip)
    changed = {
        field.name
        for field in dataclasses.fields(Clip)
        if getattr(clip, field.name) is not getattr(before, field.name)
    }
    assert changed == FIELDS
    assert clip.face_backend == "insightface-filled"
    assert (clip.n_faces_max, clip.other_face_ratio, clip.face_detected_ratio) == (1, 0, 1)
    assert clip.face_fraction == pytest.approx(2 * onnx_models.HALF_HEIGHT / 320)
    assert clip.face_height_px == pytest.approx(4 * onnx_models.HALF_HEIGHT)
    assert (clip.yaw_deg_p95, clip.pitch_deg_p95, clip.roll_deg_p95) == pytest.approx((20, 10, 5), abs=0.01)
    assert clip.identity_consistency == 1
    assert clip.face_confidence > 0.9


def test_the_track_of_insightface_holds_its_own_landmarks_and_embedding(insightface_stage):
    track = insightface_stage(clip_of([picture((160, 160, "left"))] * 5)).track
    assert track.landmarks.shape == (5, 68, 2)
    assert track.identity.shape == (512,)
    np.testing.assert_allclose(track.boxes, np.tile([120, 112, 200, 208], (5, 1)) / 320, atol=0.001)
    assert (np.abs(track.landmarks - 0.5) < 0.2).all()


def test_insightface_sees_that_one_person_follows_another(insightface_stage):
    faces = ["left"] * 10 + ["right"] * 10
    clip = insightface_stage(clip_of([picture((160, 160, who)) for who in faces]))
    assert clip.face_detected_ratio == 1
    assert clip.identity_consistency == pytest.approx(0.5)


def test_insightface_counts_two_people_and_a_gap(insightface_stage):
    both, nobody = picture((80, 160, "left"), (240, 160, "right")), picture()
    clip = insightface_stage(clip_of([both] * 6 + [nobody] * 4 + [both] * 5))
    assert clip.n_faces_max == 2
    assert clip.other_face_ratio == pytest.approx(1)
    assert clip.face_gap_s == pytest.approx(0.8)
