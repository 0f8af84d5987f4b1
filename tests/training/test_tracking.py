"""MLflow gets every step once, whenever it can be reached; training never waits for it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from training.config import TrainConfig
from training.metrics import MetricsError, MetricsLog
from training.mlflow_run import GrowingRows, MlflowRun, Sent, parameters, without_password
from training.run_folder import save
from training.tracking import Patience, reason_of, send, tracked, tracking_uri

QUICK = Patience(every_s=0.1, retry_s=0.2)


def config_of(folder: Path, uri: str | None = None, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "dataset": str(folder / "dataset"),
        "output": str(folder / "run"),
        "phase": "audio",
        "model": "tiny",
        "tracking": {"uri": uri},
    }
    return TrainConfig.model_validate(values | changes)


def write(run: Path, first: int, last: int, goes_on_from: int | None = None, judged_at: int = 0) -> None:
    with MetricsLog(run / "metrics.jsonl", goes_on_from) as log:
        for step in range(first, last + 1):
            log.write(step, "train", 1e9 + step, {"loss": 1 / step, "gradient_norm": 0.5})
            if step == judged_at:
                log.write(step, "held_out", 1e9 + step, {"loss": 0.7, "loss_0.1": 0.3})


def client_of(config: TrainConfig) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(config))


def runs_of(config: TrainConfig) -> list[Any]:
    client = client_of(config)
    return client.search_runs([client.get_experiment_by_name("hallo3").experiment_id])


def steps_in_mlflow(config: TrainConfig, name: str = "train/loss") -> list[int]:
    client, run_id = client_of(config), Sent.of(Path(config.output), tracking_uri(config)).run_id
    return sorted(metric.step for metric in client.get_metric_history(run_id, name))


def until(there: Callable[[], bool], within_s: float = 60.0) -> None:
    end_s = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.05)


def sent_up_to(config: TrainConfig) -> int:
    path = Path(config.output) / "mlflow.json"
    return json.loads(path.read_text())["steps"].get("train", 0) if path.exists() else 0


# What is to be sent, without MLflow.


def test_rows_come_in_batches_and_the_same_ones_until_they_are_sent(tmp_path) -> None:
    write(tmp_path, 1, 5)
    rows = GrowingRows(tmp_path / "metrics.jsonl")
    first = rows.batch({}, n_metrics=12)
    assert [row["step"] for row in first] == [1, 2]
    assert rows.batch({}, n_metrics=12) == first
    rows.done()
    assert [row["step"] for row in rows.batch({}, n_metrics=1000)] == [3, 4, 5]
    rows.done()
    assert rows.batch({}, n_metrics=1000) == []


def test_a_row_that_is_being_written_waits_for_its_end(tmp_path) -> None:
    write(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    rows = GrowingRows(path)
    assert [row["step"] for row in rows.batch({}, 1000)] == [1]
    rows.done()
    with path.open("ab") as file:
        file.write(whole[-5:])
    assert [row["step"] for row in rows.batch({}, 1000)] == [2]


def test_a_run_that_goes_on_writes_the_file_anew_and_no_step_is_sent_twice_or_left_out(tmp_path) -> None:
    write(tmp_path, 1, 9)
    rows = GrowingRows(tmp_path / "metrics.jsonl")
    assert len(rows.batch({}, 1000)) == 9
    rows.done()
    write(tmp_path, 6, 30, goes_on_from=5)
    assert [row["step"] for row in rows.batch({"train": 9}, 1000)] == list(range(10, 31))


def test_kinds_are_counted_apart_and_events_are_not_metrics(tmp_path) -> None:
    write(tmp_path, 1, 4, judged_at=2)
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(4, "event", 1e9, {"event": "worker 1 was lost"})
    rows = GrowingRows(tmp_path / "metrics.jsonl").batch({"train": 3}, 1000)
    assert [(row["kind"], row["step"]) for row in rows] == [("held_out", 2), ("train", 4)]


def test_before_the_first_step_there_is_nothing(tmp_path) -> None:
    assert GrowingRows(tmp_path / "metrics.jsonl").batch({}, 1000) == []


def test_a_line_that_is_no_row_is_named(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text("loss 0.5\n")
    with pytest.raises(MetricsError, match=r"metrics.jsonl: not a row of metrics: b'loss 0.5"):
        GrowingRows(tmp_path / "metrics.jsonl").batch({}, 1000)


def test_the_configuration_becomes_flat_params(tmp_path) -> None:
    shares = [{"uri": "s3://a", "weight": 2.0, "version": 3}, {"uri": "b"}]
    given = parameters(config_of(tmp_path, dataset=shares, optimizer={"learning_rate": 2e-5}))
    assert given["optimizer.learning_rate"] == "2e-05"
    assert given["dataset.0.version"] == "3"
    assert given["dataset.1.uri"] == "b"
    assert given["validation.split"] == "val"


def test_a_long_value_is_cut_to_what_mlflow_takes(tmp_path) -> None:
    clips = [f"clip{number:06d}" for number in range(1000)]
    assert len(parameters(config_of(tmp_path, samples={"clips": clips}))["samples.clips"]) == 6000


def test_where_a_run_is_tracked(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(config_of(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri(config_of(tmp_path)) == "http://tracking:5000"
    assert tracking_uri(config_of(tmp_path, "http://mine:5000")) == "http://mine:5000"


def test_a_password_is_neither_shown_nor_written_down(tmp_path) -> None:
    assert without_password("https://me:secret@there:5000/x") == "https://me:***@there:5000/x"
    run = MlflowRun(config_of(tmp_path, "https://me:secret@there:5000"), "https://me:secret@there:5000")
    run.note(status="RUNNING")
    assert "secret" not in (tmp_path / "run" / "mlflow.json").read_text()


def test_the_reason_is_what_the_system_said() -> None:
    error = RuntimeError("API request failed with an exception of many words")
    with pytest.raises(ConnectionRefusedError) as refused:
        socket.create_connection(("127.0.0.1", closed_port()), timeout=5)
    error.__cause__ = refused.value
    assert reason_of(error) == "Connection refused"
    assert reason_of(ValueError("no such store\nand more")) == "no such store"


def test_an_untracked_run_imports_nothing_of_mlflow(tmp_path) -> None:
    config = config_of(tmp_path, tracking={"enabled": False})
    write(tmp_path / "run", 1, 3)
    with tracked(config, print, QUICK):
        pass
    assert not (tmp_path / "run" / "mlflow.json").exists()


@pytest.mark.slow
def test_before_the_first_step_mlflow_is_not_imported(tmp_path) -> None:
    code = (
        "import sys, time\n"
        "from training.config import TrainConfig\n"
        "from training.tracking import Patience, tracked\n"
        "config = TrainConfig.model_validate(\n"
        "    {'dataset': 'd', 'output': sys.argv[1], 'phase': 'audio', 'model': 'tiny'})\n"
        "with tracked(config, print, Patience(every_s=0.01)):\n"
        "    time.sleep(0.2)\n"
        "print('mlflow' in sys.modules, 'sqlalchemy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False False\n", "")


# An MLflow that does not answer.


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_without_a_server_training_goes_on_with_one_warning_and_an_end_in_words(tmp_path) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    config = config_of(tmp_path, uri)
    told: list[str] = []
    patience = Patience(every_s=0.05, retry_s=0.05, end_s=0.5)
    with tracked(config, lambda report: told.append(report["event"]), patience):
        write(tmp_path / "run", 1, 5)
        until(lambda: bool(told))
        environment = dict(os.environ)
        time.sleep(0.3)
    first, last = told
    assert first.startswith(f"MLflow at {uri} cannot be used now (Connection refused); training goes on")
    assert "has this run up to step 0 (Connection refused)" in last
    assert f"python -m training.tracking {tmp_path / 'run'}" in last
    assert environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


# MLflow's own database, and its server.


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """One for all: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def config(tmp_path, database) -> TrainConfig:
    """A run with its folder, in a store that other tests' runs are in as well."""
    given = config_of(tmp_path, database)
    Path(given.output).mkdir()
    save(given)
    return given


