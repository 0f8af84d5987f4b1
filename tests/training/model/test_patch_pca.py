import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filled import drawn
from tests.training.model.real_frames import clip
from training.model.patch_pca import (
    PATCH_SIZE,
    PatchPcaAutoencoder,
    from_patches,
    lapping_matrix,
    to_patches,
)


def portraits(side_px: int, shifts: range) -> list[torch.Tensor]:
    """Clips of 17 frames of two photographs: a face with 64 px to its head and shoulders, and a cat."""
    scale = 4 if side_px == 64 else 2
    return [
        clip(17, side_px, photograph=photograph, shift=shift, scale=scale)
        for photograph in ("astronaut", "chelsea")
        for shift in shifts
    ]


@pytest.fixture(scope="module")
def codec():
    return PatchPcaAutoencoder.fit(portraits(64, range(0, 40, 4)), channels=32)


def psnr_db(found, wanted):
    return float(-10 * torch.log10(((found.clamp(-1, 1) - wanted) / 2).pow(2).mean()))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_patches_hold_every_pixel_of_a_window(rows, columns, groups):
    pixels = drawn("pixels", (2, 3, 4 * groups + 1, 8 * rows, 8 * columns))
    patches = to_patches(pixels, lapping_matrix())
    assert patches.shape == (2, groups + 1, rows, columns, PATCH_SIZE)
    torch.testing.assert_close(from_patches(patches, lapping_matrix()), pixels, atol=1e-5, rtol=1e-5)


def test_lapping_keeps_lengths_and_flat_pictures():
    matrix = lapping_matrix().double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix.sum(1), torch.ones(8, dtype=torch.float64), atol=1e-6, rtol=0)


def test_all_768_channels_give_every_pixel_back():
    window = drawn("window", (1, 3, 61, 64, 64)).clamp(-1, 1)  # 1,024 patches
    codec = PatchPcaAutoencoder.fit([window], channels=PATCH_SIZE)
    torch.testing.assert_close(codec.decode(codec.encode(window)), window, atol=1e-3, rtol=0)


