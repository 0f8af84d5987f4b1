"""insightface's packs: found, checked, and run from detector to identity, on files with filled weights."""

import functools
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("insightface", reason="insightface is not installed: pip install 'hallo3[insightface]'")

from data_pipeline import curate, weights
from data_pipeline.config import CurationConfig, FacesConfig, InsightFaceConfig, config_with
from data_pipeline.config_file import ConfigError
from data_pipeline.dataset import Dataset
from data_pipeline.models import insightface_pack
from data_pipeline.models.face_models import NotOneFace, face_models, identity_of_picture
from data_pipeline.models.insightface import InsightFace
from data_pipeline.policy import RULES
from data_pipeline.weights import WeightsUnavailable
from tests.data_pipeline import onnx_models
from tests.data_pipeline.makers import clicks, write_video
from tests.data_pipeline.onnx_models import HALF_HEIGHT, HALF_WIDTH, POINTS, picture, write_pack

YAW, PITCH, ROLL = 20.0, 10.0, -5.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_pack(tmp_path_factory.mktemp("packs") / "filled", YAW, PITCH, ROLL)


@pytest.fixture(scope="module")
def models(folder) -> InsightFace:
    return InsightFace(config_of(folder))


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """A weights' cache with nothing in it, and no way to fill it."""
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path / "cache"


def config_of(pack: Path | str, root: Path | None = None) -> FacesConfig:
    place = {"pack": str(pack)} | ({"root": str(root)} if root else {})
    return FacesConfig(backend="insightface", insightface=InsightFaceConfig(**place))


def curation_of(pack: Path | str, root: Path | None = None) -> CurationConfig:
    return CurationConfig(sources="x", output="y", faces=config_of(pack, root))


@pytest.mark.parametrize("scale", [1, 2])
def test_faces_are_found_where_they_are_with_five_points(models, scale):
    import cv2

    image = picture((112, 160, "left"), (256, 96, "right"))
    found = models.detect(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST))
    order = np.argsort(found.boxes[:, 0])
    centres, half = np.array([[112, 160], [256, 96]]), np.array([HALF_WIDTH, HALF_HEIGHT])
    assert len(found) == 2
    np.testing.assert_allclose(found.boxes[order, :2], (centres - half) * scale, atol=0.01)
    np.testing.assert_allclose(found.boxes[order, 2:], (centres + half) * scale, atol=0.01)
    np.testing.assert_allclose(found.points[order], (centres[:, None] + POINTS) * scale, atol=0.01)
    assert (found.scores > 0.9).all()


def test_boxes_end_where_the_picture_ends(models):
    boxes = models.detect(picture((32, 32, "left"))).boxes
    assert boxes[0].tolist() == [0, 0, 32 + HALF_WIDTH, 32 + HALF_HEIGHT]


def test_a_picture_without_a_face_has_no_detection(models):
    found = models.detect(picture())
    assert (found.boxes.shape, found.scores.shape, found.points.shape) == ((0, 4), (0,), (0, 5, 2))


def test_the_pose_is_the_landmarks_own_in_our_signs(models):
    image = picture((160, 160, "left"))
    found = models.detect(image)
    face = models.fit(image, found.boxes[0], found.points[0])
    assert (face.pose.yaw_deg, face.pose.pitch_deg, face.pose.roll_deg) == pytest.approx((YAW, PITCH, ROLL))
    assert face.fits
    assert face.landmarks.shape == (68, 3)
    jaw_left, jaw_right, nose = face.landmarks[[0, 16, 30], 0]
    assert jaw_left < nose < (jaw_left + jaw_right) / 2  # turned to the picture's left
    left, top, right, bottom = found.boxes[0]
    x, y = face.landmarks[:, :2].T
    assert left - 10 < x.min() < x.max() < right + 10
    assert top - 10 < y.min() < y.max() < bottom + 10


