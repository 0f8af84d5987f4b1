"""FID's Inception against what pytorch-fid and torch-fidelity computed from the same filled weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline import weights
from evaluation.networks import FidInception, inception
from tests.filled import agrees_with, fill, golden, golden_facts

SHARED = Path(__file__).parents[4] / "shared" / "golden" / "fid" / "features.safetensors"
END_POINTS = {"64": "Conv2d_3b_1x1", "192": "Mixed_5b", "768": "Mixed_7a"}
"""Width of an end point -> the layer that it goes into."""


@pytest.fixture(scope="module")
def network() -> FidInception:
    return fill(FidInception(), gain=2**0.5)


def as_variant(network: FidInception, variant: inception.Variant) -> FidInception:
    other = FidInception(variant)
    other.load_state_dict(network.state_dict())
    return other


def means_on_the_way(network: FidInception, images: torch.Tensor) -> dict[str, np.ndarray]:
    """What goes into each of END_POINTS, averaged over the picture, and what comes out."""
    found = {}
    hooks = [
        getattr(network, layer).register_forward_pre_hook(
            lambda _, inputs, width=width: found.update({width: inputs[0].mean(dim=(2, 3)).numpy()})
        )
        for width, layer in END_POINTS.items()
    ]
    try:
        with torch.inference_mode():
            found["2048"] = network(images).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def test_the_state_dict_is_that_of_the_published_network(network):
    found = {name: [*value.shape] for name, value in network.state_dict().items()}
    assert found == {name: shape for name, shape, _ in golden_facts("fid/contract")["entries"]}


def test_the_filled_network_is_the_one_that_was_recorded(network):
    assert agrees_with(network, golden_facts("fid/fill")["fill_check"])


@pytest.mark.parametrize(
    ("variant", "recorded"), [("pytorch-fid", "feature"), ("torch-fidelity", "torch_fidelity.")]
)
def test_the_features_are_those_of(network, variant, recorded):
    stored = golden("fid/features")
    found = means_on_the_way(as_variant(network, variant), torch.tensor(stored["image_uint8"]))
    assert set(found) == {*END_POINTS, "2048"}
    for width, features in found.items():
        np.testing.assert_allclose(features, stored[f"{recorded}{width}"], atol=1e-5, rtol=0)


def test_the_class_outputs_are_those_of_torch_fidelity(network):
    stored = golden("fid/features")
    with torch.inference_mode():
        found = network.fc(torch.tensor(stored["torch_fidelity.2048"])).numpy()
    np.testing.assert_allclose(found, stored["torch_fidelity.logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("variant", "recorded"), [("pytorch-fid", "resized_patch"), ("torch-fidelity", "tf1_resized_patch")]
)
@pytest.mark.parametrize("size", ["120x160", "384x320"])
def test_images_are_resized_as_by(network, variant, recorded, size):
    stored = of_size(size)
    prepared = as_variant(network, variant).prepare(torch.tensor(stored["image_uint8"]))
    assert prepared.shape == (2, 3, 299, 299)
    np.testing.assert_allclose(prepared[:, :, 140:156, 96:112], stored[recorded], atol=1e-6, rtol=0)


def of_size(size: str) -> dict[str, np.ndarray]:
    if size == "120x160":
        return golden("fid/features")
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is not here: images of {size} do not travel with the tests")
    from safetensors.numpy import load_file

    return {name.removeprefix(f"{size}."): value for name, value in load_file(SHARED).items()}


def test_the_two_ways_of_resizing_give_other_features():
    """By as much as the recorded ones differ, so that one taken for the other would be seen."""
    stored = golden("fid/features")
    assert np.abs(stored["feature2048"] - stored["torch_fidelity.2048"]).max() > 1e-4


def test_a_picture_of_299_pixels_is_only_scaled(network):
    picture = torch.arange(299 * 299, dtype=torch.int64).reshape(1, 1, 299, 299).expand(-1, 3, -1, -1) % 256
    picture = picture.to(torch.uint8)
    assert torch.allclose(network.prepare(picture), picture / 255 * 2 - 1, atol=1e-6)
    other = as_variant(network, "torch-fidelity").prepare(picture)
    assert torch.allclose(other, (picture.float() - 128) / 128, atol=1e-6)


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_what_is_no_batch_of_bytes_is_refused(network, wrong):
    with pytest.raises(ValueError, match=r"not uint8 \(B, 3, H, W\)"):
        network(wrong)


def test_a_variant_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'clean-fid' is neither"):
        FidInception("clean-fid")


def test_a_saved_state_dict_is_loaded_exactly(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    loaded = FidInception.load(tmp_path / "weights.pth", "torch-fidelity")
    assert loaded.variant == "torch-fidelity"
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in network.state_dict().items())


def test_the_published_file_is_loaded_where_it_is_there():
    if not weights.registry()[inception.WEIGHTS].is_cached():
        pytest.skip(f"not pulled: hallo3 weights pull {inception.WEIGHTS}")
    path = weights.fetch(inception.WEIGHTS) / inception.WEIGHTS_FILE
    assert FidInception.load(path).Conv2d_1a_3x3.bn.running_var.min() > 0


def test_the_registered_file_is_the_one_whose_name_has_its_digest():
    (file,) = weights.registry()[inception.WEIGHTS].files
    assert file.name == inception.WEIGHTS_FILE
    assert file.sha256 is not None
    assert file.sha256[:8] in file.name