def test_latents_have_unit_variance_and_no_correlation_over_the_fitted_clips(codec):
    latents = torch.cat([codec.encode(clip) for clip in portraits(64, range(0, 40, 4))])
    channels = latents.double().permute(2, 0, 1, 3, 4).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(32, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        channels.cov(correction=0), torch.eye(32, dtype=torch.float64), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize(("frames", "groups"), [(1, 1), (3, 1), (5, 2), (49, 13)])
def test_frames_group_as_in_cogvideox(codec, frames, groups):
    latents = codec.encode(clip(frames, 64))
    assert latents.shape == (1, groups, 32, 8, 8)
    assert codec.decode(latents).shape == (1, 3, 4 * (groups - 1) + 1, 64, 64)


def test_a_latent_frame_depends_on_no_later_frame(codec):
    pixels = clip(9, 64)
    later = pixels.clone()
    later[:, :, 5:] = 0
    assert torch.equal(codec.encode(pixels)[:, :2], codec.encode(later)[:, :2])


def test_a_still_has_one_latent_wherever_it_stands(codec):
    still = clip(1, 64).expand(-1, -1, 5, -1, -1)
    alone, group = codec.encode(still).unbind(1)
    torch.testing.assert_close(alone, group)
    torch.testing.assert_close(codec.encode(still[:, :, :3])[:, 0], alone)


def test_the_condition_s_frames_weigh_a_half_and_two_quarters(codec):
    reference, first, second = clip(3, 64).unbind(2)
    condition = codec.encode(torch.stack([reference, first, second], 2))[:, 0]
    window = torch.stack([reference, reference, reference, first, second], 2)  # its group: r, r, f, s
    torch.testing.assert_close(condition, codec.encode(window)[:, 1])


@pytest.mark.parametrize(
    ("side_px", "channels", "least_db"), [(64, 16, 18), (64, 32, 20), (128, 16, 21), (128, 32, 23)]
)
def test_held_out_frames_of_a_photograph_come_back(side_px, channels, least_db):
    codec = PatchPcaAutoencoder.fit(portraits(side_px, range(0, 48, 8)), channels)
    for unseen in portraits(side_px, range(60, 64, 4)):
        latents = codec.encode(unseen)
        assert psnr_db(codec.decode(latents), unseen) > least_db


def test_overlapping_beats_cutting_blocks(monkeypatch):
    import training.model.patch_pca as module

    def decibels():
        codec = PatchPcaAutoencoder.fit(portraits(64, range(0, 48, 8)), channels=16)
        unseen = torch.cat(portraits(64, range(60, 64, 4)))
        return psnr_db(codec.decode(codec.encode(unseen)), unseen)

    lapped = decibels()
    monkeypatch.setattr(module, "lapping_matrix", lambda: torch.eye(8))
    assert lapped > decibels() + 0.1


def test_the_fit_is_the_same_every_time_and_in_any_order_of_the_clips():
    clips = portraits(64, range(0, 16, 8))
    one, same = (PatchPcaAutoencoder.fit(iter(clips), channels=8) for _ in range(2))
    assert one.digest == same.digest
    backwards = PatchPcaAutoencoder.fit(reversed(clips), channels=8)
    torch.testing.assert_close(one.encode(clips[0]), backwards.encode(clips[0]), atol=1e-4, rtol=1e-4)


def test_channel_weights_follow_the_root_of_what_a_channel_is_worth(codec):
    weights = codec.channel_weights
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close((weights[0] / weights[9]) ** 2, codec.std[0] / codec.std[9])


def test_what_is_saved_comes_back(codec, tmp_path):
    codec.save(tmp_path / "run" / "codec")
    loaded = PatchPcaAutoencoder.load(tmp_path / "run" / "codec")
    assert loaded.digest == codec.digest
    assert torch.equal(loaded.encode(clip(5, 64)), codec.encode(clip(5, 64)))
    assert loaded.latent_channels == 32


def test_results_have_the_dtype_of_what_was_given(codec):
    latents = codec.encode(clip(1, 64).bfloat16())
    assert latents.dtype == codec.decode(latents).dtype == torch.bfloat16


def test_a_codec_that_is_missing_damaged_or_of_another_version_is_named(codec, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"codec\.json is missing; PatchPcaAutoencoder\.fit"):
        PatchPcaAutoencoder.load(tmp_path)
    codec.save(tmp_path)
    about, weights = tmp_path / "codec.json", tmp_path / "codec.safetensors"
    said, stored = json.loads(about.read_text()), weights.read_bytes()

    about.write_text(json.dumps(said | {"schema_version": 2}))
    with pytest.raises(ValueError, match="schema version 2, this hallo3 reads 1"):
        PatchPcaAutoencoder.load(tmp_path)
    about.write_text(json.dumps(said | {"digest": "0" * 16}))
    with pytest.raises(ValueError, match="one was replaced"):
        PatchPcaAutoencoder.load(tmp_path)
    about.write_text("{")
    with pytest.raises(ValueError, match=r"codec\.json is damaged"):
        PatchPcaAutoencoder.load(tmp_path)
    about.write_text(json.dumps(said))
    weights.write_bytes(stored[:-8])
    with pytest.raises(ValueError, match=r"codec\.safetensors is damaged"):
        PatchPcaAutoencoder.load(tmp_path)


def test_clips_that_cannot_be_fitted_are_named():
    with pytest.raises(ValueError, match="clips: expected at least one clip"):
        PatchPcaAutoencoder.fit([])
    with pytest.raises(ValueError, match="vary in 0 directions only"):
        PatchPcaAutoencoder.fit([torch.zeros(1, 3, 5, 16, 16)])
    with pytest.raises(ValueError, match=r"channels: expected 1 \.\.\. 768, got 0"):
        PatchPcaAutoencoder.fit([clip(5, 16)], channels=0)
    with pytest.raises(ValueError, match=r"pixels: expected finite numbers .* got nan"):
        PatchPcaAutoencoder.fit([clip(5, 16) * torch.nan])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[0], r"pixels: expected \(B, 3, F, H, W\)"),
        (lambda x: x.to(torch.uint8), "pixels: expected floating numbers"),
        (lambda x: x + 100, "pixels: expected finite numbers in"),
        (lambda x: x[..., :12, :], "multiples of 8, got 12 x 64"),
        (lambda x: x[:, :, :4], "the nearest are 1 and 5"),
    ],
)
def test_pixels_that_cannot_be_encoded_are_named(codec, change, words):
    with pytest.raises(ValueError, match=words):
        codec.encode(change(clip(5, 64)))


def test_latents_of_another_channel_count_are_named(codec):
    with pytest.raises(ValueError, match=r"latents: expected \(B, T, 32, h, w\), got \(1, 2, 16, 8, 8\)"):
        codec.decode(torch.zeros(1, 2, 16, 8, 8))
