"""What a run's encoders are, and that what does not fit the model is told before anything is computed."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from data_pipeline.dataset import Dataset
from tests.filled import fill, golden_facts
from tests.training.feature_datasets import CHANNELS, codec, config, dataset_of
from training.clip_pixels import Framing
from training.config import EncodersConfig
from training.encoders import EncodersError, LogMel, fit_for_run, load_encoders
from training.features import ClipMedia, Latents
from training.model.autoencoder import CogVideoXAutoencoder
from training.model.config import PRESETS, AudioConditionConfig, ModelConfig
from training.model.patch_pca import PatchPcaAutoencoder

WAV2VEC = golden_facts("wav2vec/wav2vec")
SECOND = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A fitted codec, a small VAE of CogVideoX's, a small wav2vec 2.0."""
    root = tmp_path_factory.mktemp("encoders")
    sizes = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "layers_per_block": 1}
    with torch.no_grad():
        vae = fill(diffusers.AutoencoderKLCogVideoX(**sizes).eval(), gain=1.0)
        ear = fill(Wav2Vec2Model(Wav2Vec2Config(**WAV2VEC["config"])), WAV2VEC["gain"])
    vae.save_pretrained(root / "vae")
    ear.save_pretrained(root / "wav2vec")
    return {"codec": codec(root / "codec"), "vae": str(root / "vae"), "wav2vec": str(root / "wav2vec")}


def sizes(out_channels: int = CHANNELS, **audio: int) -> ModelConfig:
    heard = AudioConditionConfig(**({"layers": 4, "channels": 80} | audio))
    given = {"out_channels": out_channels, "in_channels": 2 * out_channels, "audio": heard}
    return ModelConfig(**(PRESETS["tiny"].model_dump() | given))


def test_the_autoencoder_is_what_lies_in_its_folder(folders) -> None:
    fitted = load_encoders(EncodersConfig(autoencoder=folders["codec"], speech="log_mel"), sizes())
    assert isinstance(fitted.autoencoder, PatchPcaAutoencoder)
    published = load_encoders(EncodersConfig(autoencoder=folders["vae"], speech="log_mel"), sizes(16))
    assert isinstance(published.autoencoder, CogVideoXAutoencoder)


def test_text_none_is_zeros_of_the_model_s_size(folders) -> None:
    found = load_encoders(EncodersConfig(autoencoder=folders["codec"], speech="log_mel"), sizes())
    assert found.text.encode(["words"]).shape == (1, 1, 16)


def test_a_model_that_hears_nothing_has_no_speech_encoder(folders) -> None:
    deaf = sizes().model_copy(update={"audio": None})
    assert load_encoders(EncodersConfig(autoencoder=folders["codec"]), deaf).speech is None


@pytest.mark.parametrize(
    ("name", "layers", "channels"), [("log_mel", 4, 80), ("whisper", 1, 384), ("wav2vec2", 3, 64)]
)
def test_speech_is_layers_of_channels_one_row_a_video_frame(folders, name, layers, channels) -> None:
    given = EncodersConfig(
        autoencoder=folders["codec"],
        speech=name,
        speech_weights=folders["wav2vec"] if name == "wav2vec2" else None,
    )
    found = load_encoders(given, sizes(layers=layers, channels=channels)).speech
    assert found is not None
    heard = found.encode(SECOND)
    assert (heard.shape, heard.dtype) == ((25, layers, channels), np.float32)
    assert (found.layers, found.channels) == (layers, channels)


def test_another_weight_is_another_digest(folders, tmp_path) -> None:
    model = Wav2Vec2Model.from_pretrained(folders["wav2vec"])
    with torch.no_grad():
        model.encoder.layers[0].attention.k_proj.bias[0] += 1e-3
    model.save_pretrained(tmp_path / "other")
    digests = [
        load_encoders(
            EncodersConfig(autoencoder=folders["codec"], speech_weights=str(folder)),
            sizes(layers=3, channels=64),
        ).speech.digest
        for folder in (folders["wav2vec"], folders["wav2vec"], tmp_path / "other")
    ]
    assert digests[0] == digests[1] != digests[2]
    assert len({*digests, LogMel().digest}) == 3


def test_latents_that_are_drawn_are_drawn_alike_each_time(folders, tmp_path) -> None:
    """CogVideoX's are samples of a posterior: of each window its own, whoever computes it."""
    dataset = dataset_of(tmp_path / "dataset", people=1)
    ((clip_id, _),) = dataset.places().items()
    members = {"." + name.partition(".")[2]: data for name, data in dataset.sample_of(clip_id).items()}
    autoencoder = CogVideoXAutoencoder.load(folders["vae"])
    maker = Latents(autoencoder, Framing(16, 16), frames=9, stride=16)
    first, again = ([*maker.arrays(ClipMedia(clip_id, 25, members))] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = next(maker.arrays(ClipMedia("00ff00ff00ff00ff", 25, members)))
    assert np.abs(first[0] - other).max() > 1e-3


@pytest.mark.parametrize(
    ("given", "model", "says"),
    [
        ({"autoencoder": ""}, {}, "encoders.autoencoder is empty: a run fits one on its dataset"),
        ({"autoencoder": "/nowhere"}, {}, "encoders.autoencoder: /nowhere: no such folder"),
        ({}, {"out_channels": 16}, "makes latents of 8 channels, the model has out_channels=16"),
        ({}, {"layers": 1}, "log_mel makes 4 layers of 80 channels, .* audio.layers=1 and audio.channels=80"),
        ({"text": "/nowhere"}, {}, "encoders.text: /nowhere: no such folder"),
        ({"speech": "wav2vec2", "speech_weights": "/nowhere"}, {}, "encoders.speech_weights: no wav2vec"),
        ({"speech_weights": "/nowhere"}, {}, "speech_weights are wav2vec2's; encoders.speech is log_mel"),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_told_by_its_key(folders, given, model, says) -> None:
    chosen = EncodersConfig(**({"autoencoder": folders["codec"], "speech": "log_mel"} | given))
    with pytest.raises(EncodersError, match=says):
        load_encoders(chosen, sizes(**model))


def test_a_run_without_an_autoencoder_gets_its_own_once(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "dataset", people=3)
    run = config(dataset.root, "", f"output={tmp_path / 'run'}")
    folder = fit_for_run(run, dataset)
    assert folder == tmp_path / "run" / "autoencoder"
    found = PatchPcaAutoencoder.load(folder)
    assert found.latent_channels == CHANNELS
    assert json.loads((folder / "fit.json").read_text())["held_out_clips"] == 1
    written = (folder / "codec.safetensors").stat().st_mtime_ns
    assert fit_for_run(run, dataset) == folder
    assert (folder / "codec.safetensors").stat().st_mtime_ns == written
    again = fit_for_run(config(dataset.root, "", f"output={tmp_path / 'other'}"), dataset)
    assert PatchPcaAutoencoder.load(again).digest == found.digest


def test_too_few_clips_to_fit_one_are_told_before_the_run(tmp_path: Path) -> None:
    dataset: Dataset = dataset_of(tmp_path / "dataset", people=1)
    run = config(dataset.root, "", f"output={tmp_path / 'run'}")
    with pytest.raises(EncodersError, match=r"none could be fitted on the dataset: .* keeps 1 clips"):
        fit_for_run(run, dataset)
    assert not (tmp_path / "run").exists() or not [*(tmp_path / "run").iterdir()]
