"""How a model is set up to make videos, beside how it samples: size and rate of the frames, and the memory.

What changes the frames is told in the video (`about`). Offloading changes nothing of them: a video that was
begun without it goes on with it.
"""

from dataclasses import dataclass
from typing import Any

import torch

from training.config import EncodersConfig
from training.encoders import SpeechEncoder, load_autoencoder, load_speech
from training.features import FPS
from training.frame_size import Size, trained_size
from training.model.autoencoder import Autoencoder
from training.model.config import ModelConfig
from training.model.loading import empty_model, load_checkpoint
from training.model.portrait import PortraitModel
from training.model.weight_files import Checkpoint
from training.offload import offload_layers, offloaded_autoencoder, offloaded_speech


@dataclass(frozen=True)
class Setup:
    """See the head of this file."""

    size: Size | None = None
    """Of the model's frames; None: as it was trained."""
    fps: int = FPS
    """Of the video: each frame hears the sound at its time, so lips are in sync at any rate. The model knows
    movements of 25 frames a second: the head's are fps / 25 times as fast."""
    tile: Size | None = None
    """In which the autoencoder computes (CogVideoXAutoencoder); None: whole frames."""
    offload: bool = False
    """Weights in the host's memory, and on the device while they are used (offload.py)."""

    def networks(self, checkpoint: Checkpoint, sizes: ModelConfig, device: str) -> PortraitModel:
        """In evaluation mode, bf16 for a GPU. Raises WeightsError."""
        model = empty_model(sizes)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        load_checkpoint(model, checkpoint, dtype, self._home(device), may_initialise=())
        if self.offload:
            offload_layers(model, device)
        return model.eval()

    def autoencoder(self, encoders: EncodersConfig, sizes: ModelConfig, device: str) -> Autoencoder:
        """Raises EncodersError."""
        found = load_autoencoder(encoders, sizes, self._home(device), self.tile)
        return offloaded_autoencoder(found, device) if self.offload else found

    def speech(self, encoders: EncodersConfig, sizes: ModelConfig, device: str) -> SpeechEncoder:
        """Raises EncodersError."""
        found = load_speech(encoders, sizes, self._home(device))
        return offloaded_speech(found, device) if self.offload else found

    def about(self, sizes: ModelConfig) -> dict[str, Any]:
        """What of this the frames follow from."""
        size = self.size or trained_size(sizes)
        return {"size": list(size), "fps": self.fps, "tile": None if self.tile is None else list(self.tile)}

    def _home(self, device: str) -> str:
        """Where weights are when nobody uses them."""
        return "cpu" if self.offload else device
