"""Checkpoints of real engines: exact, whole or not there, and refused in words."""

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from tests.training.engine_run import alone, run_workers, small_config, small_engine, take_steps
from tests.training.little_room import files_of_at_most
from tests.training.small_networks import filled_model
from training.checkpoint import CheckpointError, TrainState, contents, latest, read_weights, restore, save
from training.config import TrainConfig
from training.failures import mendable, words_of
from training.fragment_files import FragmentFiles

HERE = __name__


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Any]:
    """One that took two steps."""
    with alone():
        config = small_config(tmp_path_factory.mktemp("run"), "micro_batch=4")
        made = small_engine(config)
        take_steps(made, config, 0, 2)
        yield made


def config_in(output: Path, *overrides: str, **values: Any) -> TrainConfig:
    return small_config(output, "micro_batch=4", *overrides, **values)


def everything(saved: Path) -> dict[tuple[str, str], torch.Tensor]:
    """Every whole tensor of a checkpoint, by kind and name."""
    found = contents(saved)
    files = FragmentFiles(saved / name for name in found.files)
    tensors = {}
    for kind in files.kinds:
        for name, shape in found.parameters.items():
            tensors[kind, name] = torch.empty(shape).view(-1)
            files.read(kind, name, 0, into=tensors[kind, name])
    return tensors


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same numbers, bit for bit, and the same count of Adam's steps."""
    ours, theirs = everything(first), everything(second)
    steps_are = contents(first).adam_steps == contents(second).adam_steps
    return steps_are and ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


def test_a_restored_run_goes_on_bit_for_bit_with_its_average(engine, tmp_path) -> None:
    config = config_in(tmp_path)
    state = TrainState(2, seen_samples=8, bad_samples=1, skipped_steps=1, samples={"datasets": ["d"]})
    saved = save(engine, state, config)
    again = small_engine(config)
    assert restore(again, saved, config) == state
    assert same(saved, save(again, TrainState(2), config_in(tmp_path / "again")))
    averages, weights = read_weights(saved, averaged=True), read_weights(saved, averaged=False)
    name = "denoiser.blocks.0.attention.qkv.weight"
    assert averages.keys() == dict(engine.module.model.named_parameters()).keys()
    assert weights[name].equal(dict(engine.module.model.named_parameters())[name])
    assert not averages[name].equal(weights[name])
    straight = small_engine(config)
    undisturbed = take_steps(straight, config, 0, 4)
    assert take_steps(again, config, 2, 4) == undisturbed[2:]


def test_an_average_may_begin_or_end_on_the_way(engine, tmp_path) -> None:
    with_average = config_in(tmp_path / "with")
    without = config_in(tmp_path / "without", "optimizer.ema_decay=null")
    other = small_engine(without)
    restore(other, save(engine, TrainState(2), with_average), without)
    given_up = save(other, TrainState(2), without)
    assert contents(given_up).adam_steps == 2
    assert not contents(given_up).averaged
    again = small_engine(with_average)
    restore(again, given_up, with_average)
    take_steps(again, with_average, 2, 3)
    begun = save(again, TrainState(3), with_average)
    name = "denoiser.blocks.0.attention.qkv.weight"
    assert read_weights(begun, averaged=True)[name].equal(read_weights(begun, averaged=False)[name])


def test_latest_names_the_newest_and_the_policy_says_what_stays(engine, tmp_path) -> None:
    config = config_in(tmp_path, "checkpoints.keep_last=2", "checkpoints.keep_every_steps=3")
    assert latest(tmp_path) is None
    for step in (1, 2, 3, 4, 5, 6, 7):
        assert save(engine, TrainState(step), config) == latest(tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["latest", "step-00000003", "step-00000006", "step-00000007"]


def test_what_a_killed_run_left_is_swept_and_a_saved_step_is_not_saved_again(engine, tmp_path) -> None:
    config = config_in(tmp_path)
    left = tmp_path / "checkpoints" / ".step-00000009.partial"
    left.mkdir(parents=True)
    (left / "rank-00000-of-00001.safetensors").write_bytes(b"half")
    saved = save(engine, TrainState(1), config)
    assert not left.exists()
    written = (saved / "checkpoint.json").stat().st_mtime_ns
    assert save(engine, TrainState(1), config) == saved
    assert (saved / "checkpoint.json").stat().st_mtime_ns == written


def test_a_damaged_latest_is_told_with_the_way_out(engine, tmp_path) -> None:
    config = config_in(tmp_path)
    save(engine, TrainState(1), config)
    file = save(engine, TrainState(2), config) / "rank-00000-of-00001.safetensors"
    os.truncate(file, 1000)
    with pytest.raises(CheckpointError, match=r"has 1000 bytes, and had \d+ .*\(step-00000001\) into it, or"):
        latest(tmp_path)
    with pytest.raises(CheckpointError, match="has 1000 bytes"):
        restore(engine, file.parent, config)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"rank-00000-of-00001\.safetensors is missing"):
        latest(tmp_path)
    (tmp_path / "checkpoints" / "latest").write_text("step-00000077\n")
    with pytest.raises(CheckpointError, match=r"step-00000077/checkpoint\.json is missing"):
        latest(tmp_path)


