"""An autoencoder from a dataset: made of most of its clips, judged on the others."""

from pathlib import Path

import pytest
import torch

from data_pipeline.dataset import Dataset
from data_pipeline.pack import pack
from tests.data_pipeline.packed import add_source, config_of, encoded, write_listing
from training.fit_autoencoder import fit_autoencoder
from training.model.patch_pca import PatchPcaAutoencoder


def dataset_of(root: Path, media: Path, people: int) -> Dataset:
    files = {person: encoded(media / str(person), person) for person in range(1, people + 1)}
    names = [f"{person}.mp4" for person in files]
    for person, name in zip(files, names, strict=True):
        add_source(root, files, name, {"person": person})
    write_listing(root, *names)
    pack(config_of(root))
    return Dataset.open(root)


def test_it_is_fitted_on_most_clips_and_judged_on_the_others(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "dataset", tmp_path / "media", people=3)
    fit = fit_autoencoder(dataset, size_px=32, channels=16)
    assert (fit.fitted_clips, fit.held_out_clips) == (2, 1)
    assert fit.fitted_psnr_db > 20
    assert fit_autoencoder(dataset, size_px=32, channels=48).fitted_psnr_db > fit.fitted_psnr_db
    fit.autoencoder.save(tmp_path / "codec")
    again = PatchPcaAutoencoder.load(tmp_path / "codec")
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    torch.testing.assert_close(again.encode(pixels), fit.autoencoder.encode(pixels), rtol=0, atol=0)


def test_the_same_dataset_gives_the_same_autoencoder(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "dataset", tmp_path / "media", people=2)
    first, second = (fit_autoencoder(dataset, size_px=32, channels=8) for _ in range(2))
    assert first.autoencoder.digest == second.autoencoder.digest
    assert first.held_out_psnr_db == second.held_out_psnr_db


def test_one_clip_is_too_few(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "dataset", tmp_path / "media", people=1)
    with pytest.raises(ValueError, match="keeps 1 clips, expected 2 or more, as one is held out"):
        fit_autoencoder(dataset, size_px=32, channels=8)
