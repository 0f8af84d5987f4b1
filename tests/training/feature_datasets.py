"""Small datasets to compute features of: people of one second each, with a face's box in every frame."""

from pathlib import Path

import numpy as np

from data_pipeline.config_file import checked
from data_pipeline.dataset import Dataset
from data_pipeline.pack import pack
from tests.data_pipeline.packed import N_FRAMES, add_source, config_of, encoded, face, write_listing
from training.config import TrainConfig
from training.model.patch_pca import PatchPcaAutoencoder

CHANNELS = 8
MODEL = {"preset": "tiny", "latent_frames": 3, "latent_height": 4, "latent_width": 4}
"""32 x 32 pixels, 9 frames a window: three windows a clip at the stride below."""


def dataset_of(root: Path, people: int = 3, shard_mb: float = 250, broken: str | None = None) -> Dataset:
    """A dataset of so many people, a source and a clip each; `broken` is a suffix of the second's media."""
    names = [f"{person}.mp4" for person in range(1, people + 1)]
    for person, name in enumerate(names, start=1):
        media = encoded(root.parent / f"{root.name}-media" / str(person), person)
        arrays = {"boxes": np.tile(np.float32([0.25, 0.2, 0.75, 0.8]), (N_FRAMES, 1))}
        arrays |= {"landmarks": np.full((N_FRAMES, 5, 2), 0.5, np.float32), "identity": face(person)}
        np.savez(media / "clip.npz", **arrays, identity_backend="dlib")
        if broken and person == 2:
            (media / f"clip{broken}").write_bytes(b"no media" * 100)
        add_source(root, {person: media}, name, {"person": person})
    write_listing(root, *names)
    pack(config_of(root, f"pack.shard_mb={shard_mb}"))
    return Dataset.open(root)


def codec(folder: Path) -> str:
    """A fitted autoencoder; returns its folder."""
    import torch

    noise = torch.randn(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0))
    PatchPcaAutoencoder.fit([noise.clamp(-1, 1)], CHANNELS).save(folder)
    return str(folder)


def config(dataset: Path | str, autoencoder: str, *overrides: str) -> TrainConfig:
    """A run on it: log-mel, no text, windows of 9 frames, one every 8."""
    sizes = MODEL | {"out_channels": CHANNELS, "in_channels": 2 * CHANNELS}
    values = {"phase": "audio", "model": sizes, "dataset": str(dataset), "output": "run", "device": "cpu"}
    values["encoders"] = {"autoencoder": autoencoder, "speech": "log_mel"}
    values |= {"samples": {"window_stride": 8}, "ray": {"object_store_gb": 0.1}}
    return checked(TrainConfig, values, list(overrides), "run.yaml")
