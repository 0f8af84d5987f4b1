"""`hallo3 curate` as a user runs it, with the real models, on a few of the demo's sources."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.dataset import Dataset
from data_pipeline.demo import make_sources
from data_pipeline.verify import verify

SOURCES = ["upright.mov", "dark.mp4", "no_audio.mp4", "text.mp4"]


def hallo3(*arguments: str | Path, limit_s: float = 280) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_sources(folder, only=SOURCES)
    return folder


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("built") / "dataset"
    done = hallo3("curate", "demo", f"sources={videos}", f"output={root}")
    assert done.returncode == 0, done.stderr
    return root, done.stdout + done.stderr


def outcomes(root: Path, version: int | None = None) -> dict[str, str | None]:
    rows = Dataset.open(root, version).manifest(["source_uris", "reason"]).to_pylist()
    return {Path(row["source_uris"][0]).name: row["reason"] for row in rows}


def test_every_source_has_its_outcome_and_the_dataset_is_whole(built) -> None:
    root, said = built
    assert outcomes(root) == {
        "upright.mov": None,
        "dark.mp4": "dark",
        "no_audio.mp4": "no_audio",
        "text.mp4": "corrupt",
    }
    assert list(verify(Dataset.open(root))) == []
    assert "kept      1 clips" in said
    assert "Traceback" not in said
    assert "upright.mov" in (root / "report.html").read_text()


def test_a_kept_clip_has_what_training_reads(built) -> None:
    root, _ = built
    dataset = Dataset.open(root)
    (clip_id,) = dataset.places()
    facts = json.loads(dataset.sample_of(clip_id)[f"{clip_id}.json"])
    assert facts["n_words"] == len(facts["words"]) > 3
    assert facts["words"][0]["start_s"] < facts["words"][-1]["end_s"] <= facts["end_s"] - facts["start_s"]
    assert facts["identity_consistency"] == 1
    assert facts["fps"] == 25


def test_the_same_command_again_measures_nothing_and_makes_no_version(built, videos) -> None:
    root, _ = built
    again = hallo3("curate", "demo", f"sources={videos}", f"output={root}")
    assert again.returncode == 0
    assert "4 were done before" in again.stderr
    assert "nothing changed" in again.stdout
    assert Dataset.open(root).versions() == [1]


def test_a_looser_rule_measures_what_it_lets_pass_to_the_end(built) -> None:
    root, _ = built
    loose = ("min_luminance", "min_motion", "min_sharpness", "max_repeated_frame_ratio")
    looser = [f"filters.{key}=null" for key in loose]
    shown = hallo3("dataset", "refilter", root, *looser)
    assert "to measure    1: dark 1" in shown.stdout
    assert Dataset.open(root).versions() == [1]
    done = hallo3("dataset", "refilter", root, *looser, "--apply")
    assert done.returncode == 0, done.stderr
    assert outcomes(root, 1)["dark.mp4"] == "dark"
    assert outcomes(root, 2)["dark.mp4"] not in ("dark", "missing")  # it was looked at further
    assert list(verify(Dataset.open(root, 2))) == []


def test_a_pilot_tells_yield_and_cost_and_makes_no_version(videos, tmp_path) -> None:
    done = hallo3("curate", "demo", f"sources={videos}", f"output={tmp_path}/dataset", "--sample", "3")
    assert done.returncode == 0, done.stderr
    assert "pilot: 3 of 4 sources" in done.stdout
    assert "core-hours per hour of video" in done.stdout
    assert not (tmp_path / "dataset" / "dataset.json").exists()


def test_too_many_failures_of_ours_end_with_status_4_after_all_is_done(videos, tmp_path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"uri\n{videos / 'upright.mov'}\n{videos / 'dark.mp4'}\n")
    given = [f"sources={listed}", f"output={tmp_path}/dataset", "limits.decode_timeout_s=0.001"]
    done = hallo3("curate", "demo", *given, "max_error_fraction=0.4")
    assert done.returncode == 4
    assert "max_error_fraction allows 40.0%" in done.stderr
    assert set(outcomes(tmp_path / "dataset").values()) == {"decode_timeout"}


def test_sources_that_are_not_there_end_with_status_2(tmp_path) -> None:
    done = hallo3("curate", "demo", f"sources={tmp_path}/nowhere", f"output={tmp_path}/dataset")
    assert done.returncode == 2
    assert "nowhere' is no file or folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_that_cannot_be_had_are_named_before_anything_starts(videos, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HALLO3_CACHE", str(tmp_path / "empty"))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", ""), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    done = hallo3("curate", "demo", f"sources={videos}", f"output={tmp_path}/dataset")
    assert done.returncode == 1
    assert "hallo3 weights pull" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dataset").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_purged_source_does_not_come_back_with_the_next_curate(videos, tmp_path) -> None:
    root = tmp_path / "dataset"
    mine = Path(shutil.copytree(videos, tmp_path / "videos"))
    given = ["curate", "demo", f"sources={mine}", f"output={root}"]
    assert hallo3(*given).returncode == 0
    (clip_id,) = Dataset.open(root).places()
    asked = ["dataset", "purge", root, "--source", mine / "upright.mov"]
    shown = hallo3(*asked)
    assert shown.returncode == 0, shown.stderr
    assert clip_id in shown.stdout
    done = hallo3(*asked, "--yes")
    assert done.returncode == 0, done.stderr
    (mine / "upright.mov").rename(mine / "the same under another name.mov")
    again = hallo3(*given)
    assert again.returncode == 0, again.stderr
    assert "1 left out (purged)" in again.stderr
    assert set(outcomes(root)) == {"dark.mp4", "no_audio.mp4", "text.mp4"}
    left = [path for path in root.rglob("*") if path.is_file() and clip_id.encode() in path.read_bytes()]
    assert left == []
    assert (mine / "the same under another name.mov").exists()
