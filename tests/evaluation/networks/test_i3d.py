"""I3D against what two public copies of it computed from the same filled weights; preprocessing."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool3d

from data_pipeline import weights
from evaluation.networks import I3D, i3d
from evaluation.networks.i3d import POOLED, prepare
from tests.filled import agrees_with, fill, golden, golden_facts


@pytest.fixture(scope="module")
def network() -> I3D:
    return fill(I3D(), gain=2**0.5)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return golden("fvd/i3d")


def enlarged(clips: np.ndarray, rows: int, columns: int) -> torch.Tensor:
    """(B, F, H, W, 3) bytes, every pixel repeated -> (B, 3, F, H', W') in -1..1."""
    large = clips.repeat(rows, axis=2).repeat(columns, axis=3)
    return torch.tensor(large).permute(0, 4, 1, 2, 3) / 255 * 2 - 1


def test_the_state_dict_is_that_of_the_published_network(network):
    found = {name: [*value.shape] for name, value in network.state_dict().items()}
    assert found == {name: shape for name, shape, _ in golden_facts("fvd/contract")["entries"]}


def test_the_filled_network_is_the_one_that_was_recorded(network):
    assert agrees_with(network, golden_facts("fvd/fill")["fill_check"])


def test_a_clip_gives_the_recorded_end_points_and_class_outputs(network, stored):
    found = {}
    layers = [name for name, _ in network.named_children() if name != "logits"]
    hooks = [
        getattr(network, name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.mean(dim=(0, 2, 3, 4)).numpy()})
        )
        for name in layers
    ]
    try:
        with torch.inference_mode():
            logits = network(enlarged(stored["clips_a_uint8"], 8, 8)).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    assert len(found) == 12
    for name, mean in found.items():
        np.testing.assert_allclose(mean, stored[f"a0.mean.{name}"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits, stored["a.logits_eps1e-3"][:1], atol=1e-5, rtol=0)


def test_the_other_eps_gives_what_common_fvd_code_gives(network, stored):
    other = I3D(eps=1e-5)
    other.load_state_dict(network.state_dict())
    with torch.inference_mode():
        found = other(enlarged(stored["clips_a_uint8"], 8, 8)).numpy()
    np.testing.assert_allclose(found, stored["a.logits_eps1e-5"][:1], atol=1e-5, rtol=0)
    assert np.abs(found - stored["a.logits_eps1e-3"][:1]).max() > 1e-4


def test_sizes_that_no_stride_divides_are_padded_as_tensorflow_does(network, stored):
    with torch.inference_mode():
        mixed = network.mixed(enlarged(stored["odd.clip_uint8"], 20, 21))
    pooled = avg_pool3d(mixed, POOLED, stride=1)
    assert [*pooled.shape] == golden_facts("fvd/i3d")["odd_shapes"][1]
    found = pooled.mean(dim=(2, 3, 4)).numpy()
    np.testing.assert_allclose(found, stored["odd.pooled_mean"], atol=1e-5, rtol=0)


def test_a_clip_of_another_size_is_refused(network):
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 224, 224\), not \(B, 3, 16, 224, 224\)"):
        network(torch.zeros(1, 3, 8, 224, 224))


@pytest.mark.parametrize("size", ["60x80", "90x64", "64x64"])
@pytest.mark.parametrize("variant", ["float", "quantised"])
def test_a_video_of_bytes_is_prepared_as_in_common_fvd_code(stored, size, variant):
    """Both variants: of bytes they are one."""
    name = f"pre.{size}"
    found = prepare(torch.tensor(stored[f"{name}.video_uint8"]).permute(3, 0, 1, 2)).numpy()
    assert found.shape == (3, 4, 224, 224)
    places = {"corner": slice(0, 16), "centre": slice(104, 120), "last": slice(208, 224)}
    for place, part in places.items():
        patch = found[:, [0, 3], part, part]
        np.testing.assert_allclose(patch, stored[f"{name}.{variant}.{place}"], atol=2e-6, rtol=0)
    means = found.mean(axis=(2, 3))
    np.testing.assert_allclose(means, stored[f"{name}.{variant}.frame_mean"], atol=2e-6, rtol=0)


def test_a_video_of_floats_is_not_rounded_to_bytes(stored):
    found = prepare(torch.tensor(stored["prefloat.video_CTHW"])).numpy()
    centre = found[:, [0, 3], 104:120, 104:120]
    np.testing.assert_allclose(centre, stored["prefloat.float.centre"], atol=2e-6, rtol=0)
    assert np.abs(centre - stored["prefloat.quantised.centre"]).max() > 1e-3


def test_what_is_no_video_is_refused():
    with pytest.raises(ValueError, match=r"\(3, F, H, W\), not \(4, 60, 80, 3\)"):
        prepare(torch.zeros(4, 60, 80, 3))


def test_the_published_file_without_counters_is_loaded(network, tmp_path):
    """It was written in 2017."""
    old = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    loaded = I3D.load(tmp_path / "old.pt", eps=1e-5)
    assert torch.equal(loaded.logits.conv3d.weight, network.logits.conv3d.weight)
    assert loaded.Mixed_5c.b3b.bn.eps == 1e-5


def test_the_published_file_is_loaded_where_it_is_there():
    if not weights.registry()[i3d.WEIGHTS].is_cached():
        pytest.skip(f"not pulled: hallo3 weights pull {i3d.WEIGHTS}")
    path = weights.fetch(i3d.WEIGHTS) / i3d.WEIGHTS_FILE
    assert I3D.load(path).Conv3d_1a_7x7.bn.running_var.min() > 0
