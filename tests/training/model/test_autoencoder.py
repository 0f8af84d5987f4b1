import json
from pathlib import Path

import diffusers
import pytest
import torch

from tests.filled import drawn, fill
from tests.training.model.real_frames import clip
from training.model.autoencoder import CogVideoXAutoencoder, latent_frames, pixel_frames
from training.model.pretrained import PretrainedError


def tiny_vae(**settings):
    """CogVideoX's VAE with few channels and one layer a block; everything else is as published."""
    sizes = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "layers_per_block": 1}
    sizes |= {"scaling_factor": 0.7, "sample_height": 64, "sample_width": 64}
    with torch.no_grad():
        return fill(diffusers.AutoencoderKLCogVideoX(**sizes | settings).eval(), gain=1.0)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("CogVideoX")
    tiny_vae().save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def autoencoder(vae_folder):
    return CogVideoXAutoencoder.load(vae_folder, sample=False)


def relative(found, wanted):
    return float((found - wanted).pow(2).mean().sqrt() / wanted.std())


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (3, 1), (5, 2), (9, 3), (13, 4), (49, 13)])
def test_frames_group_as_in_cogvideox(autoencoder, frames, latents):
    pixels = clip(frames, 16)
    assert autoencoder.encode(pixels).shape == (1, latents, 16, 2, 2)
    assert latent_frames(frames) == latents


@pytest.mark.parametrize("latents", [1, 2, 3, 4, 5])
def test_a_window_of_any_length_decodes_to_its_own_frame_count(autoencoder, latents):
    decoded = autoencoder.decode(drawn("latents", (1, latents, 16, 2, 3)))
    assert decoded.shape == (1, 3, pixel_frames(latents), 16, 24)


def test_an_even_window_decodes_as_the_beginning_of_a_longer_one(autoencoder):
    latents = autoencoder.encode(clip(17, 48))
    longer = autoencoder.decode(latents)[:, :, :13]
    assert relative(autoencoder.decode(latents[:, :4]), longer) < 0.05  # 0.012 here: its group norms


def test_latents_are_the_vae_s_own_times_its_scaling_factor(autoencoder):
    pixels = clip(5, 32)
    with torch.no_grad():
        mean = autoencoder.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(autoencoder.encode(pixels), 0.7 * mean.transpose(1, 2))


def test_decoding_undoes_the_scaling_and_is_the_vae_s_own(autoencoder):
    latents = drawn("latents", (1, 3, 16, 2, 2))
    with torch.no_grad():
        pixels = autoencoder.vae.decode(latents.transpose(1, 2) / 0.7).sample
    torch.testing.assert_close(autoencoder.decode(latents), pixels)


