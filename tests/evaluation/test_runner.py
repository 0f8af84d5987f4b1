"""From a benchmark and videos to figures: real actors, small clips of known brightness."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from evaluation.config import load_config
from evaluation.results import Evaluation, ResultsError, read_results
from evaluation.runner import Plan, evaluate, plan
from tests.evaluation.benchmark_makers import METRICS, grey_clip, grey_list, grey_videos, words
from tests.evaluation.small_metrics import KILL_ONCE
from training.config import TrainRayConfig

TRUTH = {"anna": 100, "ben": 120, "cleo": 140, "dora": 160, "emil": 180}
MADE = {"anna": 110, "ben": 120, "cleo": 0, "dora": 190}
"""cleo's is black, emil's is not there."""
NEAR = 1.5
"""Of 255: the codec rounds."""
FACTS = {"language": ["en", "en", "de", "de", "de"], "face_fraction": [0.2, 0.3, 0.3, 0.5, 0.5]}


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    from cluster.launch import ray_session

    with ray_session(TrainRayConfig(object_store_gb=0.1)):
        yield


@dataclass(frozen=True)
class Case:
    folder: Path
    plan: Plan
    evaluation: Evaluation

    @property
    def output(self) -> Path:
        return self.folder / "out"


def planned(listed: Path, videos: Path, output: Path, *more: str) -> Plan:
    return plan(load_config("default", words(listed, videos, output, *more)[2:]))


def evaluated(plan: Plan) -> Evaluation:
    return evaluate(plan, {"videos": "given"}, lambda step, done, of: None)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("evaluation")
    listed = grey_list(folder / "benchmark", TRUTH, FACTS)
    given = planned(listed, grey_videos(folder / "videos", MADE), folder / "out")
    return Case(folder, given, evaluated(given))


def test_figures_are_those_of_the_clips_that_could_be_scored_beside_the_same_of_real_ones(case) -> None:
    (found,) = case.evaluation.benchmarks
    assert (found.attempted, found.scored) == (5, 4)
    luminance = found.figures.figure("luminance")
    assert (luminance.value, luminance.n) == (pytest.approx(140, abs=NEAR), 3)  # 110, 120, 190
    assert luminance.low < luminance.value < luminance.high
    real = found.figures.real_figure("luminance")
    assert (real.value, real.n) == (pytest.approx(130, abs=NEAR), 4)  # 100, 120, 140, 160
    distance = found.figures.figure("luminance_distance")
    assert (distance.value, distance.n) == (pytest.approx(25, abs=NEAR), 4)  # 105 and 130
    halves = found.figures.real_figure("luminance_distance")
    assert (halves.value, halves.n) == (pytest.approx(20, abs=NEAR), 2)  # 100, 140 against 120, 160


def test_a_clip_that_fails_is_a_row_with_its_words(case) -> None:
    rows = {row["name"]: row for row in pq.read_table(case.output / "clips.parquet").to_pylist()}
    assert [*rows] == [*TRUTH]
    assert rows["cleo"]["error"] == f"{METRICS[0]}: cleo: is black"
    assert rows["emil"]["error"].endswith("videos/emil.mp4: No such file or directory")
    assert [rows[name]["error"] for name in ("anna", "ben", "dora")] == [None] * 3
    assert rows["dora"]["generated.luminance"] == pytest.approx(190, abs=NEAR)
    assert rows["emil"]["real.luminance"] == pytest.approx(180, abs=NEAR)
    assert rows["emil"]["generated.luminance"] is None
    assert rows["anna"]["fact.language"] == "en"
    assert rows["anna"]["fact.face_fraction"] == 0.2


def test_subgroups_come_from_facts(case) -> None:
    (found,) = case.evaluation.benchmarks
    by_language = found.subgroups["language"]
    assert [*by_language] == ["de", "en"]
    assert by_language["en"].figure("luminance").value == pytest.approx(115, abs=NEAR)
    assert by_language["en"].real_figure("luminance").value == pytest.approx(110, abs=NEAR)
    assert [*found.subgroups["subject size"]] == ["medium (25 % to 45 %)"]  # of the others one each


def test_results_are_read_back_as_they_were(case) -> None:
    again = read_results(case.output)
    assert again.benchmarks[0].protocol == case.evaluation.benchmarks[0].protocol
    assert str(again.benchmarks[0].figures) == str(case.evaluation.benchmarks[0].figures)
    assert [row["name"] for row in again.rows] == [*TRUTH]
    with pytest.raises(ResultsError, match="nowhere: no evaluation is there"):
        read_results(case.folder / "nowhere")


@pytest.mark.slow
def test_the_same_command_again_changes_nothing_and_another_video_is_scored_anew(case) -> None:
    folders = (case.output / "found", case.output / "real" / "found")

    def written() -> dict[str, int]:
        return {
            str(path): path.stat().st_mtime_ns
            for folder in folders
            for path in sorted(folder.rglob("*.json"))
        }

    before = written()
    assert len(before) == 9  # four videos and all five real ones
    grey_clip(case.folder / "videos" / "anna.mp4", 130)
    again = evaluated(case.plan)
    grey_clip(case.folder / "videos" / "anna.mp4", MADE["anna"])
    after = written()
    changed = [Path(path).name for path in before if after[path] != before[path]]
    assert changed == ["anna.json"]
    assert again.of("list").figures.figure("luminance").value == pytest.approx(147, abs=NEAR)


@pytest.mark.slow
def test_a_scorer_that_is_killed_loses_nothing(case, tmp_path, monkeypatch) -> None:
    bomb = tmp_path / "bomb"
    bomb.touch()
    monkeypatch.setenv(KILL_ONCE, str(bomb))

    from cluster.launch import ray_session

    ray.shutdown()  # its workers have the environment of their start
    with ray_session(TrainRayConfig(object_store_gb=0.1)):
        given = planned(
            case.folder / "benchmark" / "list.csv",
            case.folder / "videos",
            tmp_path / "out",
            "metrics=[tests.evaluation.small_metrics:Dying]",
        )
        found = evaluated(given)
    assert not bomb.exists()
    assert found.of("list").scored == 4
    assert [row["error"] is None for row in found.rows] == [True] * 4 + [False]
