"""The engine takes the same steps however the work is shared, and ZeRO shares what it says it shares."""

from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch

from tests.training.engine_run import alone, one_backward, run_workers, small_config, small_engine, take_steps
from tests.training.small_networks import sized

HERE = __name__
STEPS = 20


def losses(output: Path, world: int) -> dict[tuple[int, int], list[str]]:
    """Worker: every ZeRO stage, with a step's four samples at once and in two halves."""
    found = {}
    for stage in (0, 1, 2, 3):
        for accumulation in (1, 2):
            shares = f"num_workers={world}", f"micro_batch={4 // world // accumulation}"
            config = small_config(output, f"deepspeed.zero_stage={stage}", *shares)
            assert config.accumulation == accumulation
            found[stage, accumulation] = take_steps(small_engine(config), config, 0, STEPS)
    return found


@pytest.mark.slow
def test_every_stage_number_of_workers_and_accumulation_gives_the_same_losses(tmp_path) -> None:
    ways: dict[Any, list[str]] = {}
    for world in (1, 2):
        told = run_workers(world, f"{HERE}.losses", tmp_path / str(world), tmp_path, world)
        assert all(each == told[0] for each in told)
        ways |= {(world, *way): of_way for way, of_way in told[0].items()}
    first = [*map(float.fromhex, ways[1, 0, 1])]
    assert first[-1] < 0.99 * first[0]
    for way, of_way in ways.items():
        found = [*map(float.fromhex, of_way)]
        assert found[0] == pytest.approx(first[0], rel=1e-6), way
        assert found[-1] == pytest.approx(first[-1], rel=1e-4), way


def held_bytes(output: Path, stage: int) -> tuple[int, int]:
    """Worker: bytes of the optimizer's state and of the gradients between backward and step."""
    shares = f"deepspeed.zero_stage={stage}", "num_workers=2", "micro_batch=2"
    deep = sized(num_layers=8)  # both hold the parameter in the middle whole: it must be a small part
    config = small_config(output, *shares, model=deep.model_dump())
    engine = small_engine(config)
    take_steps(engine, config, 0, 1)
    one_backward(engine, config, step=1, number=0)
    optimizer = engine.optimizer
    state = [value for state in engine.basic_optimizer.state.values() for value in state.values()]
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    for shares in getattr(optimizer, "averaged_gradients", {}).values():
        gradients += shares or []
    return tensor_bytes(state), tensor_bytes(gradients)


def tensor_bytes(tensors: list[torch.Tensor]) -> int:
    """Of distinct storages."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.slow
def test_zero_2_on_two_workers_holds_half_of_the_state_and_of_the_gradients(tmp_path) -> None:
    whole = run_workers(2, f"{HERE}.held_bytes", tmp_path / "0", tmp_path, 0)
    halves = run_workers(2, f"{HERE}.held_bytes", tmp_path / "2", tmp_path, 2)
    print(f"ZeRO-0: {whole} bytes of state and of gradients a worker; ZeRO-2: {halves}")
    for of_whole, of_half in zip(whole, halves, strict=True):
        assert of_whole[0] > 3 * 4 * 100_000
        assert of_half[0] / of_whole[0] == pytest.approx(0.5, rel=0.15)
        assert of_half[1] / of_whole[1] == pytest.approx(0.5, rel=0.15)


def test_nothing_is_compiled_for_an_engine(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    with alone():
        engine = small_engine(small_config(tmp_path / "run", "micro_batch=4"))
        assert engine.global_steps == 0
        assert deepspeed.comm.comm.cdb.shm_comm_op is None
    assert not (tmp_path / "compiled").exists()
