"""Planned bytes of making videos against those that tensors really take, and what makes it fit."""

from dataclasses import replace
from functools import partial

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers import Wav2Vec2Config, Wav2Vec2Model

from data_pipeline.models import wav2vec2
from tests.training.model.test_autoencoder import tiny_vae
from tests.training.planned import PeakOfLive
from tests.training.small_networks import filled_model
from training.config import EncodersConfig, load_config
from training.frame_size import Size, for_frames
from training.generate import Generator, Portrait, Sampling
from training.live_bytes import bytes_of
from training.memory_plan import AUTOENCODER_BYTES, T5_BYTES
from training.model.autoencoder import CogVideoXAutoencoder
from training.model.config import PRESETS, ModelConfig
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.portrait import PortraitModel
from training.offload import largest_layer_bytes, resident_bytes
from training.plan import GPUS, Gpu
from training.sampling_memory import (
    CONVOLVED_BYTES_A_SECOND,
    Ways,
    conditions_bytes,
    decoding_bytes,
    denoising_bytes,
    moments,
    vae_bytes,
    weights_bytes,
)
from training.sampling_plan import COARSE, FINE, SamplingPlan, from_cheapest, sampling_plan

TINY = PRESETS["tiny"].model_copy(update={"latent_height": 16, "latent_width": 16})
SIZE = 128, 128
FITTED = EncodersConfig(speech="log_mel")
NOTHING = Ways()