def test_an_embedding_has_length_one_and_tells_people_apart_wherever_they_are(models):
    def embedding(x: int, y: int, who: str) -> np.ndarray:
        image = picture((x, y, who))
        found = models.detect(image)
        return models.embed(image, models.fit(image, found.boxes[0], found.points[0]))

    here, there, other = embedding(112, 160, "left"), embedding(208, 96, "left"), embedding(112, 160, "right")
    assert here.shape == (512,)
    assert here.dtype == np.float32
    assert np.linalg.norm(here) == pytest.approx(1)
    assert np.linalg.norm(here - there) < models.same_person_distance
    assert np.linalg.norm(here - other) > models.same_person_distance


def test_same_person_distance_is_the_librarys_own_cosine_on_unit_vectors():
    from insightface.app.person import PersonConfig

    cosine = 1 - InsightFace.same_person_distance**2 / 2
    assert cosine == pytest.approx(PersonConfig().face_similarity_threshold)


def test_confidence_falls_when_a_face_is_covered_and_not_when_it_is_small(models):
    import cv2

    image = picture((160, 160, "left"))
    covered = image.copy()
    covered[160:] = onnx_models.BACKGROUND
    near = cv2.resize(image, (640, 640))
    box = np.array([160 - HALF_WIDTH, 160 - HALF_HEIGHT, 160 + HALF_WIDTH, 160 + HALF_HEIGHT], np.float32)
    assert models.confidence(near, box * 2) == pytest.approx(models.confidence(image, box), abs=0.02)
    assert models.confidence(covered, box) < models.confidence(image, box) - 0.1
    assert models.confidence(picture(), box) == 0


def test_a_face_beside_it_does_not_lend_its_confidence(models):
    box = np.array([40, 112, 120, 208], np.float32)
    assert models.confidence(picture((176, 160, "left")), box) == 0


@pytest.mark.parametrize(("n_landmarks", "with_2d"), [(106, True), (5, False)])
def test_a_pack_without_3d_landmarks_gives_fewer_and_no_pitch(folder, tmp_path, n_landmarks, with_2d):
    pack = shutil.copytree(folder, tmp_path / "small")
    (pack / "1k3d68.onnx").unlink()
    if with_2d:
        onnx_models.write_landmarks_2d(pack / "2d106det.onnx")
    models = InsightFace(config_of(pack))
    image = picture((160, 160, "left"))
    found = models.detect(image)
    face = models.fit(image, found.boxes[0], found.points[0])
    assert face.landmarks.shape == (n_landmarks, 2)
    assert np.isnan(face.pose.pitch_deg)
    assert face.pose.yaw_deg == pytest.approx(0, abs=1)
    assert models.embed(image, face).shape == (512,)


def test_the_one_person_of_a_picture_is_identified_as_in_the_rows(folder, models):
    image = picture((160, 160, "left"))
    found = models.detect(image)
    row = models.embed(image, models.fit(image, found.boxes[0], found.points[0]))
    np.testing.assert_array_equal(identity_of_picture(image, config_of(folder)), row)
    with pytest.raises(NotOneFace, match="2 faces"):
        identity_of_picture(picture((96, 160, "left"), (224, 160, "right")), config_of(folder))


def test_a_pack_is_found_by_its_name_under_the_root(folder, tmp_path, own_cache):
    write_pack(tmp_path / "root" / "models" / "buffalo_l")
    assert face_models(config_of("buffalo_l", tmp_path / "root")).name == "insightface-buffalo_l"
    assert face_models(config_of(folder)).name == "insightface-filled"


def test_a_pack_that_weights_pull_brought_in_is_found_too(tmp_path, own_cache):
    write_pack(own_cache / "weights" / "insightface-buffalo-l")
    assert weights.registry()["insightface-buffalo-l"].is_cached()
    pack = insightface_pack.find(config_of("buffalo_l", tmp_path / "root").insightface)
    assert pack == insightface_pack.Pack("insightface-buffalo_l", own_cache / "weights/insightface-buffalo-l")


def test_the_registry_says_that_the_published_models_are_not_for_commercial_use():
    published = weights.registry()["insightface-buffalo-l"]
    assert not published.commercial_use
    assert "non-commercial" in published.licence


