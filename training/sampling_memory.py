"""What a GPU holds while videos are made, moment by moment, before there is a GPU.

    speech       the speech encoder hears a minute
    prompt       the text encoder reads
    conditions   keys and values are made: of the reference network's features, of face and speech
    denoising    a pass of the denoiser: guidance's batch of two, or one sample
    decoding     a window's latents become pixels: whole, or in tiles

and in each of them

    weights          of the networks in bf16: all; offloaded: those that stay, and one layer
    encoders         autoencoder and speech encoder; offloaded: the one in use
    keys and values  of every block, from the first window on
    activations      what the moment makes and nobody needs afterwards
    reserve          the GPU's context, the allocator's gaps

Activations are counted, not estimated: networks and autoencoder run on sizes without memory
(live_bytes.py), one block standing for all. What takes less is not listed: the reference network (one frame,
where the denoiser has many) and encoding (three frames, where decoding has a window's).
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from training.config import EncodersConfig
from training.frame_size import Size
from training.live_bytes import bytes_of, peak_bytes
from training.memory_plan import AUTOENCODER_BYTES, CONTEXT_BYTES, GAPS, T5_BYTES, WAV2VEC2_BYTES
from training.model.autoencoder import SPATIAL_STRIDE, pixel_frames
from training.model.config import ModelConfig
from training.model.denoiser import PreparedConditions
from training.model.loading import empty_model
from training.model.patch_pca import PATCH_SIZE, from_patches
from training.model.portrait import PortraitModel
from training.offload import largest_layer_bytes, resident_bytes

PRECISION = torch.bfloat16
HALVES = 2
"""Of guidance's batch."""
HEARD_S = 60
CONVOLVED_BYTES_A_SECOND = 2 * 3200 * 512 * 4
"""Of wav2vec 2.0's first layer in float32, before its norm and behind it: the most that hearing holds."""
TILE_STEP = 0.75
"""Of a tile's side: neighbours share a quarter."""

Moments = dict[str, dict[str, float]]
"""Bytes, by moment and part."""


@dataclass(frozen=True)
class Ways:
    """How videos are made, as far as memory depends on it."""

    two_passes: bool = False
    tile: Size | None = None
    offload: bool = False


def moments(config: ModelConfig, encoders: EncodersConfig, ways: Ways, size: Size) -> Moments:
    """Of a model with an audio part, whose configuration is for frames of this size (`for_frames`)."""
    one = one_block(config)
    block = largest_layer_bytes(one.denoiser.blocks[0])
    layer = max(block, largest_layer_bytes(one.denoiser.audio_projector))
    stay = resident_bytes(one.denoiser) + resident_bytes(one.reference)
    kept, preparing = conditions_bytes(config, size)
    denoising = denoising_bytes(config, size, 1 if ways.two_passes else HALVES)
    decoding = decoding_bytes(config, is_fitted(encoders), size, ways.tile)
    beside = Beside.of(encoders)
    # by moment: the layer and the encoder in use; keys and values; activations
    needed = {
        "speech": (0, beside.speech, 0, HEARD_S * CONVOLVED_BYTES_A_SECOND),
        "prompt": (0, beside.text, 0, 0),
        "conditions": (layer, 0, kept, preparing),
        "denoising": (block, 0, kept, denoising),
        "decoding": (0, beside.autoencoder, kept, decoding),
    }
    found: Moments = {}
    for name, (fetched, encoder, keys_values, activations) in needed.items():
        if name in ("speech", "prompt") and not encoder:
            continue
        waiting = beside.speech + beside.autoencoder + (beside.text if name == "prompt" else 0)
        found[name] = {
            "weights": stay + fetched if ways.offload else weights_bytes(config),
            "encoders": encoder if ways.offload else waiting,
            "keys and values": keys_values,
            "activations": activations,
            "reserve": CONTEXT_BYTES + GAPS * activations,
        }
    return found


@dataclass(frozen=True)
class Beside:
    """Bytes of the frozen models' weights; what is small or hears on the CPU counts as nothing."""

    speech: int
    text: int
    """Loaded for a prompt alone, and let go of."""
    autoencoder: int

    @classmethod
    def of(cls, encoders: EncodersConfig) -> Self:
        return cls(
            WAV2VEC2_BYTES if encoders.speech == "wav2vec2" else 0,
            T5_BYTES if encoders.text != "none" else 0,
            0 if is_fitted(encoders) else AUTOENCODER_BYTES,
        )


def is_fitted(encoders: EncodersConfig) -> bool:
    """Whether the autoencoder is a run's own; else it is CogVideoX's, taken to be of the published size."""
    folder = encoders.autoencoder
    return not folder or (Path(folder).expanduser() / "codec.json").is_file()


