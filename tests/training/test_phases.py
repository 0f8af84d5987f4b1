"""Which weights a phase trains, against the reference's own count of names."""

import json
from pathlib import Path

import pytest
import torch

from tests.training.small_networks import sized
from training.config import TrainConfig
from training.model import PRESETS, PortraitModel
from training.model.loading import empty_model
from training.model.weights_map import remap_upstream
from training.phases import choose_trained, trained_names

GOLDEN = Path(__file__).parents[1] / "golden" / "hallo3_contract"
CONTRACT = json.loads((GOLDEN / "full.stage2.json").read_text())
SUMMARY = json.loads((GOLDEN / "summary.json").read_text())["trainable"]


@pytest.fixture(scope="module")
def full() -> dict[str, int]:
    """The full model's parameters and their numbers of elements, without their memory."""
    model = empty_model(PRESETS["hallo3_5b"])
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("phase", "stage"), [("identity", "stage1"), ("audio", "stage2")])
def test_a_phase_trains_the_tensors_that_the_reference_trains(full, phase, stage) -> None:
    known = SUMMARY[stage]
    trained = trained_names(full, phase)
    assert len(trained) == known["tensors"]
    assert sum(full[name] for name in trained) == known["parameters"]


@pytest.mark.parametrize("phase", ["identity", "audio"])
def test_the_names_are_those_that_the_references_substrings_choose(phase) -> None:
    substrings = {"identity": {"ref_model.": ["attention"], "model.": ["face", "attention"]}}.get(
        phase, {"model.": ["audio"]}
    )
    upstream = {name: torch.empty(0, device="meta") for name, _, _ in CONTRACT["entries"]}
    chosen = {
        name: value
        for name, value in upstream.items()
        for prefix, words in substrings.items()
        if name.startswith(prefix) and any(word in name for word in words)
        if phase == "audio" or "audio" not in name
    }
    assert sorted(remap_upstream(chosen)) == sorted(trained_names(remap_upstream(upstream), phase))


def config(**changed: object) -> TrainConfig:
    values = {"dataset": "d", "output": "o", "phase": "audio", "model": sized().model_dump()}
    return TrainConfig.model_validate(values | changed)


def test_gradients_reach_what_the_phase_trains_and_nothing_else() -> None:
    model = PortraitModel(sized())
    trained = choose_trained(model, config(phase="audio"))
    assert trained == [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("audio" in name for name in trained)


def test_training_from_scratch_trains_everything() -> None:
    model = PortraitModel(sized())
    assert choose_trained(model, config(trainable="all")) == [name for name, _ in model.named_parameters()]


def test_joint_trains_what_either_phase_trains(full) -> None:
    both = {*trained_names(full, "identity"), *trained_names(full, "audio")}
    assert set(trained_names(full, "joint")) == both
