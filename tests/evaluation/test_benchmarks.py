"""Benchmarks: what is in them counts, not where it lies; what is missing or changed is named."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.media import probe, read_audio, read_frames
from evaluation.benchmarks import Benchmark, BenchmarkError, open_benchmark, write_items
from evaluation.config import BenchmarkConfig, ClipConfig, EvaluationConfig
from evaluation.picture import read_picture
from evaluation.protocol import protocol_of
from evaluation.subgroups import divided
from tests.data_pipeline.makers import number_in, numbered, write_video
from tests.data_pipeline.rows import GOOD
from tests.evaluation.benchmark_makers import grey_clip, grey_list
from tests.training.datasets import clip_ids, frame_number, make_dataset

CLIP = ClipConfig(width=64, height=64)


def opened(uri: Path, **more: Any) -> Benchmark:
    return open_benchmark(BenchmarkConfig(uri=str(uri), **more), CLIP)


def test_a_split_of_a_dataset_is_a_benchmark(tmp_path) -> None:
    make_dataset(tmp_path / "data", clips=4, splits=["train", "test", "test", "val"])
    found = opened(tmp_path / "data")
    ids = clip_ids(4)
    assert [entry.name for entry in found.entries] == sorted(ids[1:3])
    assert found.about["dataset"] == "small"
    assert (found.about["version"], found.about["split"]) == (1, "test")
    entry = next(one for one in found.entries if one.name == ids[1])
    assert entry.facts["face_fraction"] == GOOD["face_fraction"]
    assert entry.lineage["source_uris"] == "/videos/1.mp4"
    item = entry.prepare(tmp_path / "items")
    assert number_in(read_picture(item.reference)) == frame_number(1, 0)
    assert item.truth is not None
    assert sum(1 for _ in read_frames(item.truth)) == 30
    assert len(read_audio(item.audio)) == 30 * 640
    written = item.truth.stat().st_mtime_ns
    assert entry.prepare(tmp_path / "items") == item
    assert item.truth.stat().st_mtime_ns == written


def test_a_split_without_clips_says_which_have_some(tmp_path) -> None:
    make_dataset(tmp_path / "data", clips=2, splits=["train", "val"])
    with pytest.raises(BenchmarkError, match="has no clip in split 'test'; splits with clips: train, val"):
        opened(tmp_path / "data")


def test_the_hash_is_of_what_is_in_it_and_not_of_where_it_lies(tmp_path) -> None:
    listed = grey_list(tmp_path / "a", {"anna": 100, "ben": 120}, {"language": ["en", "de"]})
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    before = opened(listed)
    assert opened(tmp_path / "elsewhere" / "list.csv").sha256 == before.sha256
    grey_clip(tmp_path / "a" / "truth" / "ben.mp4", 121)
    assert opened(listed).sha256 != before.sha256


def test_a_list_may_have_ground_truth_or_not_and_other_columns_are_facts(tmp_path) -> None:
    grey_clip(tmp_path / "ben.mp4", 100)
    shutil.copy(tmp_path / "ben.mp4", tmp_path / "voice.mp4")
    (tmp_path / "anna.png").write_bytes(b"read when its turn comes")
    rows = [
        {
            "name": "anna",
            "image": "anna.png",
            "audio": "voice.mp4",
            "prompt": "she smiles",
            "yaw_deg_p95": "20",
        },
        {"video": "ben.mp4", "language": "de"},
    ]
    (tmp_path / "wild.jsonl").write_text("\n".join(map(json.dumps, rows)))
    anna, ben = opened(tmp_path / "wild.jsonl").entries
    assert anna.prepare(tmp_path / "items").truth is None
    assert anna.prepare(tmp_path / "items").prompt == "she smiles"
    assert anna.facts == {"yaw_deg_p95": 20.0}
    item = ben.prepare(tmp_path / "items")
    assert (ben.name, item.truth, item.audio) == ("ben", tmp_path / "ben.mp4", tmp_path / "ben.mp4")
    assert abs(int(read_picture(item.reference).mean()) - 100) <= 2


def test_missing_and_changed_files_of_a_list_are_named(tmp_path) -> None:
    rows = [
        {"name": "gone", "video": "gone.mp4", "sha256": ""},
        {"name": "other", "video": "other.mp4", "sha256": "12" * 32},
        {"name": "here", "video": "here.mp4", "sha256": ""},
    ]
    grey_clip(tmp_path / "other.mp4", 100)
    grey_clip(tmp_path / "here.mp4", 100)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "video", "sha256"])
        writer.writeheader()
        writer.writerows(rows)
    found = opened(tmp_path / "list.csv")
    assert [entry.name for entry in found.entries] == ["here"]
    assert found.attempted == 3
    assert found.missing["gone"] == f"missing: video: {tmp_path}/gone.mp4: no such file"
    assert "the list says sha256 121212121212, the file has" in found.missing["other"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "there is no item in it"),
        ('{"name": "a", "image": "a.png"}', "item 1: needs image and audio, or a video; found image"),
        ("[1]", "expected a JSON object"),
        ("no", "not JSON"),
        ('{"video": "a.mp4"}\n{"video": "b/a.mp4"}', "two items are called a"),
        ('{"name": "a/b", "video": "a.mp4"}', "'a/b' cannot be a file's name"),
    ],
)
def test_a_list_that_is_none_is_refused_in_words(tmp_path, text, expected) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.mp4", "b/a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(BenchmarkError, match=expected):
        opened(tmp_path / "list.jsonl")


def test_a_fixed_list_takes_its_items_and_names_what_is_not_as_it_was(tmp_path) -> None:
    listed = grey_list(tmp_path, {"anna": 100, "ben": 120, "cleo": 140})
    write_items(opened(listed), tmp_path / "items.jsonl")
    grey_list(tmp_path, {"anna": 100, "ben": 50, "dora": 160})
    found = opened(listed, items=str(tmp_path / "items.jsonl"))
    assert [entry.name for entry in found.entries] == ["anna"]
    assert found.missing["ben"].startswith("changed: sha256 ")
    assert found.missing["cleo"].startswith("missing: ")
    assert found.attempted == 3
    with pytest.raises(BenchmarkError, match=r"expected {name, sha256} a line"):
        opened(listed, items=str(listed))


def test_a_part_of_a_benchmark_is_always_the_same_part(tmp_path) -> None:
    listed = grey_list(tmp_path, {name: 100 + place for place, name in enumerate("abcdef")})
    part = [entry.name for entry in opened(listed, max_items=3).entries]
    assert len(part) == 3
    assert [entry.name for entry in opened(listed, max_items=3).entries] == part
    wider = [entry.name for entry in opened(listed, max_items=4).entries]
    assert set(part) < set(wider)


@pytest.fixture
def hdtf(tmp_path) -> Path:
    """One video of two that the list has, with two clips; one of them has a box."""
    folder = tmp_path / "HDTF_dataset"
    folder.mkdir()
    tables = {
        "RD_video_url.txt": "Radio1 https://www.youtube.com/watch?v=CPCoMyuBRM0\n"
        "Radio2 https://www.youtube.com/watch?v=uBWJJvynXpA\n",
        "RD_annotion_time.txt": "Radio1.mp4 00:00-00:01 00:01-00:02\nRadio2.mp4 00:02-00:30 00:40-00:50\n",
        "RD_crop_wh.txt": "Radio1_0.mp4 80 120 60 120\n",
        "RD_resolution.txt": "Radio1.mp4 240\nRadio2.mp4 720\n",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    (tmp_path / "videos").mkdir()
    hum = np.full((48_000 * 2, 1), 3000, np.int16)
    write_video(tmp_path / "videos" / "Radio1.mp4", n_frames=50, pixels=numbered, sound=hum)
    return folder


def test_hdtf_s_clips_are_cut_out_at_the_clip_s_size_and_missing_videos_are_named(hdtf, tmp_path) -> None:
    found = opened(hdtf, format="hdtf", videos=str(tmp_path / "videos"))
    assert [*found.missing] == ["Radio2_0", "Radio2_1"]
    assert "https://www.youtube.com/watch?v=uBWJJvynXpA" in found.missing["Radio2_0"]
    assert found.attempted == 4
    first, second = found.entries
    assert first.name.startswith("Radio1-0s-")
    assert first.content["crop"] == (80, 60, 200, 180)
    item = second.prepare(tmp_path / "items")
    assert item.truth is not None
    about = probe(item.truth).video
    assert (about.width, about.height, about.fps, about.n_frames) == (64, 64, 25, 25)
    assert len(read_audio(item.audio)) == 16_000
    # Undistorted: a picture of 320 x 240 px stands in the middle of a square.
    edges = read_picture(item.reference)[[0, -1]]
    assert edges.max() < 30


def test_celebv_text_s_boxes_are_pixels(tmp_path) -> None:
    row = {
        "ytb_id": "0-5BrmyFsYM",
        "duration": {"start_sec": 0.0, "end_sec": 1.0},
        "bbox": {"top": 0, "bottom": 100, "left": 40, "right": 140},
        "version": "v0.1",
    }
    (tmp_path / "celebvtext_info.json").write_text(json.dumps({"clips": {"0-5BrmyFsYM_0": row}}))
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "0-5BrmyFsYM.mp4", n_frames=30)
    listed = tmp_path / "celebvtext_info.json"
    (entry,) = opened(listed, format="celebv-text", videos=str(tmp_path / "videos")).entries
    assert entry.content["crop"] == (40, 0, 140, 100)


def test_the_protocol_has_what_figures_depend_on_and_not_where_things_lie(tmp_path) -> None:
    listed = grey_list(tmp_path, {"anna": 100, "ben": 120})
    benchmark = opened(listed)

    def protocol(seeing: dict[str, Any], **given: Any) -> str:
        config = EvaluationConfig.model_validate({"benchmark": str(listed), "output": "a", **given})
        return protocol_of(config, benchmark, {}, seeing).sha256

    one = protocol({"max_px": 64}, checkpoint="run")
    assert protocol({"max_px": 64}, checkpoint="other", output="b", ray={"scorers": 4}) == one
    assert protocol({"max_px": 65}, checkpoint="run") != one
    assert protocol({"max_px": 64}, checkpoint="run", sampling={"steps": 10}) != one
    assert protocol({"max_px": 64}, checkpoint="run", clip={"max_s": 5}) != one


def test_subgroups_take_facts_before_what_was_measured() -> None:
    rows = [
        {"name": "a", "fact.yaw_deg_p95": 10.0, "real.yaw_deg": 50.0, "fact.language": "en"},
        {"name": "b", "real.yaw_deg": 50.0, "fact.language": "de"},
        {"name": "c", "generated.yaw_deg": 15.0, "fact.language": None},
    ]
    found = divided(rows)
    assert found["head pose"] == {
        "frontal (below 15°)": ["a"],
        "turned (15° to 30°)": ["c"],
        "far turned (30° and more)": ["b"],
    }
    assert found["language"] == {"de": ["b"], "en": ["a"]}
    assert [*found] == ["head pose", "language"]