def test_a_missing_pack_is_told_with_where_it_was_looked_for_and_how_to_get_it(tmp_path, own_cache):
    with pytest.raises(WeightsUnavailable) as raised:
        face_models(config_of("buffalo_l", tmp_path / "root"))
    said = str(raised.value)
    assert "buffalo_l" in said
    assert f"{tmp_path}/root/models/buffalo_l (no such folder)" in said
    assert f"{own_cache}/weights/insightface-buffalo-l" in said
    assert "hallo3 weights pull insightface-buffalo-l" in said
    assert "non-commercial" in said


def test_a_folder_with_other_things_in_it_is_told_with_what_is_there(tmp_path):
    (tmp_path / "pack" / "buffalo_l").mkdir(parents=True)
    with pytest.raises(WeightsUnavailable, match=r"pack \(no \.onnx file among: buffalo_l\)"):
        face_models(config_of(tmp_path / "pack"))


@pytest.mark.parametrize(
    ("file", "missing"),
    [("det_10g.onnx", "no detection model"), ("w600k_r50.onnx", "no recognition model")],
)
def test_a_pack_that_lacks_a_model_is_told_which_and_what_it_has(folder, tmp_path, file, missing):
    pack = shutil.copytree(folder, tmp_path / "half")
    (pack / file).unlink()
    with pytest.raises(WeightsUnavailable, match=rf"half: insightface finds {missing}.* 1k3d68\.onnx"):
        face_models(config_of(pack))


def test_a_detector_without_points_is_refused(folder, tmp_path):
    pack = shutil.copytree(folder, tmp_path / "pack")
    onnx_models.write_detector(pack / "det_10g.onnx", with_points=False)
    with pytest.raises(WeightsUnavailable, match=r"det_10g\.onnx: this detector has no five points"):
        face_models(config_of(pack))


def test_a_damaged_file_is_told_with_its_folder(folder, tmp_path):
    pack = shutil.copytree(folder, tmp_path / "pack")
    (pack / "w600k_r50.onnx").write_bytes((pack / "w600k_r50.onnx").read_bytes()[:1000])
    with pytest.raises(WeightsUnavailable, match=r"pack: a model of this pack cannot be loaded: .*w600k_r50"):
        face_models(config_of(pack))


def test_a_relative_folder_is_refused(tmp_path):
    given = {"sources": "x", "output": "y", "faces": {"insightface": {"pack": "models/mine"}}}
    with pytest.raises(ConfigError, match=r"faces\.insightface: .*'models/mine' with its absolute path"):
        config_with(given, [], "test")


def test_measurements_belong_to_the_models_that_made_them(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "filled")
    other = write_pack(tmp_path / "other" / "filled", seed=1)
    embedded = CurationConfig(sources="x", output="y")
    digests = [config.measure_sha256() for config in (curation_of(folder), curation_of(moved), embedded)]
    assert digests[0] == digests[1] != digests[2]
    assert curation_of(other).measure_sha256() not in digests
    unused = embedded.model_copy(update={"faces": FacesConfig(insightface={"pack": str(folder)})})
    assert unused.measure_sha256() == digests[2]


def test_there_is_no_digest_of_models_that_are_not_here(tmp_path, own_cache):
    with pytest.raises(WeightsUnavailable, match="no models of the pack 'buffalo_s'"):
        curation_of("buffalo_s", tmp_path / "root").measure_sha256()


def test_preparing_loads_the_pack_before_anything_starts(folder, tmp_path):
    curate.prepare(curation_of(folder))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WeightsUnavailable, match=r"empty \(empty\)"):
        curate.prepare(curation_of(empty))


def test_preparing_without_the_library_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(
        curate.BackendMissing, match=r"faces\.backend: insightface .* install hallo3\[insightface\]"
    ):
        curate.prepare(curation_of(folder))