def test_a_file_of_the_right_size_that_is_damaged_is_refused(engine, tmp_path) -> None:
    config = config_in(tmp_path)
    saved = save(engine, TrainState(1), config)
    file = saved / "rank-00000-of-00001.safetensors"
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(CheckpointError, match="is damaged"):
        restore(engine, saved, config)


def test_a_checkpoint_of_another_configuration_says_what_differs(engine, tmp_path) -> None:
    config = config_in(tmp_path)
    saved = save(engine, TrainState(1), config)
    about = json.loads((saved / "checkpoint.json").read_text())

    def refused(change: dict[str, Any]) -> str:
        (saved / "checkpoint.json").write_text(json.dumps(about | change))
        with pytest.raises(CheckpointError, match="of another configuration") as error:
            restore(engine, saved, config)
        return str(error.value)

    other = {"config": about["config"] | {"phase": "identity"}}
    assert "phase is audio, it has identity" in refused(other)
    shapes = about["parameters"]
    less = {name: shape for name, shape in shapes.items() if ".audio_" not in name}
    assert "trained parameters are not in it (denoiser" in refused({"parameters": less})
    assert "1 parameters that are not trained here (more)" in refused({"parameters": shapes | {"more": [1]}})
    name = "denoiser.text_embed.weight"
    wider = shapes | {name: [shapes[name][0], 16]}
    assert f"{name}: (128, 8), it has (128, 16)" in (said := refused({"parameters": wider}))
    assert "The checkpoint was made with text_dim 16 (model: 8)" in said


def test_without_room_nothing_is_lost_and_nothing_half_done_stays(engine, tmp_path) -> None:
    config = config_in(tmp_path)
    before = save(engine, TrainState(1), config)
    with (
        files_of_at_most(100_000),
        pytest.raises(OSError, match="checkpoint of step 2 was written; step-0000"),
    ):
        save(engine, TrainState(2), config)
    assert sorted(os.listdir(before.parent)) == ["latest", "step-00000001"]
    assert latest(tmp_path) == before
    assert save(engine, TrainState(2), config) == latest(tmp_path)


def went_on(output: Path, stage: int, precision: str, offload: bool, steps: int) -> tuple[list, list]:
    """Worker: the losses of steps after a checkpoint, undisturbed and restored."""
    chosen = [f"deepspeed.zero_stage={stage}", f"deepspeed.offload_optimizer={str(offload).lower()}"]
    config = small_config(output, *chosen, f"precision={precision}", "num_workers=2", "micro_batch=1")
    engine = small_engine(config)
    take_steps(engine, config, 0, steps)
    save(engine, TrainState(steps), config)
    undisturbed = take_steps(engine, config, steps, 2 * steps)
    again = small_engine(config)
    restore(again, latest(output), config)
    save(again, TrainState(steps), config.model_copy(update={"output": str(output / "again")}))
    return undisturbed, take_steps(again, config, steps, 2 * steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "precision", "offload"),
    [
        *[(stage, "fp32", False) for stage in (0, 1, 2, 3)],
        *[(1, "bf16", False), (2, "bf16", True), (3, "bf16", True)],
    ],
)
def test_two_workers_go_on_bit_for_bit_in_every_stage(tmp_path, stage, precision, offload) -> None:
    work = f"{HERE}.went_on"
    for undisturbed, restored in run_workers(2, work, tmp_path, tmp_path, stage, precision, offload, 3):
        assert restored == undisturbed
        assert len(set(undisturbed)) == 3
    assert same(latest(tmp_path), latest(tmp_path / "again"))


def saved_anew(output: Path, given: Path | None, stage: int, precision: str) -> list[str]:
    """Worker: begin, or go on from a checkpoint of whatever layout; save; two steps more."""
    world = dist.get_world_size()
    chosen = [f"deepspeed.zero_stage={stage}", f"num_workers={world}", f"precision={precision}"]
    config = small_config(output, *chosen, f"micro_batch={4 // world}")
    engine = small_engine(config)
    if given is None:
        take_steps(engine, config, 0, 2)
    else:
        restore(engine, given, config)
    save(engine, TrainState(2), config)
    return take_steps(engine, config, 2, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "precision"),
    [
        *[((2, 2), (2, 1), "fp32"), ((2, 1), (2, 2), "fp32"), ((2, 2), (3, 2), "fp32")],
        *[((3, 2), (0, 1), "fp32"), ((0, 2), (1, 2), "fp32"), ((3, 1), (3, 2), "fp32")],
        ((3, 2), (2, 1), "bf16"),
    ],
)
def test_another_number_of_workers_or_stage_has_the_same_numbers(tmp_path, first, second, precision) -> None:
    (stage, world), (other_stage, other_world) = first, second
    a, b = tmp_path / "a", tmp_path / "b"
    begun, *_ = run_workers(world, f"{HERE}.saved_anew", a, a, None, stage, precision)
    gone_on, *_ = run_workers(other_world, f"{HERE}.saved_anew", b, b, latest(a), other_stage, precision)
    assert same(latest(a), latest(b))
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    assert [*map(float.fromhex, gone_on)] == pytest.approx([*map(float.fromhex, begun)], rel=tolerance)


