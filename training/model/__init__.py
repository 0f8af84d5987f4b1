"""Hallo3's networks: a portrait and a voice condition a video diffusion transformer.

`ModelConfig` says the sizes; `PortraitModel(config)` holds `.reference`, which looks at the portrait once,
and `.denoiser`, which predicts the velocity of noisy latents. Read `block.py` first, then `backbone.py`,
`reference.py`, `denoiser.py`; docs/model.md is the picture of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from training.model.config import PRESETS, AudioConditionConfig, FaceConditionConfig, ModelConfig

if TYPE_CHECKING:
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

_NEEDS_TORCH = {"PortraitModel": "portrait", "LoadReport": "loading"} | dict.fromkeys(
    ("load_checkpoint", "load_model"), "loading"
)
"""Imported when they are asked for: a command checks its configuration before torch is imported."""


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)
