"""The stand-in of the published networks: the carried weights know what they see."""

import numpy as np
import pytest
import torch

from data_pipeline import weights
from evaluation.networks import EfficientNetLite0, efficientnet_lite0
from tests.data_pipeline.face_media import astronaut


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    folder = weights.fetch(efficientnet_lite0.WEIGHTS)
    (file,) = weights.registry()[efficientnet_lite0.WEIGHTS].files
    return EfficientNetLite0.load(folder / efficientnet_lite0.WEIGHTS_FILE, file.sha256)


def as_batch(*pictures: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2)


def test_both_features_have_their_sizes_whatever_the_picture_has(network):
    picture = as_batch(astronaut()[:301, :200])
    with torch.inference_mode():
        assert network(picture).shape == (1, 1280)
        assert network.bottleneck(picture).shape == (1, 320)


@pytest.mark.parametrize(("picture", "label"), [("chelsea", 285), ("coffee", 967)])
def test_it_tells_an_egyptian_cat_and_an_espresso(network, picture, label):
    import skimage.data

    with torch.inference_mode():
        (found,) = network.classes(as_batch(getattr(skimage.data, picture)())).softmax(dim=1)
    assert found.argmax() == label
    assert found.max() > 0.7


def test_a_plain_picture_is_as_the_network_was_trained_to_see_it(network):
    """127 is its zero, and one 128th its unit."""
    grey = torch.full((1, 3, 50, 70), 127, dtype=torch.uint8)
    assert torch.equal(network._prepare(grey), torch.zeros(1, 3, 224, 224))
    white = torch.full((1, 3, 50, 70), 255, dtype=torch.uint8)
    assert torch.allclose(network._prepare(white), torch.ones(1, 3, 224, 224))


def test_what_is_no_batch_of_bytes_is_refused(network):
    with pytest.raises(ValueError, match=r"not uint8 \(B, 3, H, W\)"):
        network(torch.zeros(1, 3, 8, 8))
