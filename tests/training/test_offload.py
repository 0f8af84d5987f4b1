"""Weights that stay in the host's memory: the same numbers, and at one time a layer's on the device.

Here host and device are the same; weights that are away are on the meta device, as on a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.model.test_autoencoder import tiny_vae
from tests.training.small_networks import filled_model, inputs
from training.model.autoencoder import CogVideoXAutoencoder
from training.model.portrait import PortraitModel
from training.offload import (
    OffloadedAutoencoder,
    largest_layer_bytes,
    offload_layers,
    offloaded_autoencoder,
    resident_bytes,
)


class Resident(TorchDispatchMode):
    """The most bytes of weights that are there at one time."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.most = model, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.most = max(self.most, there(self.model))
        return func(*args, **(kwargs or {}))


def there(model: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in model.parameters() if not weight.is_meta)


def sampled(model: PortraitModel) -> torch.Tensor:
    """As a video is made: once the reference, prepared conditions, another window's sound, a step."""
    given = inputs()
    with torch.no_grad():
        bank = model.reference(given["portrait"], given["text"])
        prepared = model.denoiser.prepare(
            given["text"], reference=bank, face=given["face"], audio=given["audio"]
        )
        prepared = model.denoiser.hearing(prepared, given["audio"].flip(1))
        return model.denoiser.denoise(
            given["noisy"], torch.tensor([20, 700]), given["image_condition"], prepared
        )


def test_offloaded_networks_give_the_same_numbers() -> None:
    wanted = sampled(filled_model())
    model = filled_model()
    offload_layers(model, "cpu")
    assert torch.equal(sampled(model), wanted)


def test_at_one_time_there_are_the_weights_that_stay_and_one_layer() -> None:
    model = filled_model()
    whole = there(model)
    stay = sum(resident_bytes(network) for network in (model.denoiser, model.reference))
    parts = (*model.denoiser.blocks, model.denoiser.audio_projector)
    layer = max(largest_layer_bytes(part) for part in parts)
    offload_layers(model, "cpu")
    tables = sum(
        table.nbytes for network in (model.denoiser, model.reference) for table in network.rotary.buffers()
    )
    with Resident(model) as found:
        sampled(model)
    assert found.most == stay - tables + layer
    assert found.most < whole / 4
    assert there(model) == stay - tables


def test_an_offloaded_autoencoder_is_there_while_it_is_called(monkeypatch) -> None:
    vae = tiny_vae()
    moved: list[str] = []
    monkeypatch.setattr(vae, "to", lambda device: moved.append(device))
    autoencoder = offloaded_autoencoder(CogVideoXAutoencoder(vae, sample=False), "cuda")
    assert isinstance(autoencoder, OffloadedAutoencoder)
    whole = CogVideoXAutoencoder(tiny_vae(), sample=False)
    pixels = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    latents = autoencoder.encode(pixels)
    assert torch.equal(latents, whole.encode(pixels))
    assert torch.equal(autoencoder.decode(latents), whole.decode(latents))
    assert moved == ["cuda", "cpu", "cuda", "cpu"]
    assert (autoencoder.digest, autoencoder.latent_channels) == (whole.digest, 16)
