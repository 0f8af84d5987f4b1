"""`hallo3 train` and torchrun as a user runs them."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster import cli
from tests.training.feature_datasets import codec, dataset_of
from training.run_folder import alone


def given(dataset: Path, tmp_path: Path, *more: str) -> list[str]:
    """The command's words for a small run on the CPU."""
    file = tmp_path / "run.yaml"
    file.write_text(
        "phase: audio\n"
        "model: {preset: tiny, latent_frames: 3, latent_height: 4, latent_width: 4, out_channels: 8, "
        "in_channels: 16, face: {embedding_dim: 128, dim: 64}}\n"
        "encoders: {speech: log_mel}\nsamples: {window_stride: 8}\ndevice: cpu\nprecision: fp32\n"
        "trainable: all\noptimizer: {learning_rate: 1.0e-3, clip_norm: 1.0, ema_decay: 0.9}\n"
        "batch: 2\nnum_workers: 2\nmax_steps: 6\nvalidation: {every_steps: null}\n"
        "tracking: {enabled: false}\ncheckpoints: {every_steps: 2}\n"
    )
    return [str(file), f"dataset={dataset}", f"output={tmp_path / 'run'}", *more]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("train") / "dataset"
    dataset_of(root, people=2)
    return root


def test_a_wrong_key_ends_with_status_2_before_anything_is_made(tmp_path, capsys) -> None:
    assert cli.main(["train", *given(tmp_path, tmp_path, "max_step=3")]) == 2
    assert "max_step: unknown key (given 3); did you mean max_steps?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dataset_that_is_not_there_ends_with_status_2_and_leaves_no_run(tmp_path, capsys) -> None:
    assert cli.main(["train", *given(tmp_path / "nowhere", tmp_path)]) == 2
    assert "nowhere is no dataset" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_run_that_another_process_writes_ends_with_status_1(dataset, tmp_path, capsys) -> None:
    with alone(tmp_path / "run"):
        assert cli.main(["train", *given(dataset, tmp_path)]) == 1
    assert f"is being written by process {os.getpid()}" in capsys.readouterr().err


def losses(run: Path) -> dict[int, float]:
    """Of every step, by its number."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def started(words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.cli", "train", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while not ((run / "metrics.jsonl").exists() and step in losses(run)):
        assert time.monotonic() < deadline, f"step {step} did not come"
        time.sleep(0.02)


def workers_of(driver: int) -> list[psutil.Process]:
    return [
        each for each in psutil.Process(driver).children(True) if "RayTrainWorker" in " ".join(each.cmdline())
    ]


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory) -> Path:
    """A run of 20 steps that nobody disturbs, and that learns."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = started(given(dataset, folder, "max_steps=20"))
    assert done.wait(280) == 0, done.communicate()[1]
    return folder / "run"


@pytest.mark.slow
def test_a_run_ends_with_a_model_that_others_load(undisturbed) -> None:
    from training.model.loading import load_model

    found = losses(undisturbed)
    assert [*found] == [*range(1, 21)]
    assert sum(list(found.values())[-5:]) < sum(list(found.values())[:5])
    _, report = load_model(undisturbed / "export")
    assert not report.initialised
    assert "20" in (undisturbed / "export" / "README.md").read_text()
    assert (undisturbed / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_worker_that_is_killed_at_any_step_changes_no_loss(dataset, undisturbed, tmp_path) -> None:
    step = random.SystemRandom().randrange(3, 16)
    driver = started(given(dataset, tmp_path, "max_steps=20"))
    wait_for_step(tmp_path / "run", step)
    random.SystemRandom().choice(workers_of(driver.pid)).kill()
    told = driver.communicate(timeout=280)[1]
    assert driver.returncode == 0, told
    assert "was lost; start 2 of all workers" in told
    assert losses(tmp_path / "run") == losses(undisturbed), f"killed at step {step}"


@pytest.mark.slow
def test_a_driver_that_is_killed_or_stopped_goes_on_with_the_same_command(
    dataset, undisturbed, tmp_path
) -> None:
    words = given(dataset, tmp_path, "max_steps=20")
    run = tmp_path / "run"
    for number, after in ((signal.SIGKILL, 3), (signal.SIGTERM, 9)):
        driver = started(words)
        wait_for_step(run, after)
        driver.send_signal(number)
        driver.communicate(timeout=200)
        assert driver.returncode == (143 if number == signal.SIGTERM else -9)
        if number == signal.SIGTERM:  # saved where it stopped, wherever that was
            newest = (run / "checkpoints" / "latest").read_text().strip()
            assert newest == f"step-{max(losses(run)):08d}"
    last = started(words)
    told = last.communicate(timeout=280)[1]
    assert last.returncode == 0, told
    assert losses(run) == losses(undisturbed)


@pytest.mark.slow
def test_torchrun_trains_as_ray_does(dataset, undisturbed, tmp_path) -> None:
    words = given(dataset, tmp_path, "max_steps=20")
    done = torchrun("--nproc_per_node", "2", "-m", "training", *words)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(undisturbed)
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut off", "gone"])
def test_features_that_are_lost_during_a_run_end_it_in_words(dataset, tmp_path, fault) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    encoder = f"encoders.autoencoder={codec(tmp_path / 'codec')}"
    words = given(copy, tmp_path, "max_steps=4000", "samples.max_bad_fraction=0.2", encoder)
    assert cli.main(["dataset", "precompute", str(copy), "--for", *words]) == 0
    driver = started([*words, "samples.features=stored"])
    wait_for_step(tmp_path / "run", 30)
    for shard in (copy / "features").glob("*/*.tar"):
        os.truncate(shard, 100) if fault == "cut off" else shard.unlink()
    told = driver.communicate(timeout=200)[1]
    assert driver.returncode == 1, told
    assert "samples are broken" in told
    assert "max_bad_fraction=0.2" in told
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()


def torchrun(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"OMP_NUM_THREADS": "1"} | env
    )


@pytest.mark.slow
def test_torchrun_with_another_number_of_processes_is_told_what_to_change(dataset, tmp_path) -> None:
    done = torchrun("--nproc_per_node", "1", "-m", "training", *given(dataset, tmp_path))
    assert done.returncode == 1
    assert "num_workers=2, and torchrun started 1 processes; give num_workers=1" in done.stderr


@pytest.mark.slow
def test_without_torchrun_the_command_says_how_to_start(dataset, tmp_path) -> None:
    command = [sys.executable, "-m", "training", *given(dataset, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "start with torchrun --nproc_per_node 2 -m training" in done.stderr


@pytest.mark.slow
def test_a_port_that_is_in_use_is_named(dataset, tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "training", *given(dataset, tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=os.environ | place)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use by another process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_torchrun_tells_of_wrong_input_once_and_ends(tmp_path) -> None:
    done = torchrun("--nproc_per_node", "2", "-m", "training", *given(tmp_path / "nowhere", tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("nowhere is no dataset") == 1
