"""A list of videos is read as a whole, or all that is wrong with it is said."""

import json
from pathlib import Path

import pytest

from evaluation.animator import Take
from evaluation.items import ItemsError, read_items, seconds_of
from tests.evaluation.test_animator import tone


@pytest.fixture
def folder(tmp_path) -> Path:
    """With a picture and a sound of which nothing is read but the names, and a folder."""
    (tmp_path / "out").mkdir()
    for name in ("face.jpg", "voice.wav"):
        (tmp_path / name).touch()
    return tmp_path


def line(**changed: object) -> str:
    item = {"image": "face.jpg", "audio": "voice.wav", "output": "talk.mp4", **changed}
    return json.dumps(item, ensure_ascii=False)


def listed(folder: Path, *lines: str) -> Path:
    (folder / "items.jsonl").write_text("\n".join(lines))
    return folder / "items.jsonl"


def wrong(folder: Path, *lines: str) -> list[str]:
    """What is wrong, each with its line's number."""
    path = listed(folder, *lines)
    with pytest.raises(ItemsError) as error:
        read_items(path)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def test_paths_are_relative_to_the_list_s_folder_and_empty_lines_count_for_nothing(folder) -> None:
    given = line(output="out/a.mp4"), "", line(output="/there/b.mp4", prompt="she\u2028reads", seed=7), ""
    image, audio = folder / "face.jpg", folder / "voice.wav"
    assert read_items(listed(folder, *given), seed=3) == [
        Take(image, audio, folder / "out" / "a.mp4", "", 3),
        Take(image, audio, Path("/there/b.mp4"), "she\u2028reads", 7),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{'image': 1}", "not JSON: Expecting property name"),
        ('["face.jpg"]', 'expected a JSON object, found ["face.jpg"]'),
        ('{"image": "face.jpg", "output": "talk.mp4"}', "audio: missing"),
        (line(sed=1), "sed: unknown key; did you mean seed?"),
        (line(colour=1), "colour: unknown key; allowed are image, audio, output, prompt, seed"),
        (line(seed="7"), "seed: Input should be a valid integer (given '7')"),
        (line(seed=True), "seed: Input should be a valid integer (given True)"),
        (line(image=""), "image: String should have at least 1 character (given '')"),
        (line(output="talk.avi"), "output: talk.avi: the video is an MP4; name it talk.mp4"),
        (line(image="nobody.jpg"), "image: nobody.jpg: no such file"),
        (line(audio="out"), "audio: out: no such file"),
        (line(output="voice.wav"), "output: voice.wav: line 2 reads this file; name another one"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(folder, given, words) -> None:
    told = wrong(folder, line(output="right.mp4"), given)
    assert any(each.startswith(f"items.jsonl:2: {words}") for each in told), told


def test_all_that_is_wrong_is_said_at_once(folder) -> None:
    told = wrong(
        folder,
        line(image="nobody.jpg", output="a.avi"),
        line(),
        '{"imag": "face.jpg"}',
        line(output="out/../talk.mp4"),
    )
    assert [each.partition(": ")[0] for each in told] == [
        *2 * ["items.jsonl:1"],
        *4 * ["items.jsonl:3"],
        "items.jsonl:4",
    ]
    assert told[-1].endswith("out/../talk.mp4: line 2 writes the same; name another one")


def test_a_list_that_says_nothing_or_cannot_be_read_is_refused(folder) -> None:
    assert "an empty list" in wrong(folder, "", " ")[0]
    with pytest.raises(ItemsError, match=r"none\.jsonl: the list cannot be read: No such file"):
        read_items(folder / "none.jsonl")
    (folder / "latin.jsonl").write_bytes(line(prompt="x").replace("x", "\xe9").encode("latin-1"))
    with pytest.raises(ItemsError, match=r"latin\.jsonl: the list cannot be read: not UTF-8"):
        read_items(folder / "latin.jsonl")


def test_the_time_left_counts_the_sound_that_can_be_read(folder) -> None:
    heard = Take(folder, tone(folder / "a.wav", 1.5), folder)
    assert seconds_of(heard) == pytest.approx(1.5, abs=0.05)
    assert seconds_of(Take(folder, folder / "voice.wav", folder)) == 0