def saved_where(output: Path, kind: str) -> tuple[type, int | None, str, bool]:
    """Worker: save twice, the second time with something wrong; the error and what is said of it."""
    config = small_config(output, "num_workers=2", "micro_batch=2")
    engine = small_engine(config)
    save(engine, TrainState(1), config)
    take_steps(engine, config, 0, 1)
    try:
        if kind == "one worker's file" and dist.get_rank() == 1:
            with files_of_at_most(50_000):
                save(engine, TrainState(2), config)
        elif kind == "another folder" and dist.get_rank() == 1:
            save(engine, TrainState(2), config.model_copy(update={"output": str(output / "elsewhere")}))
        else:
            save(engine, TrainState(2), config)
    except (OSError, CheckpointError) as error:
        return type(error), getattr(error, "errno", None), words_of(error), mendable(error)
    raise AssertionError("it went well")


@pytest.mark.slow
def test_one_workers_trouble_with_its_file_is_the_error_of_all(tmp_path) -> None:
    told = run_workers(2, f"{HERE}.saved_where", tmp_path, tmp_path, "one worker's file")
    assert told[0] == told[1]
    assert told[0][:2] == (OSError, errno.EFBIG)
    assert "while the checkpoint of step 2 was written; step-00000001 is whole" in told[0][2]
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-00000001"
    assert len(contents(latest(tmp_path)).files) == 2


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_words_with_the_last_checkpoint_whole(tmp_path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    weights_bytes = 4 * sum(weight.numel() for weight in filled_model().parameters())
    room = 3 * weights_bytes  # for the weights before the first step, and half of the state after it
    given = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk]
    if subprocess.run(given, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        told = run_workers(2, f"{HERE}.saved_where", tmp_path / "told", disk, "full disk")
        assert told[0] == told[1]
        kind, number, words, again = told[0]
        assert (kind, number, again) == (OSError, errno.ENOSPC, False)
        assert words.startswith(
            f"{disk}/checkpoints: No space left on device, while the checkpoint of step 2"
        )
        assert sorted(os.listdir(disk / "checkpoints")) == ["latest", "step-00000001"]
        assert latest(disk) == disk / "checkpoints" / "step-00000001"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_workers_that_do_not_share_the_runs_folder_are_told(tmp_path) -> None:
    told = run_workers(2, f"{HERE}.saved_where", tmp_path, tmp_path, "another folder")
    assert told[0] == told[1]
    assert told[0][0] is CheckpointError
    assert "worker 1 does not see" in told[0][2]


def killed(output: Path, before: str) -> None:
    """Worker: killed in its second checkpoint: all files are written, none is named."""
    config = small_config(output, "num_workers=2", "micro_batch=2")
    engine = small_engine(config)
    save(engine, TrainState(1), config)
    take_steps(engine, config, 0, 1)
    with patch(f"training.{before}", lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
        save(engine, TrainState(2), config)


def saved_again(output: Path) -> None:
    """Worker: the same run, started anew."""
    config = small_config(output, "num_workers=2", "micro_batch=2")
    engine = small_engine(config)
    state = restore(engine, latest(output), config)
    take_steps(engine, config, state.step, state.step + 1)
    save(engine, TrainState(state.step + 1), config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "left"),
    [("checkpoint.finish", ".step-00000002.partial"), ("checkpoint_folder.replacing", "step-00000002")],
)
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(tmp_path, before, left) -> None:
    with pytest.raises(AssertionError, match=r"SIGKILL|Signal 9"):
        run_workers(2, f"{HERE}.killed", tmp_path, tmp_path, before)
    folder = tmp_path / "checkpoints"
    assert sorted(os.listdir(folder)) == sorted([left, "latest", "step-00000001"])
    assert len(list((folder / left).glob("rank-*"))) == 2
    assert latest(tmp_path) == folder / "step-00000001"
    run_workers(2, f"{HERE}.saved_again", tmp_path, tmp_path)
    assert latest(tmp_path) == folder / "step-00000002"
    assert sorted(os.listdir(folder)) == ["latest", "step-00000001", "step-00000002"]
