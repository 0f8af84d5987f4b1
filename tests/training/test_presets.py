"""Every preset is a configuration that can be trained, and says of itself what is true."""

import pytest

from data_pipeline.config_file import preset_names
from training.config import PRESETS, TrainConfig, load_config

FULL = [name for name in preset_names(PRESETS) if name.startswith("hallo3_5b")]


def loaded(name: str) -> TrainConfig:
    return load_config(name, ["dataset=data", "output=run"])


@pytest.mark.parametrize("name", preset_names(PRESETS))
def test_a_preset_needs_only_a_dataset_and_an_output(name) -> None:
    assert loaded(name).dataset == "data"


@pytest.mark.parametrize("name", preset_names(PRESETS))
def test_a_preset_begins_with_what_it_is_for_and_its_command(name) -> None:
    lines = (PRESETS / f"{name}.yaml").read_text().splitlines()
    comment = [line for line in lines if line.startswith("#")]
    assert lines[: len(comment)] == comment
    assert any(f"hallo3 train {name} dataset=DATASET output=" in line for line in comment)


@pytest.mark.parametrize("name", preset_names(PRESETS))
def test_a_preset_of_a_phase_is_called_by_it(name) -> None:
    for phase in ("identity", "audio"):
        if phase in name:
            assert loaded(name).phase == phase


@pytest.mark.parametrize("name", FULL)
def test_the_full_model_keeps_upstreams_settings(name) -> None:
    config = loaded(name)
    assert (config.precision, config.recompute, config.batch) == ("bf16", "blocks", 8)
    assert (config.sizes.num_layers, config.sizes.num_frames) == (42, 49)
    given, drops = config.optimizer, config.conditions
    assert (given.betas, given.epsilon, given.weight_decay) == ((0.9, 0.95), 1e-8, 1e-4)
    assert (drops.drop_text, drops.drop_image, drops.drop_reference, drops.drop_audio) == (
        0.1,
        0.05,
        0.05,
        0.05,
    )
    if "identity" in name or "audio" in name:
        assert (given.learning_rate, given.clip_norm, config.max_steps) == (1e-5, 0.1, 30_000)


@pytest.mark.parametrize("name", FULL)
def test_gpus_of_48_gb_share_the_weights_and_those_of_80_gb_need_not(name) -> None:
    assert loaded(name).deepspeed.zero_stage == (3 if name.endswith("_48gb") else 2)


def test_tuning_starts_with_both_phases_open_and_lora_with_neither() -> None:
    assert (loaded("hallo3_5b_finetune").phase, loaded("hallo3_5b_finetune").trainable) == ("joint", "phase")
    assert (loaded("hallo3_5b_lora").phase, loaded("hallo3_5b_lora").trainable) == ("joint", "lora")


@pytest.mark.parametrize("name", ["demo_identity", "demo_audio"])
def test_the_demo_needs_no_gpu_and_no_download(name) -> None:
    config = loaded(name)
    assert config.device == "cpu"
    encoders = config.encoders
    assert (encoders.autoencoder, encoders.text, encoders.speech) == ("", "none", "log_mel")
    assert config.batch == 4


@pytest.mark.parametrize("kind", ["hallo3_5b", "small", "demo"])
def test_a_kinds_second_phase_takes_what_its_first_gives(kind) -> None:
    first, second = loaded(f"{kind}_identity"), loaded(f"{kind}_audio")
    assert second.sizes.model_copy(update={"audio": None}) == first.sizes
    assert second.sizes.audio is not None
