"""The insightface face backend: SCRFD, ArcFace and 3D landmarks from a pack that the user has.

    picture -> SCRFD: boxes and five points       Guo et al., arXiv:2105.04714
            -> 1k3d68: 68 points in 3D            the pose is their rotation against a mean face
            -> ArcFace: 512-d, normalised         Deng et al., arXiv:1801.07698

The package is MIT; its published models are for non-commercial research only. It tells a pack's files
apart by the shapes of their inputs and outputs. A pack without 3D landmarks gives 106 points, or the
detector's five, and a rougher pose.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipeline.config import FacesConfig
from data_pipeline.models import insightface_pack, onnx
from data_pipeline.models.detections import Detections, crop_around
from data_pipeline.models.face_models import FittedFace
from data_pipeline.models.head_pose import Pose, pose_of_points
from data_pipeline.models.insightface_pack import Pack
from data_pipeline.weights import WeightsUnavailable

if TYPE_CHECKING:
    from insightface.app.common import Face

SAME_PERSON_COSINE = 0.45
"""insightface 2.1's own for "this face is that person's" (PersonConfig.face_similarity_threshold)."""

STRIDE = 32  # the detector's input has sides that are multiples of this
LANDMARKS_3D, LANDMARKS_2D = "landmark_3d_68", "landmark_2d_106"
USED = ("detection", "recognition", LANDMARKS_3D, LANDMARKS_2D)

# Confidence is told of a crop, in which every face has one size.
STANDARD_PX = 320
STANDARD_MARGIN = 2.5  # side of the crop in longer sides of the face's box
LEAST_SCORE = 0.05  # of what counts as a detection there


class InsightFace:
    """FaceModels of one pack; on the GPU where onnxruntime has one, else on one CPU thread."""

    same_person_distance = float(np.sqrt(2 - 2 * SAME_PERSON_COSINE))  # between vectors of length 1

    def __init__(self, config: FacesConfig):
        """Raises WeightsUnavailable where the pack is not here, or lacks what this needs."""
        pack = insightface_pack.find(config.insightface)
        self.name = pack.name
        models = _load(pack)
        self._detector, self._recognition = models["detection"], models["recognition"]
        self._landmarks = models.get(LANDMARKS_3D) or models.get(LANDMARKS_2D)
        side = max(STRIDE, round(config.detector_px / STRIDE) * STRIDE)
        self._detector.prepare(0, input_size=(side, side), det_thresh=config.detector_threshold)

    def detect(self, image: np.ndarray) -> Detections:
        found, points = self._detector.detect(_bgr(image))
        height, width = image.shape[:2]
        boxes = np.clip(found[:, :4], 0, np.array([width, height, width, height], np.float32))
        return Detections(boxes, found[:, 4], points)

    def fit(self, image: np.ndarray, box: np.ndarray, points: np.ndarray) -> FittedFace:
        if self._landmarks is None:
            return FittedFace(points, points, pose_of_points(points), presence=1.0)
        face = _face(box, points)
        landmarks = self._landmarks.get(_bgr(image), face)
        pose = pose_of_points(points) if face.pose is None else _pose(face.pose)
        return FittedFace(points, landmarks, pose, presence=1.0)

    def embed(self, image: np.ndarray, face: FittedFace) -> np.ndarray:
        embedding = self._recognition.get(_bgr(image), _face(None, face.points))
        return np.asarray(embedding / np.linalg.norm(embedding), np.float32)

    def confidence(self, image: np.ndarray, box: np.ndarray) -> float:
        crop = crop_around(_bgr(image), box, STANDARD_MARGIN, STANDARD_PX)
        found, _ = self._detector.detect(crop, input_size=(STANDARD_PX, STANDARD_PX), det_thresh=LEAST_SCORE)
        off_centre = np.abs((found[:, :2] + found[:, 2:4]) / 2 - STANDARD_PX / 2).max(axis=1)
        return float(found[off_centre < STANDARD_PX / 4, 4].max(initial=0.0))


def _load(pack: Pack) -> dict[str, Any]:
    """The pack's models by what they do. Raises WeightsUnavailable."""
    import onnxruntime
    from insightface.app import FaceAnalysis

    # insightface aligns faces by scikit-image's older name for it; every worker would say so.
    warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning)
    here = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in here]
    options = onnx.session_options()
    try:
        models = FaceAnalysis(
            str(pack.folder),
            allowed_modules=USED,
            providers=providers,
            sess_options=options,
            static_shape_sessions=False,  # or the detector would be loaded twice
        ).models
    except AssertionError:  # its only word for a pack without a detector
        raise _lacks(pack, "detection") from None
    except Exception as error:  # a damaged file: onnxruntime, protobuf and the manifest have their own
        raise WeightsUnavailable(
            f"{pack.folder}: a model of this pack cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if "recognition" not in models:
        raise _lacks(pack, "recognition")
    if not models["detection"].use_kps:
        raise WeightsUnavailable(
            f"{models['detection'].model_file}: this detector has no five points, by which faces are "
            "aligned; use one that has (its name ends in _kps or _10g)"
        )
    return models


def _lacks(pack: Pack, task: str) -> WeightsUnavailable:
    files = ", ".join(sorted(path.name for path in pack.folder.glob("*.onnx")))
    return WeightsUnavailable(
        f"{pack.folder}: insightface finds no {task} model among {files}; the faces stage needs a SCRFD "
        "detector and an ArcFace model in one folder (e.g. det_10g.onnx and w600k_r50.onnx)"
    )


def _face(box: np.ndarray | None, points: np.ndarray) -> "Face":
    from insightface.app.common import Face

    return Face(bbox=box, kps=points)


def _pose(pitch_yaw_roll: np.ndarray) -> Pose:
    """insightface counts a turn to the picture's right as positive yaw; the rest is as ours."""
    pitch, yaw, roll = (float(degrees) for degrees in pitch_yaw_roll)
    return Pose(-yaw, pitch, roll)


def _bgr(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> BGR, as insightface has every picture."""
    return np.ascontiguousarray(image[..., ::-1])
