"""Networks that are larger than the GPU: their weights stay in the host's memory.

    a layer's of the blocks and of the audio projector     on the device while that layer computes
    the autoencoder's, the speech encoder's                on the device while they are called
    the networks' rest: positions, tables, embeddings      on the device all the time

Numbers are the same as with everything on the device. Every pass of the denoiser fetches all of its blocks,
so this is slow: it is for GPUs on which nothing else fits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor, nn

from training.encoders import SpeechEncoder, Wav2Vec2Layers
from training.model.autoencoder import Autoencoder, CogVideoXAutoencoder
from training.model.backbone import Backbone
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.portrait import PortraitModel

OFFLOADED = ("blocks", "audio_projector")
"""Parts of a network whose weights come and go."""


def offload_layers(model: PortraitModel, device: str) -> None:
    """Make a model whose weights are in the host's memory compute on `device`.

    It is layers that accelerate's hooks wrap, not blocks, so a block may also be called by other methods than
    `forward`. Weights that are away are on the meta device."""
    for network in (model.denoiser, model.reference):
        for name, part in network.named_children():
            if name in OFFLOADED:
                _fetch_by_layer(part, device)
            else:
                part.to(device)
        network.positions.data = network.positions.data.to(device)


def _fetch_by_layer(part: nn.Module, device: str) -> None:
    from accelerate.hooks import attach_align_device_hook

    attach_align_device_hook(
        part, execution_device=torch.device(device), offload=True, weights_map=part.state_dict()
    )


def resident_bytes(network: Backbone) -> int:
    """Of a network's weights those that are on the device all the time."""
    parts = [part for name, part in network.named_children() if name not in OFFLOADED]
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    return sum(tensor.nbytes for tensor in (*tensors, network.positions))


def largest_layer_bytes(part: nn.Module) -> int:
    """The most that layers of an offloaded part have on the device at one time."""
    return max(sum(weight.nbytes for weight in layer.parameters(recurse=False)) for layer in part.modules())


def offloaded_autoencoder(autoencoder: Autoencoder, device: str) -> Autoencoder:
    """One that was loaded into the host's memory, to compute on `device`; a fitted codec is small and stays
    there."""
    if isinstance(autoencoder, CogVideoXAutoencoder):
        return OffloadedAutoencoder(autoencoder, device)
    return autoencoder.to(device) if isinstance(autoencoder, PatchPcaAutoencoder) else autoencoder


def offloaded_speech(speech: SpeechEncoder, device: str) -> SpeechEncoder:
    """As `offloaded_autoencoder`; those that have few weights or none hear on the CPU anyway."""
    return OffloadedSpeech(speech, device) if isinstance(speech, Wav2Vec2Layers) else speech


class OffloadedAutoencoder:
    """Its weights are on the device while it is called, else in the host's memory."""

    def __init__(self, autoencoder: CogVideoXAutoencoder, device: str) -> None:
        self._autoencoder, self._device = autoencoder, device

    @property
    def latent_channels(self) -> int:
        return self._autoencoder.latent_channels

    @property
    def digest(self) -> str:
        return self._autoencoder.digest

    def encode(self, pixels: Tensor, generator: Generator | None = None) -> Tensor:
        with _on(self._device, self._autoencoder.vae):
            return self._autoencoder.encode(pixels, generator)

    def decode(self, latents: Tensor) -> Tensor:
        with _on(self._device, self._autoencoder.vae):
            return self._autoencoder.decode(latents)


class OffloadedSpeech:
    """Its weights are on the device while it hears, else in the host's memory."""

    def __init__(self, speech: Wav2Vec2Layers, device: str) -> None:
        self._speech, self._device = speech, device

    @property
    def layers(self) -> int:
        return self._speech.layers

    @property
    def channels(self) -> int:
        return self._speech.channels

    @property
    def digest(self) -> str:
        return self._speech.digest

    def encode(self, wav: np.ndarray, fps: float = 25) -> np.ndarray:
        with _on(self._device, self._speech.model):
            return self._speech.encode(wav, fps)


@contextmanager
def _on(device: str, weights: nn.Module) -> Iterator[None]:
    weights.to(device)
    try:
        yield
    finally:
        weights.to("cpu")