@pytest.mark.slow
def test_a_run_is_in_the_database_with_steps_params_tags_files_and_its_end(config, tmp_path) -> None:
    told: list[str] = []
    run = Path(config.output)
    with tracked(config, lambda report: told.append(report["event"]), QUICK):
        write(run, 1, 150, judged_at=100)
        (run / "samples" / "step-00000100").mkdir(parents=True)
        (run / "samples" / "step-00000100" / "a.mp4").write_bytes(b"a clip")
        (run / "report.html").write_text("a report")
    assert told == []
    assert steps_in_mlflow(config) == list(range(1, 151))
    assert steps_in_mlflow(config, "held_out/loss_0.1") == [100]
    client = client_of(config)
    (found,) = [one for one in runs_of(config) if one.data.tags["run_folder"] == str(run)]
    assert found.info.status == "FINISHED"
    assert found.info.start_time == round((1e9 + 1) * 1000)
    assert found.data.params["model.num_layers"] == str(config.model.num_layers)
    assert found.data.tags["phase"] == "audio"
    files = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert files == {"config.yaml", "metrics.jsonl", "report.html", "samples"}
    (clip,) = client.list_artifacts(found.info.run_id, "samples/step-00000100")
    assert clip.file_size == len(b"a clip")


@pytest.mark.slow
def test_a_run_that_goes_on_goes_on_in_the_same_mlflow_run(config) -> None:
    run = Path(config.output)
    write(run, 1, 9)
    with pytest.raises(KeyError), tracked(config, print, QUICK):
        raise KeyError("whatever ends a run")
    first = Sent.of(run, tracking_uri(config)).run_id
    assert client_of(config).get_run(first).info.status == "FAILED"
    changed = config.model_copy(update={"max_steps": 77})
    with tracked(changed, print, QUICK):
        write(run, 6, 20, goes_on_from=5)
    assert steps_in_mlflow(config) == list(range(1, 21))
    again = client_of(config).get_run(first)
    assert again.info.status == "FINISHED"
    assert again.data.tags["changed.max_steps"] == "77"


