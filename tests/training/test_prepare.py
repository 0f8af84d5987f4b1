"""What is wrong with a run is told before it begins: all of it at once, with the way out."""

import shutil
from pathlib import Path

import pytest
import torch

from data_pipeline.dataset import Dataset
from tests.training.feature_datasets import codec, config, dataset_of
from training import prepare
from training.config import TrainConfig
from training.model.loading import empty_model

FACE = "model.face.embedding_dim=4"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return dataset_of(tmp_path_factory.mktemp("prepare") / "dataset", people=2)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> str:
    return codec(tmp_path_factory.mktemp("prepare") / "codec")


@pytest.fixture
def run(dataset, autoencoder, tmp_path):
    def made(*overrides: str) -> TrainConfig:
        return config(dataset.root, autoencoder, f"output={tmp_path / 'run'}", "trainable=all", *overrides)

    return made


def problems(given: TrainConfig) -> str:
    with pytest.raises(prepare.PrepareError) as refused:
        prepare.prepare(given)
    return str(refused.value)


def test_a_run_with_nothing_wrong_passes(run) -> None:
    prepare.prepare(run())


@pytest.mark.parametrize("trainable", ["phase", "lora"])
def test_a_part_of_a_model_that_has_learned_nothing_is_not_trained(run, trainable) -> None:
    assert f"start_from is empty and trainable={trainable}" in problems(run(f"trainable={trainable}"))


def test_everything_that_is_wrong_is_told_at_once(run) -> None:
    said = problems(run("samples.split=test", "model.out_channels=4", "model.in_channels=8", "device=cuda"))
    assert "samples.split:" in said
    assert "has no clip in 'test'; it has train" in said
    assert "makes latents of 8 channels, the model has out_channels=4" in said
    assert "device=cuda: PyTorch sees no GPU here" in said
    assert len(said.splitlines()) == 3


def test_a_dataset_that_is_not_there_is_named(run, tmp_path) -> None:
    assert f"{tmp_path}/nowhere is no dataset" in problems(run(f"dataset={tmp_path}/nowhere"))


def test_clips_that_are_not_in_the_dataset_are_named(run) -> None:
    assert "has no clip abc in 'train'" in problems(run("samples.clips=[abc]"))


def test_clips_shorter_than_a_window_are_told(run) -> None:
    assert "has 25 frames, a window of the model 49" in problems(run("model.latent_frames=13"))


def test_faces_of_another_size_than_the_models_are_told(run) -> None:
    said = problems(run("model.face.embedding_dim=99"))
    assert "the model takes 99 numbers of a face" in said
    assert "give model.face.embedding_dim=" in said


def test_features_that_must_be_stored_and_are_not_are_told_with_the_command(run) -> None:
    said = problems(run("samples.features=stored"))
    assert "has no latents of these encoders" in said
    assert "has no speech of these encoders" in said
    assert "hallo3 dataset precompute" in said


def test_weights_of_another_model_are_refused_by_their_shapes_alone(run, tmp_path) -> None:
    from safetensors.torch import save_file

    model = empty_model(run("model.num_layers=1").sizes).to_empty(device="cpu")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    said = problems(run(f"start_from={tmp_path / 'model.safetensors'}"))
    assert "start_from:" in said
    assert "num_layers 1 (model: 4)" in said
    assert "start_from:" in problems(run(f"start_from={tmp_path / 'nothing'}"))


def test_more_workers_than_this_machine_has_cpus_are_told(run) -> None:
    said = problems(run("num_workers=64", "batch=64"))
    assert "num_workers=64 x ray.cpus=1" in said
    prepare.prepare(run("num_workers=64", "batch=64"), on_a_cluster=True)


def test_heads_that_cannot_be_shared_are_told(run) -> None:
    assert "must divide the model's 2 heads" in problems(
        run("num_workers=4", "sequence_parallel=4", "ray.cpus=0.5")
    )


def test_a_disk_without_room_for_a_checkpoint_is_told(run, monkeypatch) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match="a checkpoint and the export take") as refused:
        prepare.prepare(run())
    assert refused.value.filename.endswith("run")


def test_a_checkpoint_is_what_is_trained_and_what_adamw_keeps_of_it_the_export_is_all(run) -> None:
    given = run("trainable=all", "precision=fp32")
    n = sum(parameter.numel() for parameter in empty_model(given.sizes).parameters())
    assert prepare.checkpoint_bytes(given) == 12 * n
    assert prepare.checkpoint_bytes(run("trainable=all", "optimizer.ema_decay=0.99")) == 16 * n
    assert prepare.checkpoint_bytes(run("trainable=phase")) < 12 * n
    assert prepare.export_bytes(given) == 4 * n
    assert prepare.export_bytes(run("trainable=phase", "precision=bf16")) == 2 * n


def test_an_output_that_is_a_file_is_named(run, tmp_path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(FileExistsError, match="run"):
        prepare.prepare(run())


def test_a_run_without_an_autoencoder_gets_its_own(run, tmp_path) -> None:
    given = run("encoders.autoencoder=''")
    ready = prepare.ready(given)
    assert ready.encoders.autoencoder == str(tmp_path / "run" / "autoencoder")
    assert prepare.ready(given) == ready
    assert torch.cuda.is_available() or prepare.device_of(given, 0) == "cpu"


def test_text_encoders_are_judged_by_their_configuration(run, tmp_path) -> None:
    from transformers import T5Config

    T5Config(d_model=24).save_pretrained(Path(tmp_path / "t5"))
    assert "makes embeddings of 24, the model has text_dim=16" in problems(
        run(f"encoders.text={tmp_path / 't5'}")
    )
