"""A training configuration is checked before anything heavy is imported."""

import subprocess
import sys

import pytest

from data_pipeline import config_file
from data_pipeline.config_file import ConfigError
from training.config import TrainConfig

GIVEN = {"dataset": "sets/one", "output": "runs/one", "phase": "audio", "model": "tiny"}


def checked(*overrides: str) -> TrainConfig:
    return config_file.checked(TrainConfig, GIVEN, list(overrides), "run.yaml")


def test_a_model_is_a_name_or_a_name_with_other_sizes_on_top() -> None:
    assert checked().model.num_layers == 4
    named = config_file.checked(TrainConfig, GIVEN | {"model": {"preset": "tiny", "num_layers": 2}}, [], "x")
    assert (named.model.num_layers, named.model.num_heads) == (2, 2)


def test_phase_identity_has_no_audio_part() -> None:
    assert checked("phase=identity").sizes.audio is None
    assert checked().sizes.audio is not None


def test_the_batch_stays_whatever_the_workers_and_the_rest_is_accumulated() -> None:
    assert checked("batch=8", "num_workers=2").accumulation == 4
    assert checked("batch=8", "num_workers=4", "sequence_parallel=2").accumulation == 4
    assert checked("batch=8", "num_workers=2", "micro_batch=4").accumulation == 1


def test_one_dataset_or_several_with_weights() -> None:
    assert [share.uri for share in checked().datasets] == ["sets/one"]
    several = checked("dataset=[{uri: a, weight: 3}, {uri: b}]").datasets
    assert [(share.uri, share.weight) for share in several] == [("a", 3.0), ("b", 1.0)]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("phase=lips", r"phase: Input should be 'identity', 'audio' or 'joint' \(given 'lips'\)"),
        ("model=huge", "model: no model is called 'huge'; there are hallo3_5b, small, tiny"),
        ("optimiser.learning_rate=1", r"optimiser: unknown key .*did you mean optimizer\?"),
        ("optimizer.lr=1", r"optimizer.lr: unknown key .*Allowed: learning_rate"),
        ("deepspeed.zero_stage=4", r"deepspeed.zero_stage: Input should be 0, 1, 2 or 3 \(given 4\)"),
        ("deepspeed.offload_parameters=true", "offload_parameters needs zero_stage=3, given 2"),
        ("num_workers=3", r"batch \(8\) must be a multiple of .* \(3\)"),
        ("sequence_parallel=2", r"sequence_parallel \(2\) must divide num_workers \(1\)"),
        ("deepspeed.zero_stage=0", "zero_stage=0 with precision=bf16 takes a wrong first step"),
        ("model={preset: tiny, audio: null}", "phase audio trains the model's audio part"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(override, says) -> None:
    with pytest.raises(ConfigError, match=says):
        checked(override)


def test_a_configuration_is_checked_without_torch() -> None:
    code = "import sys, training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