@pytest.mark.slow
def test_a_stopped_run_is_killed_and_not_failed(config) -> None:
    with tracked(config, print, QUICK) as ending:
        write(Path(config.output), 1, 2)
        ending.killed = True
    run_id = Sent.of(Path(config.output), tracking_uri(config)).run_id
    assert client_of(config).get_run(run_id).info.status == "KILLED"


@pytest.mark.slow
def test_what_was_sent_and_not_noted_is_not_there_twice(config) -> None:
    """As after a kill between both; and the run that MLflow made is found by its key."""
    run, uri = Path(config.output), tracking_uri(config)
    write(run, 1, 40)
    send(config)
    first = MlflowRun(config, uri)
    run_id = first.sent.run_id
    first.note(run_id=None, steps={}, status_sent="")
    send(config)
    assert Sent.of(run, uri).run_id == run_id
    assert steps_in_mlflow(config) == list(range(1, 41))


@pytest.mark.slow
def test_a_run_that_was_removed_from_mlflow_is_sent_anew(config) -> None:
    run, uri = Path(config.output), tracking_uri(config)
    write(run, 1, 10)
    send(config)
    removed = Sent.of(run, uri).run_id
    client_of(config).delete_run(removed)
    write(run, 11, 12)
    send(config)
    assert Sent.of(run, uri).run_id != removed
    assert steps_in_mlflow(config) == list(range(1, 13))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_no_number_there_either(config) -> None:
    with MetricsLog(Path(config.output) / "metrics.jsonl") as log:
        log.write(1, "train", 1e9, {"loss": float("nan"), "learning_rate": 1e-5})
    send(config)
    run_id = Sent.of(Path(config.output), tracking_uri(config)).run_id
    (metric,) = client_of(config).get_metric_history(run_id, "train/loss")
    assert metric.value != metric.value


@pytest.mark.slow
def test_the_rest_of_a_run_whose_driver_was_killed_is_sent_by_command(config, tmp_path) -> None:
    run = Path(config.output)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.training.test_tracking import *\n"
        "config = saved_config(Path(sys.argv[1])).model_copy(update={'dataset': 'gone'})\n"
        "with tracked(config, print, QUICK):\n"
        "    write(Path(sys.argv[1]), 1, 5)\n"
        "    until(lambda: sent_up_to(config) == 5)\n"
        "    write(Path(sys.argv[1]), 6, 8)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    ).replace("import *", "import *\nfrom training.run_folder import saved_config")
    killed = subprocess.run([sys.executable, "-c", code, str(run)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    done = subprocess.run(
        [sys.executable, "-m", "training.tracking", str(run)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert steps_in_mlflow(config) == list(range(1, 9))
    run_id = Sent.of(run, tracking_uri(config)).run_id
    assert client_of(config).get_run(run_id).info.status == "KILLED"


@pytest.mark.slow
def test_a_folder_that_is_no_run_is_refused_in_words(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training.tracking", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert "is no run's folder: it has no config.yaml" in done.stderr


class Server:
    """`mlflow server` on a port and a folder of its own, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, closed_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        where += ["--artifacts-destination", str(self.folder / "artifacts")]
        where += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", *where]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            )
        until(self._answers, within_s=180)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        from urllib.error import URLError
        from urllib.request import urlopen

        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    made = Server(folder)
    made.start()
    yield made
    made.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_is_killed_and_started_again_has_every_step_once(server, tmp_path) -> None:
    config = config_of(tmp_path, server.uri)
    run = Path(config.output)
    told: list[str] = []
    with tracked(config, lambda report: told.append(report["event"]), QUICK):
        write(run, 1, 30)
        until(lambda: sent_up_to(config) == 30)
        server.kill()
        write(run, 31, 60)
        until(lambda: len(told) == 1)
        server.start()
        until(lambda: sent_up_to(config) == 60)
        server.kill()
        write(run, 61, 90)
        until(lambda: len(told) == 3)
        server.start()
        (run / "report.html").write_text("a report")
    assert ["cannot be used now" in words for words in told] == [True, False, True, False]
    assert ["answers again" in words for words in told] == [False, True, False, True]
    assert steps_in_mlflow(config) == list(range(1, 91))
    (found,) = runs_of(config)
    assert found.info.status == "FINISHED"
    files = {file.path for file in client_of(config).list_artifacts(found.info.run_id)}
    assert files == {"metrics.jsonl", "report.html"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_next_start_sends_what_a_run_without_a_server_left(server, tmp_path) -> None:
    config = config_of(tmp_path, server.uri)
    server.kill()
    told: list[str] = []
    with tracked(config, lambda report: told.append(report["event"]), Patience(0.1, 0.2, end_s=2)):
        write(Path(config.output), 1, 12)
    assert "has this run up to step 0" in told[-1]
    server.start()
    with tracked(config, print, QUICK):
        write(Path(config.output), 11, 20, goes_on_from=10)
    assert steps_in_mlflow(config) == list(range(1, 21))
    (found,) = runs_of(config)
    assert found.info.status == "FINISHED"
