"""Whether a run fits, what makes it fit, and how long it takes."""

from dataclasses import replace

import pytest

from training.config import TrainConfig, load_config
from training.lora import add_lora
from training.memory_plan import memory
from training.model.loading import empty_model
from training.plan import GPUS, count, plan, trained_of

FULL = ["dataset=data", "output=run"]


def tiny(*overrides: str) -> TrainConfig:
    return load_config("demo_audio", [*FULL, "deepspeed.zero_stage=2", *overrides])


def needed_gb(config: TrainConfig) -> float:
    model = empty_model(config.sizes)
    return memory(config, count(model, config), trained_of(model, config)).gpu_bytes / 1e9


@pytest.fixture(scope="module")
def full():
    return plan(load_config("hallo3_5b_identity", FULL), GPUS["h100"])


def test_the_full_model_trains_what_upstream_trained(full) -> None:
    assert full.weights.trained == pytest.approx(4.23e9, rel=0.002)


def test_the_full_model_fits_on_8_gpus_of_80_gb_and_its_48_gb_preset_on_those(full) -> None:
    assert full.fits
    shared = load_config("hallo3_5b_identity_48gb", FULL)
    assert needed_gb(shared) < GPUS["l40s"].gb < needed_gb(full.config)


def test_the_updates_that_are_counted_are_those_that_are_added() -> None:
    config = tiny("trainable=lora", "lora.rank=4")
    counted = count(empty_model(config.sizes), config)
    model = empty_model(config.sizes)
    names = add_lora(model, config)
    assert counted.trained == sum(model.get_parameter(name).numel() for name in names)
    assert counted.total == sum(weight.numel() for weight in model.parameters())


def test_what_fits_needs_no_change() -> None:
    assert plan(tiny(), GPUS["h100"]).change == ()


def test_the_change_that_is_named_makes_it_fit_and_none_before_it_does() -> None:
    config = tiny("micro_batch=1")
    gpu = replace(GPUS["h100"], gb=needed_gb(config) - 1e-6)
    made = plan(config, gpu)
    assert not made.fits
    assert made.change == ("recompute=blocks",)
    assert plan(tiny("micro_batch=1", *made.change), gpu).fits


def test_several_changes_are_as_few_as_it_takes() -> None:
    config = load_config("hallo3_5b_identity", [*FULL, "num_workers=1", "batch=1"])
    made = plan(config, replace(GPUS["h100"], gb=24))
    assert made.change == (
        "deepspeed.zero_stage=3",
        "deepspeed.offload_optimizer=true",
        "deepspeed.offload_parameters=true",
    )


def test_what_cannot_fit_has_no_change() -> None:
    assert plan(tiny(), replace(GPUS["h100"], gb=0.5)).change is None


def test_twice_the_gpus_take_half_the_time() -> None:
    one, two = (plan(tiny(f"num_workers={n}", "micro_batch=2"), GPUS["a100"]) for n in (1, 2))
    assert one.step_s == pytest.approx(2 * two.step_s)
    assert one.days == pytest.approx(one.step_s * one.config.max_steps / 86_400)
