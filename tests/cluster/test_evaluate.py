"""`hallo3 evaluate` as a user runs it: what is wrong is said before anything starts; and the gate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster import cli
from tests.evaluation.benchmark_makers import METRICS, grey_list, grey_videos, words

HEAVY = ("torch", "ray", "mlflow", "cv2", "av")


def given(tmp_path: Path, *more: str) -> list[str]:
    """The command's words, and a list of three clips."""
    listed = tmp_path / "list.csv"
    if not listed.exists():
        grey_list(tmp_path, {"anna": 100, "ben": 120, "cleo": 140})
    return words(listed, tmp_path / "videos", tmp_path / "out", *more)


def refused(capsys, arguments: list[str]) -> str:
    assert cli.main(arguments) == 2
    return capsys.readouterr().err


def test_a_wrong_key_is_said_before_anything_heavy_is_imported() -> None:
    arguments = ["evaluate", "default", "benchmark.uri=data", "benchmark.splitt=test", "output=out"]
    code = f"from cluster import cli; import sys; print(cli.main({arguments!r})); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert "benchmark.0.splitt: unknown key (given 'test'); did you mean split?" in done.stderr
    status, loaded = done.stdout.splitlines()
    assert status == "2"
    assert not set(HEAVY) & set(loaded.split())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["metrics=[fdi]"], "no metric is called 'fdi'; there are fid"),
        (["checkpoint=run"], "give one (given"),
        (["videos=null"], "give checkpoint=RUN to make videos with"),
        (["benchmark={uri: x, format: hdtf}"], "format hdtf lists no files: give videos=FOLDER"),
        (["benchmark=[a/x.csv, b/x.csv]"], "two benchmarks are called x"),
        (["benchmark=[]"], "benchmark: "),
        (["output=s3://bucket/out"], "is written by all workers at once"),
        (["--fail-if", "luminance > 1"], "how figures may change against --baseline"),
        (["--watch", "run"], "leave out checkpoint and videos"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, capsys, more, expected) -> None:
    assert expected.removesuffix(" (given") in refused(capsys, given(tmp_path, *more))
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_named(tmp_path, capsys) -> None:
    assert "no.csv: cannot be read: No such file" in refused(
        capsys, given(tmp_path, f"benchmark={tmp_path}/no.csv")
    )
    assert "nowhere is no dataset" in refused(capsys, given(tmp_path, f"benchmark={tmp_path}/nowhere"))
    assert "nowhere: no evaluation is there" in refused(
        capsys, given(tmp_path, "--baseline", f"{tmp_path}/nowhere")
    )
    assert "metrics: nowhere:Metric cannot be imported" in refused(
        capsys, given(tmp_path, "metrics=[nowhere:Metric]")
    )
    missing = given(tmp_path, "videos=null", f"checkpoint={tmp_path}/nowhere")
    assert "nowhere: no such checkpoint" in refused(capsys, missing)
    watching = given(tmp_path, "videos=null", "--watch", str(tmp_path))
    assert "is no training run's folder" in refused(capsys, watching)


@pytest.mark.slow
def test_from_videos_to_figures_and_a_gate_that_stops_a_release(tmp_path, capsys) -> None:
    grey_videos(tmp_path / "videos", {"anna": 100, "ben": 120, "cleo": 140})
    assert cli.main(given(tmp_path)) == 0
    said = capsys.readouterr()
    assert "list: 3 of 3 clips scored, protocol " in said.out
    assert "luminance" in said.out
    assert (tmp_path / "out" / "report" / "index.html").exists()
    assert pq.read_table(tmp_path / "out" / "clips.parquet").num_rows == 3

    unreachable = ["tracking.enabled=true", "tracking.uri=http://127.0.0.1:9"]
    assert cli.main(given(tmp_path, *unreachable)) == 1
    said = capsys.readouterr()
    assert "MLflow at http://127.0.0.1:9 cannot be used now (Connection refused)" in said.err
    assert "and the same command sends it" in said.err

    brighter = grey_videos(tmp_path / "brighter", {"anna": 110, "ben": 130, "cleo": 150})
    second = [f"videos={brighter}", f"output={tmp_path / 'second'}", f"cache={tmp_path / 'out' / 'real'}"]
    baseline = ["--baseline", str(tmp_path / "out")]
    assert cli.main(given(tmp_path, *second, *baseline, "--fail-if", "luminance > +5%")) == 3
    said = capsys.readouterr()
    assert "gate: luminance > +5%: list/luminance went from 1" in said.err
    assert "on 3 clips" in said.err
    assert cli.main(given(tmp_path, *second, *baseline, "--fail-if", "luminance > +15")) == 0
    assert "gate: passed, 1 rules" in capsys.readouterr().out

    other_rule = given(tmp_path, *second, *baseline, "--fail-if", "contrast > 1")
    assert "there is no figure contrast; there are luminance, " in refused(capsys, other_rule)
    other_seed = given(tmp_path, *second, "seed=3", *baseline)
    assert "seed: 0 (baseline), 3 (this one)" in refused(capsys, other_seed)


