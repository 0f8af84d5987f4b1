"""A model small enough for a test, with every part of it open, and inputs for it."""

from typing import Any

import torch
from torch import Tensor

from training.model import AudioConditionConfig, FaceConditionConfig, ModelConfig, PortraitModel

SIZES = ModelConfig(
    num_layers=2,
    num_heads=2,
    time_embed_dim=32,
    text_dim=8,
    text_length=4,
    latent_frames=3,
    latent_height=8,
    latent_width=8,
    audio=AudioConditionConfig(window=3, layers=2, channels=8, hidden=16, tokens=4, dim=16),
    face=FaceConditionConfig(embedding_dim=16, dim=16),
)


def sized(**changed: Any) -> ModelConfig:
    """SIZES with other settings."""
    return ModelConfig(**(SIZES.model_dump() | changed))


def filled_model(config: ModelConfig = SIZES) -> PortraitModel:
    """No gate closed, so that every part counts."""
    model = PortraitModel(config)
    for index, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    return model


def inputs(dtype: torch.dtype = torch.float32, batch: int = 2) -> dict[str, Tensor]:
    shapes = {
        "noisy": (batch, 3, 16, 8, 8),
        "image_condition": (batch, 3, 16, 8, 8),
        "portrait": (batch, 1, 16, 8, 8),
        "text": (batch, 4, 8),
        "face": (batch, 16),
        "audio": (batch, 9, 3, 2, 8),
    }
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def run(model: PortraitModel, given: dict[str, Tensor]) -> Tensor:
    """Both networks, one after the other."""
    rest = dict(given)
    bank = model.reference(rest.pop("portrait"), rest["text"])
    timesteps = torch.tensor([20, 700])[: len(given["text"])]
    return model.denoiser(timesteps=timesteps, reference=bank, **rest)
