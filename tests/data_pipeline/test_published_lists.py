"""Published lists against folders that hold some of their videos. The lines are in the published form."""

import csv
import json
from pathlib import Path

import pytest

from cluster.cli import main
from data_pipeline.published_lists import import_list, write_list
from data_pipeline.sources import SourcesError, list_sources
from tests.data_pipeline import makers


def write_video(path: Path, codec: str = "libx264") -> None:
    """Three frames of 320 x 240."""
    path.parent.mkdir(exist_ok=True)
    makers.write_video(path, n_frames=3, codec=codec)


@pytest.fixture
def hdtf(tmp_path: Path) -> Path:
    folder = tmp_path / "HDTF_dataset"
    folder.mkdir()
    tables = {
        "RD_video_url.txt": "Radio1 https://www.youtube.com/watch?v=CPCoMyuBRM0&t=6s\n"
        "Radio2 https://www.youtube.com/watch?v=uBWJJvynXpA\n",
        "RD_annotion_time.txt": "Radio1.mp4 00:30-01:00 1:01:30-1:02:30\n"
        "Radio2.mp4 00:02-00:30 00:40-00:50\n",
        "RD_crop_wh.txt": "Radio1_0.mp4 48 60 12 60\n",
        "RD_resolution.txt": "Radio1.mp4 480\nRadio2.mp4 720\n",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def celebv_hq(tmp_path: Path) -> Path:
    clips = {
        "M2Ohb0FAaJU_1": {
            "ytb_id": "M2Ohb0FAaJU",
            "duration": {"start_sec": 81.62, "end_sec": 86.17},
            "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
            "attributes": {"appearance": [0, 1], "action": [0]},
            "version": "v0.1",
        }
    }
    path = tmp_path / "celebvhq_info.json"
    path.write_text(json.dumps({"meta_info": {}, "clips": clips}))
    return path


def talkvid_row(video: str, **differences: object) -> dict[str, object]:
    return {
        "id": f"videovideo{video}-scene1-scene1",
        "start-time": 0.1,
        "end-time": 5.141666666666667,
        "info": {"Person ID": "597", "Video Link": f"https://www.youtube.com/watch?v={video}"},
        "description": "An older man in a suit.",
    } | differences


def test_a_box_of_hdtf_is_scaled_to_the_video_that_is_there(hdtf: Path, tmp_path: Path):
    write_video(tmp_path / "videos" / "Radio1.mp4")

    imported = import_list("hdtf", hdtf, str(tmp_path / "videos"))

    first, second = imported.sources
    assert (first.start_s, first.end_s, first.crop) == (30, 60, (24.0, 6.0, 54.0, 36.0))
    assert (second.start_s, second.end_s, second.crop) == (3690, 3750, None)


def test_missing_videos_are_counted_and_named_with_their_links(hdtf: Path, tmp_path: Path):
    write_video(tmp_path / "videos" / "Radio1.mp4")

    imported = import_list("hdtf", hdtf, str(tmp_path / "videos"))
    missing = write_list(imported, tmp_path / "sources.csv")

    assert (imported.n_missing_clips, list(imported.missing)) == (2, ["Radio2"])
    assert missing is not None
    assert list(csv.DictReader(missing.open())) == [
        {"video": "Radio2", "url": "https://www.youtube.com/watch?v=uBWJJvynXpA"}
    ]


def test_a_list_of_what_was_missing_goes_when_nothing_is_missing_any_more(hdtf: Path, tmp_path: Path):
    write_video(tmp_path / "videos" / "Radio1.mp4")
    missing = write_list(import_list("hdtf", hdtf, str(tmp_path / "videos")), tmp_path / "sources.csv")
    write_video(tmp_path / "videos" / "RD_Radio2.mp4")

    assert write_list(import_list("hdtf", hdtf, str(tmp_path / "videos")), tmp_path / "sources.csv") is None
    assert missing is not None
    assert not missing.exists()


@pytest.mark.parametrize("name", ["M2Ohb0FAaJU.mp4", "Some title [M2Ohb0FAaJU].webm"])
def test_a_box_of_celebv_hq_becomes_pixels_of_a_video_that_is_found_by_its_id(
    celebv_hq: Path, tmp_path: Path, name: str
):
    write_video(tmp_path / "videos" / name, "libvpx-vp9" if name.endswith("webm") else "libx264")

    [source] = import_list("celebv-hq", celebv_hq, str(tmp_path / "videos")).sources

    assert source.uri == str(tmp_path / "videos" / name)
    assert (source.start_s, source.end_s) == (81.62, 86.17)
    assert source.crop == (56.4, 0.0, 227.9, 216.4)  # widened by 0.02 as the dataset's own tool does
    assert source.licence == "non-commercial research"


def test_a_clip_that_the_datasets_own_tool_cut_out_is_taken_whole(celebv_hq: Path, tmp_path: Path):
    write_video(tmp_path / "videos" / "M2Ohb0FAaJU_1.mp4")

    [source] = import_list("celebv-hq", celebv_hq, str(tmp_path / "videos")).sources

    assert (source.start_s, source.end_s, source.crop) == (None, None, None)


@pytest.mark.parametrize("one_a_line", [False, True])
def test_talkvid_brings_speakers_and_captions(tmp_path: Path, one_a_line: bool):
    rows = [talkvid_row("Tr6MMsoWAog"), talkvid_row("0oNqIsf_1sM")]
    text = "\n".join(json.dumps(row) for row in rows) if one_a_line else json.dumps(rows)
    (tmp_path / "talkvid.json").write_text(text)
    write_video(tmp_path / "videos" / "Tr6MMsoWAog.mp4")

    imported = import_list("talkvid", tmp_path / "talkvid.json", str(tmp_path / "videos"))

    [source] = imported.sources
    assert (source.start_s, source.end_s) == (0.1, 5.141666666666667)
    assert (source.speaker, source.caption) == ("talkvid-597", "An older man in a suit.")
    assert list(imported.missing) == ["0oNqIsf_1sM"]


def test_a_file_without_a_readable_picture_is_refused_and_the_rest_goes_on(celebv_hq: Path, tmp_path: Path):
    clips = json.loads(celebv_hq.read_text())["clips"]
    clips["good_0"] = clips["M2Ohb0FAaJU_1"] | {"ytb_id": "good"}
    clips["back_0"] = clips["good_0"] | {"duration": {"start_sec": 5, "end_sec": 4}}
    celebv_hq.write_text(json.dumps({"clips": clips}))
    write_video(tmp_path / "videos" / "good.mp4")
    broken = tmp_path / "videos" / "M2Ohb0FAaJU.mp4"
    broken.write_text("no video")

    imported = import_list("celebv-hq", celebv_hq, str(tmp_path / "videos"))

    assert [Path(source.uri).name for source in imported.sources] == ["good.mp4"]
    assert set(imported.refused) == {str(broken), "back_0"}


def test_the_written_list_says_what_was_imported(tmp_path: Path, hdtf: Path):
    write_video(tmp_path / "videos" / "Radio1.mp4")
    imported = import_list("hdtf", hdtf, str(tmp_path / "videos"))

    write_list(imported, tmp_path / "sources.csv")

    assert list(list_sources(str(tmp_path / "sources.csv"))) == imported.sources


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("celebv-hq", "[]", "no object `clips`"),
        ("celebv-hq", '{"clips": {"x_0": {"ytb_id": "x"}}}', "x_0: no 'bbox'"),
        ("talkvid", "not json", "neither JSON"),
        ("talkvid", '[{"id": 1}]', "entry 1: no 'info'"),
        ("hdtf", "", "_annotion_time.txt"),
    ],
)
def test_what_is_no_such_list_is_named(tmp_path: Path, name: str, text: str, said: str):
    write_video(tmp_path / "videos" / "x.mp4")
    (tmp_path / "list.json").write_text(text)
    given = tmp_path if name == "hdtf" else tmp_path / "list.json"

    with pytest.raises(SourcesError, match=said):
        import_list(name, given, str(tmp_path / "videos"))


def test_the_command_says_how_much_is_there_and_what_is_missing(
    hdtf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_video(tmp_path / "videos" / "Radio1.mp4")
    output = tmp_path / "sources.csv"

    status = main(
        ["sources", "hdtf", str(hdtf), "--videos", str(tmp_path / "videos"), "--output", str(output)]
    )

    printed = capsys.readouterr().out
    assert status == 0
    assert f"{output}: 2 clips of 1 videos" in printed
    assert "missing: 2 clips of 1 videos: Radio2" in printed
