"""LoRA: what is updated, that nothing changes before training, and that folding it in changes nothing."""

from pathlib import Path

import pytest
import torch

from tests.training.engine_run import alone, small_config, take_steps
from tests.training.small_networks import filled_model, inputs, run
from training.config import TrainConfig
from training.diffusion import ZeroSnrSchedule
from training.engine import start_engine
from training.lora import adapted_layers, add_lora, merge_lora
from training.model import PortraitModel
from training.model.loading import empty_model
from training.objective import TrainingObjective
from training.phases import trained_names


def config_of(*overrides: str, **values: object) -> TrainConfig:
    return small_config(Path("run"), "trainable=lora", "lora.rank=4", "lora.alpha=8", *overrides, **values)


def trained_model() -> PortraitModel:
    """With updates that are not zero any more."""
    model = filled_model()
    names = add_lora(model, config_of(phase="joint"))
    for index, name in enumerate(names):
        generator = torch.Generator().manual_seed(index)
        torch.nn.init.normal_(model.get_parameter(name), std=0.1, generator=generator)
    return model


@pytest.mark.parametrize(("phase", "layers"), [("identity", 12), ("audio", 6), ("joint", 18)])
def test_the_attention_that_upstream_trains_in_the_phase_is_updated(phase, layers) -> None:
    config = config_of(phase=phase)
    model = empty_model(config.sizes)
    rule = set(trained_names((name for name, _ in model.named_parameters()), phase))
    chosen = adapted_layers(model, phase)
    assert {f"{name}.weight" for name in chosen} < rule
    assert len(add_lora(model, config)) == 2 * len(chosen)
    assert len(chosen) == layers


def test_only_the_updates_ask_for_gradients() -> None:
    model = filled_model()
    names = add_lora(model, config_of(phase="joint"))
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == names


def test_every_update_gets_a_gradient() -> None:
    model = trained_model()
    run(model, inputs()).square().mean().backward()
    lora = {name: weight.grad for name, weight in model.named_parameters() if ".lora_" in name}
    assert [name for name, gradient in lora.items() if gradient is None or not gradient.any()] == []


def test_before_training_the_model_computes_what_it_did() -> None:
    model, given = filled_model(), inputs()
    before = run(model, given)
    add_lora(model, config_of(phase="joint"))
    assert torch.equal(run(model, given), before)


def test_every_worker_begins_with_the_same_updates_whatever_it_drew_before() -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        model = filled_model()
        torch.rand(7)
        return {name: model.get_parameter(name) for name in add_lora(model, config_of(f"seed={seed}"))}

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    first = next(name for name in one if "lora_A" in name)
    assert not torch.equal(one[first], other[first])


def test_bfloat16_weights_have_bfloat16_updates() -> None:
    model = filled_model().to(torch.bfloat16)
    names = add_lora(model, config_of("precision=bf16"))
    assert {model.get_parameter(name).dtype for name in names} == {torch.bfloat16}
    run(model, inputs(torch.bfloat16)).float().mean().backward()


def test_a_model_without_memory_gets_updates_without_memory() -> None:
    config = config_of(phase="joint")
    model = empty_model(config.sizes)
    names = add_lora(model, config)
    real = filled_model()
    assert names == add_lora(real, config)
    assert all(model.get_parameter(name).is_meta for name in names)
    assert [model.get_parameter(n).shape for n in names] == [real.get_parameter(n).shape for n in names]


def test_folded_in_it_is_a_plain_model_that_computes_the_same() -> None:
    model, given = trained_model(), inputs()
    with torch.no_grad():
        expected, untrained = run(model, given), run(filled_model(), given)
        merge_lora(model)
        folded = run(model, given)
    assert list(model.state_dict()) == list(PortraitModel(model.config).state_dict())
    assert (expected - untrained).abs().max() > 0.01
    torch.testing.assert_close(folded, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_dropout_is_drawn_in_training_only() -> None:
    model = filled_model()
    names = add_lora(model, config_of("lora.dropout=0.5", phase="joint"))
    for name in names:
        torch.nn.init.constant_(model.get_parameter(name), 0.05)
    given = inputs()
    with torch.no_grad():
        assert not torch.equal(run(model.train(), given), run(model, given))
        assert torch.equal(run(model.eval(), given), run(model, given))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_an_engine_moves_the_updates_and_nothing_else(stage, tmp_path) -> None:
    config = small_config(
        tmp_path, "trainable=lora", "lora.rank=4", f"deepspeed.zero_stage={stage}", phase="joint"
    )
    with alone():
        model = filled_model(config.sizes)
        names = add_lora(model, config)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        engine = start_engine(TrainingObjective(model, ZeroSnrSchedule()), config, torch.device("cpu"))
        take_steps(engine, config, 0, 3)
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(model.parameters()), enabled=stage == 3):
            moved = [n for n, weight in model.named_parameters() if not torch.equal(weight, before[n])]
    assert sorted(moved) == sorted(names)
