"""A run's model as others get it: loaded, gone on with, and with its origin beside it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import save_torch_state_dict

from tests.training.engine_run import alone, small_config, take_steps
from tests.training.little_room import files_of_at_most
from tests.training.small_networks import SIZES, filled_model
from training import export as export_module
from training.checkpoint import CheckpointError, TrainState, read_weights, save
from training.config import TrainConfig
from training.diffusion import ZeroSnrSchedule
from training.engine import start_engine
from training.export import export, write_untrained
from training.metrics import MetricsLog
from training.model import ModelConfig, PortraitModel, load_model
from training.model.patch_pca import PatchPcaAutoencoder
from training.objective import TrainingObjective
from training.start_model import start_model

DATA = {
    "uri": "/data/talks",
    "name": "talks",
    "version": 3,
    "digest": "0123456789abcdef",
    "weight": 1.0,
    "clips": 8,
    "windows": 20,
    "stored": {"text": "aaaa", "speech": "bbbb"},
}


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with alone():
        yield


def published(folder: Path, sizes: ModelConfig) -> Path:
    """A folder of weights, as somebody else trained them: no gate is closed."""
    folder.mkdir()
    save_torch_state_dict(filled_model(sizes).state_dict(), folder)
    (folder / "config.json").write_text(sizes.model_dump_json())
    return folder


def run_config(output: Path, start_from: Path, *overrides: str, **values: Any) -> TrainConfig:
    chosen = f"start_from={start_from}", "micro_batch=4", "trainable=phase"
    return small_config(output, *chosen, *overrides, **values)


def trained(config: TrainConfig, steps: int = 2) -> Path:
    """A checkpoint of a run of so many steps."""
    model = start_model(config).model
    engine = start_engine(TrainingObjective(model, ZeroSnrSchedule()), config, torch.device("cpu"))
    take_steps(engine, config, 0, steps)
    return save(engine, TrainState(steps, seen_samples=4 * steps, samples={"datasets": [DATA]}), config)


def weights_of(model: PortraitModel) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def test_an_export_is_the_frozen_weights_and_the_average_of_the_trained(tmp_path) -> None:
    start = published(tmp_path / "start", SIZES)
    config = run_config(tmp_path / "run", start)
    checkpoint = trained(config)
    given, _ = load_model(start)
    averages, last = read_weights(checkpoint, averaged=True), read_weights(checkpoint, averaged=False)
    folder = export(checkpoint, config)
    assert folder == tmp_path / "run" / "export"
    found, report = load_model(folder)
    assert found.config == SIZES
    assert not report.initialised
    assert 0 < len(averages) < len(weights_of(found))
    for name, weight in weights_of(found).items():
        assert weight.equal(averages.get(name, weights_of(given)[name])), name
    name = "denoiser.audio_projector.proj1.weight"
    assert not averages[name].equal(last[name])


def test_phase_audio_starts_from_the_export_of_phase_identity(tmp_path) -> None:
    start = published(tmp_path / "start", SIZES.model_copy(update={"audio": None}))
    first = run_config(tmp_path / "first", start, "phase=identity")
    exported = export(trained(first), first)
    second = run_config(tmp_path / "second", exported)
    started = start_model(second)
    assert all(".audio_" in name for name in started.loaded.initialised)
    assert {name for name in started.trained} <= {*started.loaded.initialised}
    found, _ = load_model(export(trained(second), second))
    identity, _ = load_model(exported)
    assert all(weights_of(found)[name].equal(weight) for name, weight in weights_of(identity).items())


def test_it_says_how_it_was_made(tmp_path) -> None:
    pixels = torch.rand(8, 1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codec = PatchPcaAutoencoder.fit(pixels, channels=16)
    codec.save(tmp_path / "codec")
    start = published(tmp_path / "start", SIZES)
    config = run_config(tmp_path / "run", start, f"encoders.autoencoder={tmp_path / 'codec'}")
    checkpoint = trained(config, steps=1)
    with MetricsLog(tmp_path / "run" / "metrics.jsonl") as log:
        log.write(1, "train", 1.0, {"loss": 0.75})
        log.write(1, "held_out", 2.0, {"loss": 0.625, "loss_q0.1": 0.5})
        log.write(2, "train", 3.0, {"loss": 0.25})
    folder = export(checkpoint, config)
    made = json.loads((folder / "config.json").read_text())["training"]
    assert made["state"]["samples"]["datasets"] == [DATA]
    assert (made["phase"], made["state"]["step"], made["weights"]) == ("audio", 1, "average")
    assert {kind: row["loss"] for kind, row in made["metrics"].items()} == {"train": 0.75, "held_out": 0.625}
    assert made["encoders"]["autoencoder"] == {"name": "autoencoder", "digest": codec.digest}
    assert made["encoders"]["speech"]["digest"] == "bbbb"
    assert TrainConfig.model_validate(made["config"]) == config
    assert PatchPcaAutoencoder.load(folder / "autoencoder").digest == codec.digest
    card = (folder / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "other"
    for said in ("talks", DATA["digest"], codec.digest, "0.625", "load_model(", str(start)):
        assert said in text
    assert "0.25" not in text


def test_a_large_model_is_stored_in_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export_module, "SHARD_BYTES", 1_000_000)
    config = run_config(tmp_path / "run", published(tmp_path / "start", SIZES), "precision=bf16")
    folder = export(trained(config, steps=1), config)
    assert len([*folder.glob("model-*-of-*.safetensors")]) > 1
    found, _ = load_model(folder, torch.bfloat16)
    expected = export_module.trained_model(tmp_path / "run" / "checkpoints" / "step-00000001", config)
    assert all(weight.equal(weights_of(expected)[name]) for name, weight in weights_of(found).items())
    assert {weight.dtype for weight in weights_of(found).values()} == {torch.bfloat16}


def test_an_export_that_fails_leaves_the_one_before(tmp_path) -> None:
    start = published(tmp_path / "start", SIZES)
    config = run_config(tmp_path / "run", start)
    checkpoint = trained(config, steps=1)
    folder = export(checkpoint, config)
    before = (folder / "README.md").read_text()
    with files_of_at_most(100_000), pytest.raises(OSError, match="cannot be written"):
        export(checkpoint, config)
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoints", "export"]
    assert (folder / "README.md").read_text() == before
    load_model(folder)
    with pytest.raises(CheckpointError, match="of another configuration: phase is joint, it has audio"):
        export(checkpoint, config.model_copy(update={"phase": "joint"}))


def test_low_rank_updates_are_folded_into_a_plain_model(tmp_path) -> None:
    start = published(tmp_path / "start", SIZES)
    config = run_config(tmp_path / "run", start, "trainable=lora", "lora.rank=4", "lora.alpha=8")
    checkpoint = trained(config)
    updates = read_weights(checkpoint, averaged=True)
    assert all(".lora_" in name for name in updates)
    found, report = load_model(export(checkpoint, config))
    assert not report.initialised
    given, _ = load_model(start)
    layer = "denoiser.blocks.0.audio_attention.out"
    rise, fall = (updates[f"{layer}.lora_{part}.default.weight"] for part in "BA")
    expected = weights_of(given)[f"{layer}.weight"] + 8 / 4 * rise @ fall
    torch.testing.assert_close(weights_of(found)[f"{layer}.weight"].detach(), expected)
    assert not rise.equal(torch.zeros_like(rise))


def test_an_untrained_model_is_written_in_the_form_of_a_trained_one(tmp_path) -> None:
    write_untrained(published(tmp_path / "trained", SIZES), tmp_path / "untrained")
    untrained, _ = load_model(tmp_path / "untrained", torch.float32)
    trained, _ = load_model(tmp_path / "trained", torch.float32)
    assert untrained.config == trained.config
    assert not untrained.denoiser.head.linear.weight.any()  # gates and head are closed before training
    assert trained.denoiser.head.linear.weight.any()
    write_untrained(tmp_path / "trained", tmp_path / "again")
    again, _ = load_model(tmp_path / "again", torch.float32)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in weights_of(untrained).items())
