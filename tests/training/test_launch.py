"""The launcher with real Ray, real process groups and real accidents."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from tests.training import small_run
from training.config import TrainConfig, TrainRayConfig
from training.failures import TrainingEnded, mendable, words_of
from training.launch import StopWish, listening, train_on_ray
from training.run_folder import alone


def config(root: Path, **changes: object) -> TrainConfig:
    values = {
        "dataset": "none",
        "output": str(root),
        "phase": "audio",
        "model": "tiny",
        "max_steps": 12,
        "num_workers": 2,
        "batch": 2,
        "ray": {"start_timeout_s": 30.0, "max_failures": 2},
    }
    return TrainConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    from cluster.launch import ray_session

    with ray_session(TrainRayConfig(object_store_gb=0.1)):
        yield


def run(root: Path, accidents: list | None = None, **changes: object) -> tuple[object, list[dict]]:
    root.mkdir(exist_ok=True)
    (root / "accidents.json").write_text(json.dumps(accidents or []))
    told: list[dict] = []
    done = train_on_ray(config(root, **changes), StopWish(), told.append, work=small_run.train)
    return done, told


def test_another_start_is_for_lost_workers_and_not_for_what_it_would_meet_again() -> None:
    assert mendable(RuntimeError("Connection closed by peer"))
    assert mendable(torch.distributed.DistBackendError("NCCL"))
    assert mendable(OSError(5, "Input/output error", "/data/a.tar"))
    assert not mendable(OSError(28, "No space left on device", "/run/x"))
    assert not mendable(torch.OutOfMemoryError("CUDA out of memory"))
    assert not mendable(ValueError("wrong sizes"))
    assert words_of(OSError(28, "No space left on device", "/run/x")) == "/run/x: No space left on device"
    assert words_of(TrainingEnded("the end")) == "the end"
    assert words_of(ValueError("one\ntwo")) == "ValueError: one"


def test_before_there_are_workers_a_signal_ends_what_is_being_done() -> None:
    wish = StopWish()
    with pytest.raises(KeyboardInterrupt), listening(wish):
        os.kill(os.getpid(), signal.SIGTERM)
    assert wish.status == 143


def test_the_first_signal_asks_the_workers_and_the_second_does_not_wait(tmp_path) -> None:
    wish = StopWish(folder=tmp_path)
    with listening(wish):
        os.kill(os.getpid(), signal.SIGTERM)
        assert (tmp_path / "stop").exists()
        assert not wish.at_once
        os.kill(os.getpid(), signal.SIGINT)
        assert wish.at_once
    assert wish.status == 143


@pytest.mark.slow
def test_reports_of_rank_0_come_to_the_driver_and_the_result_too(ray_here, tmp_path) -> None:
    done, told = run(tmp_path / "run")
    assert done == {"step": 12}
    assert [report["step"] for report in told] == list(range(12))
    assert not (tmp_path / "run" / ".ray").exists()
    assert not (Path.home() / "ray_results" / "train").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_killed_in_a_step_changes_no_loss(ray_here, tmp_path, rank) -> None:
    run(tmp_path / "calm")
    done, told = run(tmp_path / "killed", [["kill", rank, 6]])
    assert done == {"step": 12}
    assert any("start 2 of all workers" in report.get("event", "") for report in told)
    for each in (0, 1):
        assert small_run.losses(tmp_path / "killed", each) == small_run.losses(tmp_path / "calm", each)


@pytest.mark.slow
def test_a_worker_that_dies_every_time_ends_the_run_after_so_many_starts(ray_here, tmp_path) -> None:
    with pytest.raises(TrainingEnded, match=r"failed 3 times, and ray\.max_failures is 2"):
        run(tmp_path / "run", [["kill always", 1, 6]])
    assert "worker 1" in (tmp_path / "run" / "error.txt").read_text()


@pytest.mark.slow
def test_an_error_that_stays_ends_the_run_at_once_in_one_sentence(ray_here, tmp_path) -> None:
    with pytest.raises(TrainingEnded) as ended:
        run(tmp_path / "run", [["wrong always", 1, 6]])
    assert str(ended.value) == "ValueError: the latents are of another world"
    assert "small_run.py" in (tmp_path / "run" / "error.txt").read_text()


@pytest.mark.slow
def test_workers_that_find_no_place_are_told_in_bounded_time(ray_here, tmp_path) -> None:
    begun = time.monotonic()
    with pytest.raises(
        TrainingEnded, match=r"5 workers of 1 CPU each .* found no place .* has 2 CPU, 0 GPU on 1"
    ):
        run(tmp_path / "run", num_workers=5, batch=5, ray={"start_timeout_s": 3.0})
    assert time.monotonic() - begun < 120


@pytest.mark.slow
def test_a_stop_wish_ends_the_run_with_a_checkpoint_and_the_same_run_goes_on(ray_here, tmp_path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    wish = StopWish()

    def stop_after_three(report: dict) -> None:
        if report.get("step") == 2:
            wish(signal.SIGTERM)

    done = train_on_ray(config(root, max_steps=2000), wish, stop_after_three, work=small_run.train)
    assert 2 < done["step"] < 2000
    assert wish.status == 143
    steps = done["step"]
    again, told = run(root, max_steps=steps + 3)
    assert again == {"step": steps + 3}
    assert told[0]["step"] == steps
    run(tmp_path / "calm", max_steps=steps + 3)
    assert small_run.losses(root) == small_run.losses(tmp_path / "calm")


@pytest.mark.slow
def test_workers_that_do_not_stop_in_the_grace_are_not_waited_for(ray_here, tmp_path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "accidents.json").write_text(json.dumps([["hang", 1, 3]]))
    wish = StopWish()
    threading.Timer(12, wish, (signal.SIGINT,)).start()
    given = config(root, checkpoints={"grace_s": 1.0})
    assert train_on_ray(given, wish, lambda _: None, work=small_run.train) is None
    assert wish.status == 130


def driver(root: Path, steps: int) -> subprocess.Popen[str]:
    """A driver in a process group of its own, which has told its third step."""
    root.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.training.small_driver", str(root), str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    return process


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_all_processes_and_still_makes_a_checkpoint(tmp_path) -> None:
    first = driver(tmp_path / "run", 10**6)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode == 130
    steps = len(small_run.losses(tmp_path / "run"))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "latest", weights_only=True)
    assert checkpoint["step"] == steps
    assert not (tmp_path / "run" / "stop").exists()


@pytest.mark.slow
def test_a_driver_that_is_killed_takes_its_workers_along_and_the_run_goes_on(tmp_path) -> None:
    root = tmp_path / "run"
    first = driver(root, 10**6)
    started = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with alone(root, "worker", wait_s=60):
        pass
    alive = psutil.wait_procs(started, timeout=60)[1]
    assert not [process for process in alive if "RayTrainWorker" in process.name()]
    saved = torch.load(root / "checkpoints" / "latest", weights_only=True)["step"]
    again = driver(root, saved + 5)
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert max(small_run.losses(root)) >= saved + 4
