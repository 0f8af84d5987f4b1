"""An export of a small model with every gate open, as `hallo3 train` writes it."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.training.small_networks import filled_model, sized
from training.model import AudioConditionConfig, FaceConditionConfig
from training.model.patch_pca import PatchPcaAutoencoder

HEARS = AudioConditionConfig(window=3, layers=4, channels=80, hidden=16, tokens=4, dim=16)
FACE = FaceConditionConfig(embedding_dim=128, dim=16)
TRAINED = {
    "config": {"encoders": {"text": "none", "speech": "log_mel"}, "conditions": {"masked_pixels": 0.0}}
}


def write_export(folder: Path, phase: str = "audio") -> Path:
    """64 x 64 px, windows of 9 frames."""
    sizes = sized(face=FACE.model_dump(), audio=HEARS.model_dump() if phase == "audio" else None)
    folder.mkdir(parents=True)
    save_file(filled_model(sizes).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(sizes.model_dump(mode="json") | {"training": TRAINED}))
    noise = torch.randn(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    PatchPcaAutoencoder.fit([noise], channels=16).save(folder / "autoencoder")
    return folder