def test_preparing_with_an_opencv_that_wants_a_display_says_how_to_mend_it(folder, tmp_path, monkeypatch):
    package = tmp_path / "insightface"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "insightface"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(curate.BackendMissing, match=r"libGL\.so\.1.*--no-deps opencv-python-headless"):
        curate.prepare(curation_of(folder))


@pytest.fixture
def zoo(tmp_path, monkeypatch) -> Path:
    """A folder that stands where insightface's zoo is on the web, served over HTTP."""
    from insightface.utils import storage

    folder = tmp_path / "zoo"
    folder.mkdir()
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(storage, "MODEL_ZOO_RELEASE_DOWNLOAD_URL", url)
        yield folder
        server.shutdown()


def test_a_pack_of_the_zoo_is_downloaded_when_a_run_is_prepared(folder, zoo, tmp_path):
    with zipfile.ZipFile(zoo / "buffalo_s.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    config = curation_of("buffalo_s", tmp_path / "root")
    curate.prepare(config)
    assert face_models(config.faces).name == "insightface-buffalo_s"


@pytest.mark.parametrize("archive", [None, b"half an archive"])
def test_a_zoo_that_does_not_deliver_is_told_and_leaves_nothing_that_passes_for_a_pack(
    zoo, tmp_path, archive
):
    if archive:
        (zoo / "buffalo_s.zip").write_bytes(archive)
    config = config_of("buffalo_s", tmp_path / "root").insightface
    with pytest.raises(
        WeightsUnavailable, match=r"'buffalo_s'[\s\S]*no such folder[\s\S]*tried: insightface's zoo"
    ):
        insightface_pack.obtain(config)
    assert not (tmp_path / "root" / "models" / "buffalo_s").exists()


def test_a_zoo_out_of_reach_is_told_in_words(tmp_path, monkeypatch):
    from insightface.utils import storage

    monkeypatch.setattr(storage, "MODEL_ZOO_RELEASE_DOWNLOAD_URL", "http://127.0.0.1:9/")
    with pytest.raises(WeightsUnavailable, match=r"tried: insightface's zoo: ConnectionError"):
        insightface_pack.obtain(config_of("buffalo_s", tmp_path / "root").insightface)


@pytest.mark.slow
def test_a_dataset_is_curated_with_insightface_on_real_ray(folder, tmp_path):
    def turning(number: int, width: int, height: int) -> np.ndarray:
        return picture((160 + 16 * (number // 20), 160, "left"), width=width, height=height)

    sound = clicks([0.4, 1.2, 2.0], 2.4)
    write_video(tmp_path / "one.mp4", n_frames=60, size=(320, 320), pixels=turning, sound=sound)
    off = [f"filters.{rule.filter_key}=null" for rule in RULES]
    small = ["segment.min_s=1", "encode.width=64", "encode.height=64", "encode.preset=ultrafast"]
    given = [f"sources={tmp_path / 'one.mp4'}", f"output={tmp_path / 'dataset'}", "ray.object_store_gb=0.2"]
    faces = ["faces.backend=insightface", f"faces.insightface.pack={folder}"]
    command = [sys.executable, "-m", "cluster.cli", "curate", "talking_head", *given, *faces, *off, *small]
    subprocess.run(command, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}, check=True, timeout=280)
    dataset = Dataset.open(tmp_path / "dataset")
    (row,) = dataset.manifest().to_pylist()
    assert row["status"] == "kept"
    assert row["face_backend"] == "insightface-filled"
    assert row["face_detected_ratio"] == 1
    assert row["yaw_deg_p95"] == pytest.approx(YAW, abs=0.01)
    assert row["identity_consistency"] == 1
    with np.load(io.BytesIO(dataset.sample_of(row["clip_id"])[f"{row['clip_id']}.npz"])) as arrays:
        assert arrays["landmarks"].shape == (60, 68, 2)
        in_the_picture = identity_of_picture(picture((160, 160, "left")), config_of(folder))
        assert np.linalg.norm(arrays["identity"] - in_the_picture) < InsightFace.same_person_distance
