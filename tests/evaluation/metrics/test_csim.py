"""CSIM: a person is like themselves, less so when blurred, and clearly less like somebody else."""

import numpy as np
import pytest

from data_pipeline.config import FacesConfig, InsightFaceConfig
from data_pipeline.weights import WeightsUnavailable
from evaluation.metrics.csim import Csim
from evaluation.metrics.metric import CannotScore
from tests.data_pipeline.face_media import astronaut, group
from tests.evaluation.metrics.seen import Box, seen_clip

FACE = (176, 56, 272, 186)  # the astronaut's


@pytest.fixture(scope="module")
def csim() -> Csim:
    metric = Csim(FacesConfig(), every=2)
    metric.setup()
    return metric


@pytest.fixture(scope="module")
def actor(csim) -> tuple[np.ndarray, Box]:
    """A picture of one other person, and where the face is in it."""
    from data_pipeline.models.centerface import CenterFace

    picture = group()
    x0, y0, x1, y1 = CenterFace(320).detect(picture).boxes[0]
    pad = round(float(y1 - y0))
    left, top = max(round(float(x0)) - pad, 0), max(round(float(y0)) - pad, 0)
    cut = picture[top : round(float(y1)) + pad, left : round(float(x1)) + pad]
    return np.ascontiguousarray(cut), (x0 - left, y0 - top, x1 - left, y1 - top)


def value(csim: Csim, *frames: np.ndarray, reference: np.ndarray, box: Box = FACE) -> float:
    return csim.measure(seen_clip(np.stack(frames), box, reference=reference)).values["csim-dlib"]


def test_a_face_is_like_itself(csim) -> None:
    assert value(csim, astronaut(), reference=astronaut()) == pytest.approx(1, abs=1e-6)


def test_somebody_else_is_clearly_less_like_it_than_the_person_in_a_bad_picture(csim, actor) -> None:
    import cv2

    bad = (cv2.GaussianBlur(astronaut(), (0, 0), 2) * 0.7).astype(np.uint8)
    own = value(csim, bad, reference=astronaut())
    other = value(csim, actor[0], reference=astronaut(), box=actor[1])
    assert own > 0.95
    assert other < own - 0.05


def test_of_several_faces_the_speakers_counts(csim, actor) -> None:
    beside = np.zeros((512, 512 + actor[0].shape[1], 3), np.uint8)
    beside[:, :512], beside[: len(actor[0]), 512:] = astronaut(), actor[0]
    others = tuple(side + shift for side, shift in zip(actor[1], (512, 0, 512, 0), strict=True))
    assert value(csim, beside, reference=astronaut()) > 0.97
    assert value(csim, beside, reference=astronaut(), box=others) < 0.93


def test_every_kth_frame_that_shows_the_face_is_compared(csim) -> None:
    noise = np.random.default_rng(0).integers(0, 256, astronaut().shape, dtype=np.uint8)
    found = value(csim, astronaut(), noise, astronaut(), noise, noise, reference=astronaut())
    assert found == pytest.approx(1, abs=1e-6)
    assert Csim(FacesConfig(), every=2).protocol["every"] == 2


def test_without_a_face_in_portrait_or_frames_nothing_is_compared(csim) -> None:
    wall = np.full((256, 256, 3), 90, np.uint8)
    with pytest.raises(CannotScore, match="the reference shows no face"):
        value(csim, astronaut(), reference=wall)
    with pytest.raises(CannotScore, match="none of every 2 frames"):
        value(csim, wall, reference=astronaut())
    with pytest.raises(CannotScore, match="none of every 2 frames"):
        csim.measure(seen_clip(astronaut()[None]))  # no box: nobody was seen to speak
    with pytest.raises(CannotScore, match="none of every 2 frames"):
        value(csim, astronaut(), reference=astronaut(), box=(0, 400, 100, 500))  # a face, but not there


def test_only_insightfaces_embedding_is_called_csim(tmp_path, monkeypatch) -> None:
    assert Csim(FacesConfig()).names == ("csim-dlib",)
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path))
    missing = FacesConfig(backend="insightface", insightface=InsightFaceConfig(root=str(tmp_path)))
    with pytest.raises(WeightsUnavailable, match="no models of the pack"):
        Csim(missing)


def test_a_pack_of_insightfaces_gives_csim(tmp_path) -> None:
    pytest.importorskip("insightface", reason="insightface is not installed")
    from tests.data_pipeline.onnx_models import HALF_HEIGHT, HALF_WIDTH, picture, write_pack

    pack = write_pack(tmp_path / "filled")
    metric = Csim(FacesConfig(backend="insightface", insightface=InsightFaceConfig(pack=str(pack))))
    metric.setup()
    box = (160 - HALF_WIDTH, 160 - HALF_HEIGHT, 160 + HALF_WIDTH, 160 + HALF_HEIGHT)

    def alike(who: str) -> float:
        clip = seen_clip(picture((160, 160, who))[None], box, reference=picture((160, 160, "left")))
        return metric.measure(clip).values["csim"]

    assert metric.names == ("csim",)
    assert alike("left") == pytest.approx(1, abs=1e-6)
    assert alike("right") < 0.9
    assert list(metric.protocol["networks"]) == ["insightface-filled"]
