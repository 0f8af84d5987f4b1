"""MLflow has figures, files and lineage; what it could not be sent is sent by the same command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.config import EvaluationConfig, EvaluationTracking
from evaluation.gate import parse_rule
from evaluation.lineage import about_checkpoint
from evaluation.report import Compared, write_report
from evaluation.results import Evaluation, write_results
from evaluation.tracking import CHAMPION, metrics_of, send, tracking_uri
from tests.evaluation.test_report import TITLE, compared, evaluation
from training.tracking import reason_of


def exported(run: Path) -> Path:
    """As `hallo3 train` leaves it: weights, config.json, and the run in MLflow."""
    (run / "export").mkdir(parents=True)
    (run / "export" / "model.safetensors").write_bytes(b"weights of " + run.name.encode())
    data = {"name": "talking", "version": 3, "digest": "0123", "clips": 7}
    state = {"step": 2000, "samples": {"datasets": [data]}}
    described = {"training": {"phase": "audio", "state": state}}
    (run / "export" / "config.json").write_text(json.dumps(described))
    (run / "mlflow.json").write_text(json.dumps({"uri": "sqlite:///x", "key": "k", "run_id": "r1"}))
    return run


def written(folder: Path) -> tuple[Evaluation, EvaluationConfig]:
    """Results and a report, as an evaluation leaves them."""
    found = replace(evaluation(folder), checkpoint=about_checkpoint(exported(folder / "model")))
    about = {"dataset": "held out", "version": 2, "digest": "4567"}
    names = {TITLE: "hdtf", "wild": "wild"}
    benchmarks = [replace(one, name=names[one.name], about=about) for one in found.benchmarks]
    rows = [row | {"benchmark": names[row["benchmark"]]} for row in found.rows]
    found = replace(found, benchmarks=benchmarks, rows=rows)
    output = folder / "out"
    write_results(found, output)
    write_report(found, output, 1)
    given: dict[str, Any] = {"benchmark": "x", "output": str(output), "checkpoint": str(folder / "model")}
    return found, EvaluationConfig.model_validate(given)


def passed() -> Compared:
    return replace(compared(), rules=[parse_rule("fvd > +50%")], broken=[])


def client_of(config: EvaluationConfig) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(config))


def test_where_a_checkpoint_comes_from(tmp_path) -> None:
    about = about_checkpoint(exported(tmp_path / "model"))
    assert about["datasets"] == [{"name": "talking", "version": 3, "digest": "0123"}]
    assert (about["step"], about["run"], about["mlflow_run"]) == (2000, str(tmp_path / "model"), "r1")
    assert about["sha256"] == about_checkpoint(tmp_path / "model" / "export")["sha256"]
    assert about["sha256"] != about_checkpoint(exported(tmp_path / "other"))["sha256"]


def test_metrics_are_named_by_benchmark_and_figure_and_what_is_not_known_is_left_out(tmp_path) -> None:
    found = metrics_of(evaluation(tmp_path))
    assert found["hdtf  more/fvd"] == 512.3  # without the signs that MLflow does not take
    assert (found["hdtf  more/fvd/low"], found["hdtf  more/fvd/n"]) == (480, 12)
    assert found["hdtf  more/real/fvd"] == 90.1
    assert "hdtf  more/real/fvd/low" not in found
    assert found["hdtf  more/language/de/sync_c"] == 6.2
    assert found["hdtf  more/scored"] == 12


@pytest.mark.slow
def test_mlflow_has_it_all_and_one_can_walk_from_a_figure_to_its_clips(tmp_path) -> None:
    found, config = written(tmp_path)
    run_id = send(found, config, passed())
    client = client_of(config)
    run = client.get_run(run_id)
    assert run.data.metrics["wild/sync_c"] == 6.2
    assert client.get_metric_history(run_id, "wild/sync_c")[0].step == 2000
    assert run.data.params["clip.fps"] == "25"
    tags = run.data.tags
    assert tags["checkpoint_sha256"] == found.checkpoint["sha256"]
    assert (tags["training_run"], tags["training_mlflow_run"]) == (str(tmp_path / "model"), "r1")
    assert tags["trained_on"] == "talking, version 3 (0123)"
    assert (tags["dataset.wild"], tags["dataset_digest.wild"]) == ("held out, version 2", "4567")
    assert tags["protocol.wild"] == "34" * 32
    assert tags["gate"] == "passed"
    assert {one.path for one in client.list_artifacts(run_id)} == {
        "figures.json",
        "clips.parquet",
        "report",
        "model",
    }
    assert len(client.list_artifacts(run_id, "report/clips/wild")) == 2
    champion = client.get_model_version_by_alias("hallo3", CHAMPION)
    assert champion.tags["checkpoint_sha256"] == found.checkpoint["sha256"]
    assert send(found, config, passed()) == run_id  # once
    assert len(client.search_model_versions("name='hallo3'")) == 1


@pytest.mark.slow
def test_the_alias_stays_where_the_gate_fails_and_moves_where_it_passes(tmp_path) -> None:
    found, config = written(tmp_path)
    send(found, config, passed())
    (tmp_path / "model" / "export" / "model.safetensors").write_bytes(b"other weights")
    worse = replace(found, checkpoint=about_checkpoint(tmp_path / "model"))
    write_results(worse, Path(config.output))
    client = client_of(config)
    assert send(worse, config, compared()) is not None
    assert len(client.search_model_versions("name='hallo3'")) == 2
    alias = client.get_model_version_by_alias("hallo3", CHAMPION)
    assert alias.tags["checkpoint_sha256"] == found.checkpoint["sha256"]
    send(worse, config, passed())
    alias = client.get_model_version_by_alias("hallo3", CHAMPION)
    assert alias.tags["checkpoint_sha256"] == worse.checkpoint["sha256"]


def test_a_server_that_is_not_there_is_told_in_words_and_the_run_is_known_when_it_is_there(tmp_path) -> None:
    from mlflow.exceptions import MlflowException

    found, config = written(tmp_path)
    off = config.model_copy(update={"tracking": EvaluationTracking(enabled=False)})
    assert send(found, off, passed()) is None
    nowhere = config.model_copy(update={"tracking": EvaluationTracking(uri="http://127.0.0.1:9")})
    with pytest.raises(MlflowException) as caught:
        send(found, nowhere, passed())
    assert reason_of(caught.value) == "Connection refused"


@pytest.mark.slow
def test_what_was_sent_by_half_is_gone_on_with(tmp_path) -> None:
    found, config = written(tmp_path)
    clips = Path(config.output) / "clips.parquet"
    clips.rename(tmp_path / "away")
    with pytest.raises(OSError, match=r"clips\.parquet"):
        send(found, config, passed())
    half = json.loads((Path(config.output) / "mlflow.json").read_text())
    assert not half["whole"]
    (tmp_path / "away").rename(clips)
    assert send(found, config, passed()) == half["run_id"]
    assert client_of(config).get_run(half["run_id"]).info.status == "FINISHED"