def test_sampling_draws_from_the_posterior_by_the_generator_alone(vae_folder):
    autoencoder = CogVideoXAutoencoder.load(vae_folder)
    pixels = clip(1, 32)
    one, same, other = (autoencoder.encode(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    with torch.no_grad():
        posterior = autoencoder.vae.encode(pixels).latent_dist
    spread = (one - other).transpose(1, 2) / 0.7 / posterior.std / 2**0.5
    assert 0.8 < float(spread.std()) < 1.2


def test_a_whole_clip_is_encoded_at_once_unless_chunks_are_asked_for(vae_folder):
    whole = CogVideoXAutoencoder.load(vae_folder, sample=False)
    chunked = CogVideoXAutoencoder.load(vae_folder, sample=False, chunk_frames=8)
    pixels = clip(17, 64)
    assert torch.equal(whole.encode(pixels[:, :, :9]), chunked.encode(pixels[:, :, :9]))
    difference = relative(chunked.encode(pixels), whole.encode(pixels))
    assert 0 < difference < 0.4  # 0.28: group norms see 9 and 8 frames instead of 17


def test_slicing_changes_nothing_but_rounding(autoencoder, vae_folder):
    sliced = CogVideoXAutoencoder.load(vae_folder, sample=False, slicing=True)
    pixels = torch.cat([clip(5, 32), clip(5, 32, shift=40)])
    latents = autoencoder.encode(pixels)
    torch.testing.assert_close(sliced.encode(pixels), latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sliced.decode(latents), autoencoder.decode(latents), atol=1e-3, rtol=1e-3)


def test_one_tile_that_holds_the_picture_changes_nothing(autoencoder, vae_folder):
    tiled = CogVideoXAutoencoder.load(vae_folder, sample=False, tile_px=(64, 64))
    latents = autoencoder.encode(clip(5, 64))
    assert torch.equal(tiled.encode(clip(5, 64)), latents)
    assert torch.equal(tiled.decode(latents), autoencoder.decode(latents))


def test_tiles_meet_where_they_were_cut(autoencoder, vae_folder):
    tiled = CogVideoXAutoencoder.load(vae_folder, sample=False, tile_px=(96, 64))
    pixels = clip(1, 160)
    whole, in_tiles = autoencoder.encode(pixels), tiled.encode(pixels)
    assert in_tiles.shape == whole.shape
    shifted = min(relative(in_tiles, whole.roll(by, dims)) for by in (-1, 1) for dims in (3, 4))
    assert relative(in_tiles, whole) < min(0.75 * shifted, 0.7)  # 0.48: random weights, other group norms
    decoded, from_tiles = autoencoder.decode(whole), tiled.decode(whole)
    assert from_tiles.shape == decoded.shape
    shifted = min(relative(from_tiles, decoded.roll(by, dims)) for by in (-8, 8) for dims in (3, 4))
    assert relative(from_tiles, decoded) < min(0.75 * shifted, 0.7)


def test_results_have_the_dtype_of_what_was_given_and_the_vae_its_own(vae_folder):
    half = CogVideoXAutoencoder.load(vae_folder, sample=False, dtype=torch.bfloat16)
    assert half.vae.dtype == torch.bfloat16
    latents = half.encode(clip(1, 16))
    assert latents.dtype == torch.float32
    assert half.decode(latents.bfloat16()).dtype == torch.bfloat16


def test_the_digest_tells_weights_and_settings_apart(vae_folder, autoencoder):
    again = CogVideoXAutoencoder.load(vae_folder / "vae", sample=False)
    assert again.digest == autoencoder.digest
    sampled = CogVideoXAutoencoder.load(vae_folder)
    other = tiny_vae()
    with torch.no_grad():
        other.encoder.conv_in.conv.bias[0] += 1e-3
    changed = CogVideoXAutoencoder(other, sample=False)
    assert len({autoencoder.digest, sampled.digest, changed.digest}) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[0], r"pixels: expected \(B, 3, F, H, W\), got \(3, 5, 16, 16\)"),
        (lambda x: x[:, :1], r"pixels: expected \(B, 3, F, H, W\), got \(1, 1, 5"),
        (
            lambda x: (x * 127.5 + 127.5).to(torch.uint8),
            "pixels: expected floating numbers .* got torch.uint8",
        ),
        (lambda x: x * 127.5 + 127.5, r"pixels: expected finite numbers in \[-1, 1\], got .* 2\d\d"),
        (lambda x: x * torch.nan, "pixels: expected finite numbers .* got nan"),
        (lambda x: x[..., :12], "multiples of 8, got 16 x 12"),
        (lambda x: x[..., :0], "pixels: expected at least one pixel"),
        (lambda x: x[:, :, :2], r"frames: expected 4 k \+ 1 .* got 2; the nearest are 1 and 5"),
        (lambda x: x[:, :, :4], r"frames: expected 4 k \+ 1 .* got 4; the nearest are 1 and 5"),
    ],
)
def test_pixels_that_cannot_be_encoded_are_named(autoencoder, change, words):
    with pytest.raises(ValueError, match=words):
        autoencoder.encode(change(clip(5, 16)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z.transpose(1, 2), r"latents: expected \(B, T, 16, h, w\), got \(1, 16, 3, 2, 2\)"),
        (lambda z: z.long(), "latents: expected floating numbers, got torch.int64"),
        (lambda z: z / 0, "latents: expected finite numbers, got 192 NaN or infinite of 192"),
    ],
)
def test_latents_that_cannot_be_decoded_are_named(autoencoder, change, words):
    with pytest.raises(ValueError, match=words):
        autoencoder.decode(change(torch.ones(1, 3, 16, 2, 2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk_frames": 12}, "chunk_frames: expected None or a multiple of 8, got 12"),
        ({"tile_px": (240, 360)}, r"tile_px: expected multiples of 32, got \(240, 360\)"),
    ],
)
def test_settings_that_the_vae_cannot_do_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CogVideoXAutoencoder(tiny_vae(), **options)


def test_a_vae_of_other_strides_or_scaling_is_refused():
    three = {"block_out_channels": (8, 8, 16), "down_block_types": ("CogVideoXDownBlock3D",) * 3}
    shallow = tiny_vae(**three, up_block_types=("CogVideoXUpBlock3D",) * 3)
    with pytest.raises(ValueError, match=r"strides of 8 px and 4 frames, got \(4, 4\)"):
        CogVideoXAutoencoder(shallow)
    inverted = tiny_vae(invert_scale_latents=True)
    with pytest.raises(ValueError, match="invert_scale_latents"):
        CogVideoXAutoencoder(inverted)


def test_a_folder_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with pytest.raises(PretrainedError, match=r"nowhere: no such folder.*hf download .* --include 'vae/\*'"):
        CogVideoXAutoencoder.load(tmp_path / "nowhere")


def test_a_hub_s_name_without_a_network_is_named_with_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PretrainedError, match=r"nobody/nothing: its vae could not be loaded .*hf download"):
        CogVideoXAutoencoder.load("nobody/nothing")


def test_files_that_are_cut_short_or_lack_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_vae().save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    del state["decoder.conv_out.conv.bias"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(
        PretrainedError, match=r"1 weights of its vae are missing .* decoder.conv_out.conv.bias"
    ):
        CogVideoXAutoencoder.load(tmp_path)

    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PretrainedError, match="its vae could not be loaded"):
        CogVideoXAutoencoder.load(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLCogVideoX"})[:-3])
    with pytest.raises(PretrainedError, match="its vae could not be loaded"):
        CogVideoXAutoencoder.load(tmp_path)
