"""A pack of insightface's models for tests: the published files' inputs and outputs, with filled weights.

The published files cannot travel with the project. These have their shapes, so that insightface tells
them apart and runs them as it does those, and weights by which a "face" is a magenta square: the
detector scores how red and how little green it is, the recognition model looks at what is drawn on it
in blue alone, and the landmarks are a mean face turned by given angles.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import onnx

BACKGROUND, FACE_PX = 100, 48  # grey level; side of the square that the detector answers best
HALF_WIDTH, HALF_HEIGHT = 40, 48  # of the box that it then reports, in pixels of its input
POINTS = np.array([[-16, -16], [16, -16], [0, 0], [-12, 20], [12, 20]], np.float32)  # from the face's centre
STRIDES, SEEING, ANCHORS = (8, 16, 32), 16, 2  # of det_10g's outputs; only the middle one sees faces here
LANDMARK_SCALE = 0.8  # the mean face, which is about 1.2 wide, in halves of the landmark model's crop


def write_pack(
    folder: Path, yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0, seed: int = 0
) -> Path:
    """`folder` with det_10g, w600k_r50 and 1k3d68 in it; degrees as in head_pose.Pose."""
    folder.mkdir(parents=True, exist_ok=True)
    write_detector(folder / "det_10g.onnx")
    write_recognition(folder / "w600k_r50.onnx", seed)
    write_landmarks(folder / "1k3d68.onnx", turned_mean_face(yaw_deg, pitch_deg, roll_deg))
    return folder


def picture(*faces: tuple[int, int, str], width: int = 320, height: int = 320) -> np.ndarray:
    """(height, width, 3) uint8 RGB with a face at each (x, y, who), who being "left", "right" or "top"."""
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    for x, y, who in faces:
        half = FACE_PX // 2
        face = image[y - half : y + half, x - half : x + half]
        face[..., 0], face[..., 1], face[..., 2] = 255, 0, 0
        drawn = {"left": np.s_[:, :half], "right": np.s_[:, half:], "top": np.s_[:half]}[who]
        face[..., 2][drawn] = 255
    return image


def write_detector(path: Path, with_points: bool = True) -> None:
    """SCRFD as det_10g.onnx: (1, 3, H, W) -> scores, boxes and points for each of three strides."""
    from onnx import TensorProto, helper

    nodes, constants, outputs = [], [], []
    sides = np.array([HALF_WIDTH, HALF_HEIGHT, HALF_WIDTH, HALF_HEIGHT], np.float32)
    for kind, values in (("score", np.zeros(1)), ("box", sides), ("points", POINTS.ravel()))[
        : 2 + with_points
    ]:
        for stride in STRIDES:
            kernel = np.zeros((ANCHORS * len(values), 3, 1, 1), np.float32)
            bias, pads = np.tile(values / stride, ANCHORS), [0, 0, 0, 0]
            if kind == "score":
                bias -= 6
                if stride == SEEING:
                    # Red less green, in -1..1 as the network has them, is 2 on a face and 0 on grey.
                    # The pads put the middle of the square that a cell sees on the cell's own corner.
                    kernel = np.zeros((ANCHORS, 3, FACE_PX, FACE_PX), np.float32)
                    kernel[0, 0], kernel[0, 1] = 6 / FACE_PX**2, -6 / FACE_PX**2
                    half = FACE_PX // 2
                    pads = [half, half, half - stride, half - stride]
            name = f"{kind}_{stride}"
            constants += [_tensor(f"{name}_kernel", kernel), _tensor(f"{name}_bias", bias)]
            constants += [_tensor(f"{name}_shape", np.array([-1, len(values)]))]
            weights = [f"{name}_kernel", f"{name}_bias"]
            nodes += [
                helper.make_node(
                    "Conv", ["input.1", *weights], [f"{name}_map"], strides=[stride] * 2, pads=pads
                ),
                helper.make_node(
                    "Sigmoid" if kind == "score" else "Identity", [f"{name}_map"], [f"{name}_value"]
                ),
                helper.make_node("Transpose", [f"{name}_value"], [f"{name}_last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [name]),
            ]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, len(values)]))
    _save(path, nodes, [1, 3, None, None], outputs, constants)


def write_recognition(path: Path, seed: int = 0) -> None:
    """ArcFace as w600k_r50.onnx: (N, 3, 112, 112) -> (N, 512), a projection of the blue channel."""
    from onnx import TensorProto, helper

    projection = np.random.default_rng(seed).standard_normal((3 * 49, 512)).astype(np.float32)
    projection[: 2 * 49] = 0  # red and green say that it is a face, not whose
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["683"]),
    ]
    outputs = [helper.make_tensor_value_info("683", TensorProto.FLOAT, [None, 512])]
    _save(path, nodes, [None, 3, 112, 112], outputs, [_tensor("projection", projection)])


def write_landmarks(path: Path, landmarks: np.ndarray) -> None:
    """1k3d68.onnx: (N, 3, 192, 192) -> (N, 3309), of which insightface takes the last 68 points."""
    values = np.zeros(3309, np.float32)
    values[-landmarks.size :] = landmarks.ravel()
    _write_constant(path, values)


def write_landmarks_2d(path: Path) -> None:
    """2d106det.onnx: (N, 3, 192, 192) -> (N, 212); here a circle."""
    angle = np.linspace(0, 2 * np.pi, 106, endpoint=False)
    _write_constant(path, np.stack([np.cos(angle), np.sin(angle)], axis=1).ravel().astype(np.float32) / 2)


def turned_mean_face(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """(68, 3): insightface's mean face, x right, y down, z towards the camera, turned as Pose says."""
    data = pytest.importorskip("insightface.data", reason="insightface is not installed")
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    to_left = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    up = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    clockwise = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    face = data.get_object("meanshape_68.pkl") @ (clockwise @ to_left @ up).T
    return (LANDMARK_SCALE * face).astype(np.float32)


def _write_constant(path: Path, values: np.ndarray) -> None:
    """(N, 3, 192, 192) -> (N, len(values)), whatever the picture."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["fc1"]),
    ]
    constants = [_tensor("weight", np.zeros((3, len(values)), np.float32)), _tensor("bias", values)]
    outputs = [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [None, len(values)])]
    _save(path, nodes, [None, 3, 192, 192], outputs, constants)


def _tensor(name: str, values: np.ndarray) -> "onnx.TensorProto":
    from onnx import numpy_helper

    kind = np.int64 if np.issubdtype(values.dtype, np.integer) else np.float32
    return numpy_helper.from_array(values.astype(kind), name)


def _save(
    path: Path,
    nodes: list["onnx.NodeProto"],
    input_shape: list[int | None],
    outputs: list["onnx.ValueInfoProto"],
    constants: list["onnx.TensorProto"],
) -> None:
    import onnx
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, input_shape)]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