def random(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16()


def conditions(config: ModelConfig, size: Size, batch: int) -> dict[str, object]:
    patches = size[0] * size[1] // 64 // config.patch_size**2
    audio = config.audio
    return {
        "text": random(batch, config.text_length, config.text_dim),
        "reference": [random(1, patches, config.hidden_size) for _ in range(config.num_layers)],
        "face": random(1, config.face.embedding_dim),
        "audio": random(batch, config.num_frames, audio.window, audio.layers, audio.channels),
    }


def peak_of(work) -> int:
    with torch.no_grad(), PeakOfLive() as found:
        work()
    return found.peak


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [SIZE, (96, 160)], ids=["own size", "another"])
def test_a_pass_holds_what_is_planned(size, batch) -> None:
    config = for_frames(TINY, size)
    denoiser = filled_model(config).bfloat16().denoiser
    with torch.no_grad():
        prepared = denoiser.prepare(**conditions(config, size, batch))
    latents = random(batch, config.latent_frames, config.out_channels, size[0] // 8, size[1] // 8)
    found = peak_of(lambda: denoiser.denoise(latents, torch.zeros(batch), latents, prepared))
    planned = denoising_bytes(config, size, batch)
    print(f"a pass of {batch} at {size}: {found} bytes found, {planned / found:.3f} of it planned")
    assert planned == pytest.approx(found, rel=0.02)


def test_keys_and_values_take_what_is_planned_and_so_does_their_making() -> None:
    denoiser = filled_model(TINY).bfloat16().denoiser
    given = conditions(TINY, SIZE, batch=2)
    features = sum(feature.nbytes for feature in given["reference"])
    with torch.no_grad():
        prepared = denoiser.prepare(**given)
    kept, making = conditions_bytes(TINY, SIZE)
    assert kept == bytes_of(tree_leaves(prepared.blocks))
    first = features + peak_of(lambda: denoiser.prepare(**given))
    further = kept + peak_of(lambda: denoiser.hearing(prepared, given["audio"]))
    print(f"conditions: {(kept + making) / max(first, further):.3f} of what was found is planned")
    assert kept + making == pytest.approx(max(first, further), rel=0.05)


def test_the_weights_are_those_of_the_model_and_offloaded_those_that_stay_with_one_layer() -> None:
    model = filled_model(TINY).bfloat16()
    assert weights_bytes(TINY) == sum(weight.nbytes for weight in model.parameters())
    stay = sum(resident_bytes(network) for network in (model.denoiser, model.reference))
    layer = largest_layer_bytes(model.denoiser.blocks[0])
    planned = moments(TINY, FITTED, Ways(offload=True), SIZE)
    assert planned["denoising"]["weights"] == stay + layer
    assert planned["decoding"]["weights"] == stay


@pytest.mark.parametrize("tile", [None, (32, 64), pytest.param((64, 64), marks=pytest.mark.slow)])
def test_a_window_is_decoded_in_what_is_planned(tile) -> None:
    vae = tiny_vae()
    with torch.device("meta"):
        empty = diffusers.AutoencoderKLCogVideoX.from_config(vae.config)
    latents = torch.randn(1, 4, 16, 8, 8)
    found = peak_of(partial(CogVideoXAutoencoder(vae, tile_px=tile).decode, latents))
    planned = vae_bytes(empty, 4, (64, 64), tile)
    print(f"decoding in tiles of {tile}: {found} bytes found, {planned / found:.3f} of it planned")
    assert planned == pytest.approx(found, rel=0.05)


def test_what_is_not_listed_takes_less() -> None:
    model = filled_model(TINY).bfloat16()
    latent, text = random(1, 1, 32, 16, 16), random(1, TINY.text_length, TINY.text_dim)
    assert peak_of(lambda: model.reference(latent, text)) < denoising_bytes(TINY, SIZE, 1)
    autoencoder = CogVideoXAutoencoder(tiny_vae())
    decoding = peak_of(lambda: autoencoder.decode(torch.randn(1, 3, 16, 4, 4)))
    assert peak_of(lambda: autoencoder.encode(torch.zeros(1, 3, 3, 32, 32))) < decoding


def test_a_sound_is_heard_in_what_is_planned() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    narrow = Wav2Vec2Model(Wav2Vec2Config(conv_dim=(32,) * 7, **sizes)).eval()
    found = peak_of(
        lambda: wav2vec2.speech_features(narrow, np.random.default_rng(0).normal(0, 0.1, 4 * 16_000))
    )
    planned = 4 * CONVOLVED_BYTES_A_SECOND * 32 / 512
    assert planned == pytest.approx(found, rel=0.05)


def codec(config: ModelConfig) -> PatchPcaAutoencoder:
    clip = torch.randn(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return PatchPcaAutoencoder.fit([clip], channels=config.out_channels)


def test_a_fitted_autoencoder_decodes_in_what_is_planned() -> None:
    fitted = codec(TINY)
    found = peak_of(lambda: fitted.decode(torch.randn(1, TINY.latent_frames, TINY.out_channels, 16, 16)))
    assert decoding_bytes(TINY, True, SIZE, None) == pytest.approx(found, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("two_passes", [False, True])
def test_a_window_of_a_video_holds_at_the_most_what_is_planned(two_passes) -> None:
    config = TINY.model_copy(update={"num_heads": 12, "num_layers": 1})
    model: PortraitModel = filled_model(config).bfloat16().eval()
    generator = Generator(model, codec(config), Sampling(1, 3.5, two_passes=two_passes))
    face = Portrait(
        torch.zeros(128, 128, 3, dtype=torch.uint8).numpy(), (0.2, 0.2, 0.8, 0.8), torch.ones(128).numpy()
    )
    speech = torch.randn(generator.new_frames, TINY.audio.layers, TINY.audio.channels)
    found = peak_of(lambda: [*generator.frames(face, speech)])
    planned = moments(config, FITTED, Ways(two_passes), SIZE)
    most = max(parts["keys and values"] + parts["activations"] for parts in planned.values())
    print(f"a window, two passes {two_passes}: {found} bytes found, {most / found:.3f} of it planned")
    assert most == pytest.approx(found, rel=0.15)


@pytest.fixture(scope="module")
def full():
    return load_config("hallo3_5b_audio", ["dataset=data", "output=run"])


def planned(config, gb: float, ways: Ways = NOTHING) -> SamplingPlan:
    return sampling_plan(config.sizes, config.encoders, replace(GPUS["h100"], gb=gb), ways)


def test_the_published_sizes_are_those_of_the_autoencoder_that_is_run() -> None:
    with torch.device("meta"):
        vae = diffusers.AutoencoderKLCogVideoX()
    assert sum(weight.numel() for weight in vae.parameters()) * 4 == AUTOENCODER_BYTES


@pytest.mark.parametrize(
    ("gb", "change"),
    [(80, NOTHING), (48, Ways(tile=COARSE)), (24, Ways(tile=COARSE, offload=True)), (8, None)],
)
def test_the_full_model_fits_with_the_cheapest_flags(full, gb, change) -> None:
    made = planned(full, gb)
    assert made.change == change
    assert made.fits == (gb == 80)
    if change is not None:
        assert planned(full, gb, change).fits


def test_nothing_cheaper_than_what_is_named_would_fit(full) -> None:
    ways = [*from_cheapest(NOTHING, fitted=False)]
    chosen = planned(full, 24).change
    assert not any(planned(full, 24, cheaper).fits for cheaper in ways[: ways.index(chosen)])


def test_what_was_asked_for_stays_in_what_is_named() -> None:
    given = Ways(two_passes=True, tile=(192, 256))
    ways = [*from_cheapest(given, fitted=False)]
    assert ways[0] == given
    assert all(each.two_passes and each.tile in ((192, 256), FINE) for each in ways)
    assert {each.tile for each in from_cheapest(NOTHING, fitted=True)} == {None}


def test_a_prompt_is_read_beside_the_networks_unless_they_are_offloaded(full) -> None:
    there, away = (planned(full, 80, Ways(offload=offload)).moments["prompt"] for offload in (False, True))
    assert there["weights"] + there["encoders"] > 2 * away["weights"] + T5_BYTES
    assert away["encoders"] == T5_BYTES
    wordless = full.encoders.model_copy(update={"text": "none"})
    assert "prompt" not in sampling_plan(full.sizes, wordless, GPUS["h100"], NOTHING).moments


def test_a_smaller_size_takes_less(full) -> None:
    small = sampling_plan(full.sizes, full.encoders, GPUS["h100"], NOTHING, (240, 352))
    whole = planned(full, 80)
    for name in ("denoising", "decoding"):
        assert 3 < whole.moments[name]["activations"] / small.moments[name]["activations"] < 6


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"config": PRESETS["tiny"].model_copy(update={"audio": None})}, "no audio part"),
        ({"size": (100, 64)}, "100x64: .* multiples of 8 px; the nearest is 96x64"),
        ({"ways": Ways(tile=(32, 32))}, "a fitted autoencoder knows no tiles"),
    ],
)
def test_what_cannot_be_is_named(changed, words) -> None:
    given = {"config": PRESETS["tiny"], "encoders": FITTED, "gpu": Gpu(24, 1, 1), "ways": NOTHING}
    with pytest.raises(ValueError, match=words):
        sampling_plan(**(given | changed))