def wild(tmp_path: Path) -> list[str]:
    """The command's words for two takes that a small model can make and one without sound."""
    from tests.evaluation.test_animator import tone
    from tests.evaluation.test_picture import astronaut

    astronaut().save(tmp_path / "face.png")
    rows = [{"name": "silent", "image": "face.png", "audio": "face.png"}]
    for number, length in enumerate((0.5, 0.7)):
        tone(tmp_path / f"{number}.wav", length)
        rows.append({"name": f"take-{number}", "image": "face.png", "audio": f"{number}.wav"})
    (tmp_path / "wild.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *["evaluate", "wild", f"benchmark={tmp_path}/wild.jsonl", f"output={tmp_path}/out"],
        *[f"metrics=[{METRICS[0]}, face]", "clip.width=64", "clip.height=64", "device=cpu"],
        *["sampling.steps=2", "sampling.guidance=null", "sampling.sampler=clean"],
        *["ray.scorers=1", "ray.object_store_gb=0.1", "generation.workers=1"],
    ]


@pytest.mark.slow
def test_a_checkpoint_makes_videos_and_a_second_run_makes_none_again(tmp_path, capsys) -> None:
    from tests.evaluation.checkpoints import write_export

    arguments = [*wild(tmp_path), f"checkpoint={write_export(tmp_path / 'model')}"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "wild: 2 of 3 clips scored" in said.out
    assert "MLflow: run " in said.out
    found = {row["name"]: row for row in pq.read_table(tmp_path / "out" / "clips.parquet").to_pylist()}
    assert "face.png" in found["silent"]["error"]
    assert found["take-0"]["generated.luminance"] > 0
    assert found["take-0"]["truth"] is None
    videos = tmp_path / "out" / "videos" / "wild"
    before = {path.name: path.stat().st_mtime_ns for path in videos.glob("*.mp4")}
    assert [*sorted(before)] == ["take-0.mp4", "take-1.mp4"]
    assert cli.main(arguments) == 0
    assert {path.name: path.stat().st_mtime_ns for path in videos.glob("*.mp4")} == before


@pytest.mark.slow
def test_a_training_run_is_watched_and_its_figures_are_over_its_steps(tmp_path, capsys) -> None:
    from mlflow import MlflowClient

    from tests.evaluation.checkpoints import write_export
    from tests.evaluation.test_watch import run_of

    run = run_of(tmp_path)
    described = write_export(run / "export") / "config.json"
    config = json.loads(described.read_text())
    for step in (1, 2):
        config["training"]["state"] = {"step": step}
        described.write_text(json.dumps(config))
        watching = [*wild(tmp_path), "watch_every_s=0", "--watch", str(run)]
        assert cli.main(watching) == 0
    assert capsys.readouterr().out.count(", step ") == 2
    assert (tmp_path / "out" / "step-00000002" / "report" / "index.html").exists()
    client = MlflowClient(f"sqlite:///{tmp_path}/out/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("hallo3-evaluation").experiment_id])
    (trend,) = [one for one in runs if one.info.run_name == "run, trend"]
    history = client.get_metric_history(trend.info.run_id, "wild/luminance")
    assert [metric.step for metric in history] == [1, 2]
    assert {one.data.tags.get("training_run") for one in runs} == {str(run)}