@cache
def weights_bytes(config: ModelConfig) -> int:
    """Of both networks."""
    return PRECISION.itemsize * sum(weight.numel() for weight in empty_model(config).parameters())


@cache
def one_block(config: ModelConfig) -> PortraitModel:
    """The model with one block, without memory."""
    model = empty_model(config.model_copy(update={"num_layers": 1}))
    for weight in model.parameters():
        weight.data = weight.data.to(PRECISION)  # tables stay float32
    return model


@cache
def conditions_bytes(config: ModelConfig, size: Size) -> tuple[int, int]:
    """Keys and values of all blocks, and what there is beside them while they are made: for the first window
    the reference network's features, for each further one the keys and values of what the last one heard."""
    make = partial(_prepared, config, size, HALVES)
    prepared = make()
    hear = partial(one_block(config).denoiser.hearing, prepared, _heard(config))
    of_block, of_sound = (bytes_of(tree_leaves(each)) for each in (prepared.blocks, prepared.blocks[0].audio))
    layers = config.num_layers
    kept = layers * of_block
    first = layers * _feature(config, size).nbytes + max(peak_bytes(make), kept)
    further = kept + max(peak_bytes(hear), layers * of_sound)
    return kept, max(first, further) - kept


@cache
def denoising_bytes(config: ModelConfig, size: Size, batch: int) -> int:
    """Of a pass, beside weights and keys and values."""
    latents = _shaped(batch, config.latent_frames, config.out_channels, *_latent(size))
    timesteps = torch.empty(batch, device="meta")
    prepared = _prepared(config, size, batch)
    return peak_bytes(lambda: one_block(config).denoiser.denoise(latents, timesteps, latents, prepared))


@cache
def decoding_bytes(config: ModelConfig, fitted: bool, size: Size, tile: Size | None) -> int:
    """Of a window, beside the autoencoder's weights."""
    if fitted:
        return peak_bytes(partial(_decode_fitted, config, size))
    from diffusers import AutoencoderKLCogVideoX

    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX()
    return vae_bytes(vae, config.latent_frames, size, tile)


def vae_bytes(vae: Any, latent_frames: int, size: Size, tile: Size | None) -> int:
    """As CogVideoXAutoencoder.decode calls it. Of the tiles, which are many, one is run."""
    height, width = size
    frames = latent_frames + (latent_frames % 2 == 0)
    tile_height, tile_width = (height, width) if tile is None else (min(tile[0], height), min(tile[1], width))
    latents = torch.empty(
        1, vae.config.latent_channels, frames, *_latent((tile_height, tile_width)), device="meta"
    )
    one = peak_bytes(lambda: vae.decode(latents))
    if (tile_height, tile_width) == size:
        return one
    rows, columns = (
        [min(part, side - at) for at in range(0, side, int(TILE_STEP * part))]
        for side, part in ((height, tile_height), (width, tile_width))
    )
    a_pixel = 3 * pixel_frames(frames) * 4
    tiles = sum(rows) * sum(columns) * a_pixel
    last = tiles - tile_height * tile_width * a_pixel + one
    return max(last, tiles + 2 * height * width * a_pixel)  # joined to rows, and those to frames


def _decode_fitted(config: ModelConfig, size: Size) -> Tensor:
    """What PatchPcaAutoencoder.decode does, whose checks look at numbers."""
    latents = torch.empty(1, config.latent_frames, *_latent(size), config.out_channels, device="meta")
    patches = latents @ latents.new_empty(config.out_channels, PATCH_SIZE) + latents.new_empty(PATCH_SIZE)
    return from_patches(patches, latents.new_empty(SPATIAL_STRIDE, SPATIAL_STRIDE))


@torch.no_grad()
def _prepared(config: ModelConfig, size: Size, batch: int) -> PreparedConditions:
    """One block's conditions."""
    text = _shaped(batch, config.text_length, config.text_dim)
    face = _shaped(1, config.face.embedding_dim)
    audio = _heard(config)[:batch]
    return one_block(config).denoiser.prepare(
        text, reference=[_feature(config, size)], face=face, audio=audio
    )


def _heard(config: ModelConfig) -> Tensor:
    """By a window, of both halves."""
    audio = config.audio
    if audio is None:
        raise ValueError("the model has no audio part")
    return _shaped(HALVES, config.num_frames, audio.window, audio.layers, audio.channels)


def _feature(config: ModelConfig, size: Size) -> Tensor:
    """Of the reference network, for one block."""
    rows, columns = (side // config.patch_size for side in _latent(size))
    return _shaped(1, rows * columns, config.hidden_size)


def _latent(size: Size) -> Size:
    return size[0] // SPATIAL_STRIDE, size[1] // SPATIAL_STRIDE


def _shaped(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=PRECISION, device="meta")
