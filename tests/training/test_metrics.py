"""Every step is in the file once, whatever happens to the run."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import MetricsError, MetricsLog, read_metrics


def steps(path: Path, kind: str = "train") -> list[int]:
    return [row["step"] for row in read_metrics(path) if row["kind"] == kind]


def write(path: Path, first: int, last: int, last_step: int | None = None) -> None:
    with MetricsLog(path, last_step) as log:
        for step in range(first, last + 1):
            log.write(step, "train", 1e9 + step, {"loss": 1 / step})


def test_a_run_that_goes_on_from_a_checkpoint_has_every_step_once(tmp_path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    write(path, 1, 9)
    write(path, 6, 12, last_step=5)
    assert steps(path) == list(range(1, 13))


def test_what_happened_stays_when_the_steps_after_a_checkpoint_are_done_again(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 9)
    with MetricsLog(path) as log:
        log.write(9, "event", 1e9, {"what": "worker lost"})
    write(path, 6, 7, last_step=5)
    assert steps(path, "event") == [9]
    assert steps(path) == [1, 2, 3, 4, 5, 6, 7]


def test_a_loss_that_is_no_number_is_null_and_named(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(1, "train", 1e9, {"loss": math.nan, "loss_max": math.inf, "learning_rate": 0.1})
    (row,) = read_metrics(path)
    assert row["loss"] is None
    assert row["not_finite"] == ["loss", "loss_max"]
    assert row["learning_rate"] == 0.1


@given(cut=st.integers(1, 200))
def test_a_line_that_a_crash_cut_off_is_taken_away(cut, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    write(path, 1, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = whole[:-cut].count(b"\n")
    write(path, left + 1, 4)
    assert path.read_bytes() == whole


def test_what_was_written_is_there_after_a_kill(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    code = (
        "import os, pathlib, signal, sys\n"
        "from training.metrics import MetricsLog\n"
        "log = MetricsLog(pathlib.Path(sys.argv[1]))\n"
        "[log.write(step, 'train', 1e9, {'loss': 0.5}) for step in range(1, 51)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert steps(path) == list(range(1, 51))


@pytest.mark.parametrize("line", ["loss 0.5", "[1]", '{"loss": 0.5}'])
def test_a_file_of_something_else_is_refused_in_words(tmp_path, line) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(MetricsError, match="line 1: not a row of metrics"):
        MetricsLog(path)
    assert path.read_text() == line + "\n"
