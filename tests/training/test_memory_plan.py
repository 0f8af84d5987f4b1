"""Planned bytes against those that tensors really take: of a step of both networks, and of real engines."""

from pathlib import Path

import pytest
import torch

from tests.training.engine_run import one_backward, run_workers, small_config, small_engine, take_steps
from tests.training.planned import PeakOfLive, given_to, model_of, sizes_of
from tests.training.small_networks import run, sized
from training.memory_plan import activations, backward, memory, states
from training.model.config import PRESETS, ModelConfig
from training.model.loading import empty_model
from training.plan import count, trained_of

HERE = "tests.training.test_memory_plan"
MANY_TOKENS = PRESETS["tiny"].model_copy(update={"num_layers": 6, "latent_height": 16, "latent_width": 16})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("what", ["identity", "audio", "joint", "all"])
def test_what_autograd_holds_is_what_is_planned(what, dtype) -> None:
    config = sizes_of(PRESETS["tiny"], what)
    model, trained = model_of(config, what, dtype)
    given = given_to(config, dtype)
    own = [*model.parameters(), *model.buffers(), *given.values()]
    there = {tensor.untyped_storage().data_ptr() for tensor in own}
    held: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        velocity = run(model, given)
    assert velocity.requires_grad
    found = sum(storage.nbytes() for storage in held.values())
    assert activations(config, trained, "nothing", dtype.itemsize) == pytest.approx(found, rel=0.05)


def peak_of_step(config: ModelConfig, what: str, recompute: str) -> tuple[int, float]:
    """Measured, beside weights and gradients that are there already, and planned."""
    config = sizes_of(config, what)
    model, trained = model_of(config, what)
    model.recompute_in_backward(recompute)  # type: ignore[arg-type]
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    given = given_to(config)
    with PeakOfLive() as found:
        run(model, given).square().mean().backward()
    return found.peak, activations(config, trained, recompute, 4) + backward(config, 4)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["nothing", "all_but_attention", "blocks"])
@pytest.mark.parametrize("what", ["identity", "audio", "joint", "all"])
def test_the_most_that_a_step_holds_is_what_is_planned(what, recompute) -> None:
    found, planned = peak_of_step(MANY_TOKENS, what, recompute)
    print(f"{what} {recompute}: {found} bytes found, {planned / found:.3f} of it planned")
    assert planned == pytest.approx(found, rel=0.15)


def held_by_engine(output: Path, workers: int, stage: int, precision: str) -> dict[str, tuple[float, float]]:
    """Worker: bytes found and planned, of the optimizer's state and of the gradients before a step."""
    shares = [f"deepspeed.zero_stage={stage}", f"num_workers={workers}", f"precision={precision}"]
    shares.append(f"micro_batch={4 // workers}")  # one backward pass a step: gradients are where they stay
    config = small_config(output, *shares, model=sized(num_layers=8).model_dump())
    engine = small_engine(config)
    take_steps(engine, config, 0, 1)
    one_backward(engine, config, step=1, number=0)
    optimizer = engine.optimizer
    state = [value for each in engine.basic_optimizer.state.values() for value in each.values()]
    if stage:
        state += [weight for group in engine.basic_optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    for shares_of in getattr(optimizer, "averaged_gradients", {}).values():
        gradients += shares_of or []
    planned, _ = states(config, count(empty_model(config.sizes), config))
    return {
        "optimizer": (unique_bytes(state), planned["optimizer"]),
        "gradients": (unique_bytes(gradients), planned["gradients"]),
    }


def unique_bytes(tensors: list[torch.Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "stage", "precision"),
    [(1, 0, "fp32"), (2, 0, "fp32"), (2, 1, "fp32"), (2, 2, "fp32"), (2, 2, "bf16"), (1, 2, "bf16")],
)
def test_an_engine_holds_what_is_planned(workers, stage, precision, tmp_path) -> None:
    given = tmp_path, workers, stage, precision
    for each in run_workers(workers, f"{HERE}.held_by_engine", tmp_path / "work", *given):
        print(workers, stage, precision, each)
        found, planned = each["optimizer"]
        assert planned == pytest.approx(found, rel=0.15)
        found, planned = each["gradients"]
        assert planned == pytest.approx(found, rel=0.15)


def planned_parts(*overrides: str) -> dict[str, float]:
    config = small_config(Path("run"), *overrides)
    model = empty_model(config.sizes)
    made = memory(config, count(model, config), trained_of(model, config))
    return made.gpu | {f"host {part}": size for part, size in made.host.items()}


def test_each_stage_shares_one_thing_more() -> None:
    workers = "num_workers=4"
    parts = [planned_parts(workers, "batch=8", f"deepspeed.zero_stage={stage}") for stage in (1, 2, 3)]
    assert parts[0]["gradients"] == 4 * parts[1]["gradients"] == 4 * parts[2]["gradients"]
    assert parts[0]["weights"] == parts[1]["weights"] == 4 * parts[2]["weights"]
    assert parts[0]["optimizer"] == parts[1]["optimizer"] == parts[2]["optimizer"]


def test_what_is_offloaded_is_in_the_hosts_memory() -> None:
    three = "deepspeed.zero_stage=3"
    here = planned_parts(three)
    there = planned_parts(three, "deepspeed.offload_optimizer=true", "deepspeed.offload_parameters=true")
    assert there["host optimizer"] == here["optimizer"]
    assert there["host weights"] == here["weights"]
    assert "optimizer" not in there
    assert "weights" not in there


def test_workers_that_share_a_sample_share_its_activations() -> None:
    whole, half = planned_parts("num_workers=2"), planned_parts("num_workers=2", "sequence_parallel=2")
    assert half["activations"] == whole["activations"] / 2


def test_an_average_is_four_bytes_a_weight_more() -> None:
    with_average, without = planned_parts(), planned_parts("optimizer.ema_decay=null")
    assert with_average["optimizer"] / without["optimizer"] == pytest.approx(16 / 12)
