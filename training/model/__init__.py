"""Hallo3's networks: a portrait and a voice condition a video diffusion transformer.

`ModelConfig` says the sizes; `PortraitModel(config)` holds `.reference`, which looks at the portrait once,
and `.denoiser`, which predicts the velocity of noisy latents. Read `block.py` first, then `backbone.py`,
`reference.py`, `denoiser.py`; docs/model.md is the picture of it.
"""

from training.model.config import PRESETS, AudioConditionConfig, FaceConditionConfig, ModelConfig
from training.model.loading import LoadReport, load_checkpoint, load_model
from training.model.portrait import PortraitModel

__all__ = [
    "PRESETS",
    "AudioConditionConfig",
    "FaceConditionConfig",
    "LoadReport",
    "ModelConfig",
    "PortraitModel",
    "load_checkpoint",
    "load_model",
]
