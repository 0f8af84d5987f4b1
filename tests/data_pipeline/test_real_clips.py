"""Real clips, labelled by people: recall of what is to be kept and of what is to be rejected.

Their curation keeps every core busy for minutes, so they run by name and alone: `.ci/run` does it.
"""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.test_curation import hallo3

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"

LIMIT_S = 1500

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LIMIT_S + 60),
    pytest.mark.skipif(not REAL.exists(), reason="the labelled real clips are not beside this project"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("real") / "dataset"
    done = hallo3("curate", "talking_head", f"sources={REAL}", f"output={root}", limit_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def outcomes(root) -> dict[str, list[dict]]:
    from data_pipeline.dataset import Dataset

    found: dict[str, list[dict]] = {}
    for row in Dataset.open(root).manifest(["source_uris", "status", "reason"]).to_pylist():
        found.setdefault(Path(row["source_uris"][0]).name, []).append(row)
    return found


def labelled(expected: str) -> list[dict[str, str]]:
    with (REAL / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "/" not in row["file"]]
    return [row for row in rows if row["expected"] == expected]


def is_kept(rows: list[dict]) -> bool:
    return any(row["status"] == "kept" for row in rows)


def test_at_least_85_percent_of_the_good_clips_are_kept(outcomes) -> None:
    good = labelled("keep")
    kept = [row["file"] for row in good if is_kept(outcomes[row["file"]])]
    assert len(kept) >= 0.85 * len(good), sorted({row["file"] for row in good} - set(kept))


def test_at_least_90_percent_of_the_bad_clips_are_rejected(outcomes) -> None:
    bad = [row for row in labelled("reject") if row["file"] != "made_07.mp4"]
    rejected = [row["file"] for row in bad if not is_kept(outcomes[row["file"]])]
    assert len(rejected) >= 0.90 * len(bad), sorted({row["file"] for row in bad} - set(rejected))


def test_the_labels_own_score_is_reached_reasons_included(root) -> None:
    """Keeps 85 %, rejects 90 %, the labelled reason on 75 % of the rejects: it exits with 0 where all are."""
    score = REAL.parent / "tools" / "score_outcomes.py"
    command = [sys.executable, str(score), str(REAL / "manifest.csv"), str(root), "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_three_joined_speakers_are_cut_into_three_clips(outcomes) -> None:
    assert [row["status"] for row in outcomes["made_07.mp4"]] == ["kept"] * 3


def test_every_file_has_a_row_and_every_corrupt_one_says_so(outcomes) -> None:
    every = {row["file"] for row in labelled("keep") + labelled("reject")}
    assert every <= set(outcomes)
    for name in ("made_01.mp4", "made_02.mp4", "made_03.mp4"):
        assert [(row["status"], row["reason"]) for row in outcomes[name]] == [("error", "corrupt")]


def test_of_the_one_pair_of_duplicates_the_larger_picture_stays_and_nothing_else_goes(outcomes) -> None:
    gone = {name for name, rows in outcomes.items() if any(row["reason"] == "duplicate" for row in rows)}
    assert gone == {"made_06.webm"}
    assert is_kept(outcomes["videoretalking_face2.mp4"])


def test_speech_that_is_late_or_another_womans_is_off_sync(outcomes) -> None:
    for name in ("made_04.mp4", "made_05.mp4"):
        assert [row["reason"] for row in outcomes[name]] == ["off_sync"]
