"""RUN/config.yaml drives a run; nobody changes it by accident, and one at a time writes the run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data_pipeline.dataset import Dataset, commit
from training.config import TrainConfig
from training.run_folder import RunFolderError, RunInUse, alone, save, saved_config, settle


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A dataset of no clips at version 1: what counts here is that it has versions."""
    root = tmp_path / "dataset"
    make_version(root, 1)
    return root


def make_version(root: Path, number: int) -> None:
    from data_pipeline.dataset import Version

    nothing = {"manifest_sha256": {}, "shards": {}, "weights": {}, "config": {}}
    commit(root, "test", Version(number, 2, "0", "a", f"b{number}", **nothing))


def given(dataset: Path, output: Path, **changes: object) -> TrainConfig:
    values = {"dataset": str(dataset), "output": str(output), "phase": "audio", "model": "tiny"}
    return TrainConfig.model_validate(values | changes)


@pytest.fixture
def run(dataset, tmp_path) -> Path:
    root = tmp_path / "run"
    root.mkdir()
    save(settle(given(dataset, root, max_steps=50)))
    return root


def test_a_run_keeps_the_datasets_version_that_it_began_with(run, dataset) -> None:
    make_version(dataset, 2)
    assert Dataset.open(dataset).version.version == 2
    assert settle(given(dataset, run, max_steps=50)).datasets[0].version == 1


def test_what_nobody_gave_comes_from_the_saved_configuration(run, dataset) -> None:
    assert settle(given(dataset, run)).max_steps == 50


def test_another_value_is_an_error_with_key_saved_and_given_value(run, dataset) -> None:
    changed = given(dataset, run, max_steps=60, optimizer={"learning_rate": 1e-3})
    with pytest.raises(RunFolderError) as refused:
        settle(changed)
    assert "max_steps: saved 50, given 60" in str(refused.value)
    assert "optimizer.learning_rate: saved 1e-05, given 0.001" in str(refused.value)
    assert "--allow-change max_steps optimizer.learning_rate" in str(refused.value)


def test_an_allowed_change_counts_from_then_on_and_what_was_stays_readable(run, dataset) -> None:
    changed = settle(
        given(dataset, run, max_steps=60, optimizer={"learning_rate": 1e-3}), ["max_steps", "optimizer"]
    )
    assert (changed.max_steps, changed.optimizer.learning_rate) == (60, 1e-3)
    save(changed)
    assert settle(given(dataset, run)).max_steps == 60
    assert yaml.safe_load((run / "config.before-1.yaml").read_text())["max_steps"] == 50


def test_a_change_that_does_not_go_with_what_is_saved_is_refused(dataset, tmp_path) -> None:
    save(settle(given(dataset, tmp_path / "six", batch=6)))
    with pytest.raises(RunFolderError, match=r"with what was changed: .*batch \(6\) must be a multiple"):
        settle(given(dataset, tmp_path / "six", num_workers=4), ["num_workers"])


def test_a_key_that_is_none_cannot_be_allowed(run, dataset) -> None:
    with pytest.raises(RunFolderError, match="--allow-change max_step: there is no such key"):
        settle(given(dataset, run), ["max_step"])


def test_the_same_configuration_from_another_folder_is_the_same(dataset, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    save(settle(given(Path("dataset"), Path("run"))))
    monkeypatch.chdir("/")
    again = settle(given(dataset, tmp_path / "run"))
    assert again.datasets[0].uri == str(dataset)
    assert again.output == str(tmp_path / "run")


def test_a_run_that_was_moved_goes_on_where_it_lies(run, dataset, tmp_path) -> None:
    run.rename(tmp_path / "moved")
    assert settle(given(dataset, tmp_path / "moved")).output == str(tmp_path / "moved")


def test_saving_the_same_again_writes_nothing(run) -> None:
    before = (run / "config.yaml").stat().st_mtime_ns
    saved = saved_config(run)
    assert saved is not None
    save(saved)
    assert (run / "config.yaml").stat().st_mtime_ns == before
    assert not list(run.glob("config.before-*"))


def test_a_saved_configuration_that_is_damaged_is_named(run, dataset) -> None:
    (run / "config.yaml").write_text("dataset: [")
    with pytest.raises(RunFolderError, match=r"config\.yaml"):
        settle(given(dataset, run))


def test_a_second_driver_is_told_who_writes_the_run_until_the_first_dies(tmp_path) -> None:
    code = (
        "import sys, pathlib; from training.run_folder import alone\n"
        "with alone(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(RunInUse, match=f"being written by process {first.pid} on"), alone(tmp_path):
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with alone(tmp_path):
        pass
