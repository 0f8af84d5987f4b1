"""Where the mouth is on the latents' grid."""

import numpy as np
import pytest

from tests.training.datasets import MOUTH
from training.mouth import LIPS, mouth_boxes, mouth_map


def landmarks(points: int, frames: int = 1) -> np.ndarray:
    """A face whose outer lips span MOUTH."""
    face = np.full((frames, points, 2), 0.5, np.float32)
    x0, y0, x1, y1 = MOUTH
    lips = LIPS[points]
    face[:, lips, 0] = np.linspace(x0, x1, len(lips))
    face[:, lips, 1] = [(y0, y1)[at % 2] if len(lips) > 2 else (y0 + y1) / 2 for at in range(len(lips))]
    return face


@pytest.mark.parametrize("points", LIPS)
def test_every_backend_s_mouth_is_its_lips_and_a_quarter_of_their_width_around(points) -> None:
    (box,) = mouth_boxes(landmarks(points))
    assert box == pytest.approx([0.35, 0.55, 0.65, 0.75], abs=1e-6)


def test_a_latent_frame_shows_where_the_mouth_was_in_any_of_its_frames() -> None:
    boxes = np.array([[0.1, 0.1, 0.2, 0.2]] * 8 + [[0.6, 0.7, 0.8, 0.8]])
    shown = mouth_map(boxes, 10, 10)
    assert shown.shape == (3, 1, 10, 10)
    assert shown[0, 0].nonzero().tolist() == shown[1, 0].nonzero().tolist() == [[1, 1]]
    assert shown[2, 0, 1:8, 1:8].all()
    assert shown[2].sum() == 49


def test_an_unseen_mouth_or_one_beyond_the_picture_is_nowhere() -> None:
    boxes = np.array([[np.nan] * 4] * 5 + [[1.2, 1.2, 1.4, 1.4]] * 4 + [[-0.4, -0.4, -0.2, -0.2]] * 4)
    assert mouth_map(boxes, 8, 8).sum() == 0


def test_a_face_of_unknown_points_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="a face of 7 points; the mouth is known among 468, 106, 68, 5"):
        mouth_boxes(np.zeros((3, 7, 2)))
