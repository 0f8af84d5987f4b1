import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.sources import Source, SourcesError, check_reachable, list_sources, sample_of, table_of


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(spec) -> list[str]:
    return [source.path.name for source in list_sources(spec)]


def test_a_folder_gives_its_videos_at_any_depth_in_a_stable_order(tmp_path) -> None:
    touch(tmp_path / "b.mp4", tmp_path / "a" / "c.MKV", tmp_path / "notes.txt", tmp_path / "a" / "x.wav")
    assert names(str(tmp_path)) == ["b.mp4", "c.MKV"]


def test_a_file_is_taken_whatever_it_is_called(tmp_path) -> None:
    touch(tmp_path / "video.bin")
    assert names(str(tmp_path / "video.bin")) == ["video.bin"]


def test_a_glob_gives_what_matches(tmp_path) -> None:
    touch(tmp_path / "x" / "1.mp4", tmp_path / "y" / "2.mp4", tmp_path / "y" / "3.avi")
    assert names(str(tmp_path / "**" / "*.mp4")) == ["1.mp4", "2.mp4"]


@pytest.mark.parametrize(
    "name", ["with space.mp4", 'it\'s "quoted".mp4', "two\nlines.mp4", "日本語 ü.mp4", "#?%41.mp4"]
)
def test_awkward_names_lead_back_to_their_file(tmp_path, name) -> None:
    touch(tmp_path / name)
    (source,) = list_sources(str(tmp_path))
    assert source.path == tmp_path / name
    assert source.path.exists()


def test_a_name_that_is_not_utf8_travels_as_a_file_uri(tmp_path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    (source,) = list_sources(str(tmp_path))
    assert source.uri.startswith("file://")
    source.uri.encode("utf-8")
    assert source.path.read_bytes() == b"x"


def test_a_loop_of_links_is_entered_once(tmp_path) -> None:
    touch(tmp_path / "a" / "1.mp4")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert names(str(tmp_path)) == ["1.mp4"]


def test_a_dataset_among_its_own_sources_is_not_one_of_them(tmp_path) -> None:
    touch(tmp_path / "1.mp4", tmp_path / "out" / "measured" / "2.mp4")
    assert names(str(tmp_path)) == ["1.mp4", "2.mp4"]
    found = list_sources(str(tmp_path), output=str(tmp_path / "out"))
    assert [source.path.name for source in found] == ["1.mp4"]


def test_several_specs_give_each_source_once(tmp_path) -> None:
    touch(tmp_path / "1.mp4", tmp_path / "2.mp4")
    assert names([str(tmp_path / "2.mp4"), str(tmp_path)]) == ["2.mp4", "1.mp4"]


COLUMNS = ("uri", "start_s", "end_s", "crop", "licence", "speaker", "caption")
ROWS = [
    {"uri": "a.mp4", "start_s": 1.5, "end_s": 4.0, "licence": "CC0", "speaker": "ada", "caption": "a, b"},
    {"uri": "a.mp4", "start_s": 6.0, "end_s": 9.0, "crop": [0, 0, 10, 20]},
    {"uri": "gone.mp4"},
]


def write_list(path: Path) -> None:
    if path.suffix == ".csv":
        path.write_text(
            "uri,start_s,end_s,crop,licence,speaker,caption\n"
            'a.mp4,1.5,4,,CC0,ada,"a, b"\na.mp4,6,9,0 0 10 20,,,\ngone.mp4,,,,,,\n'
        )
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist([dict.fromkeys(COLUMNS) | row for row in ROWS]), path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_list_of_any_format_says_the_same(tmp_path, suffix) -> None:
    touch(tmp_path / "a.mp4")
    path = tmp_path / f"list{suffix}"
    write_list(path)
    first, second, gone = list_sources(str(path))
    assert first.path == tmp_path / "a.mp4"  # relative to the list
    assert (first.start_s, first.end_s, first.licence, first.speaker) == (1.5, 4.0, "CC0", "ada")
    assert first.caption == "a, b"
    assert second.crop == (0, 0, 10, 20)
    assert first.window != second.window
    assert not gone.path.exists()
    assert gone.window == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uri,start_s\n,1\n", "row 1: no `uri`"),
        ("url\nx\n", "row 1: no `uri`"),
        ("uri,start_s,end_s\na,5,2\n", "is no time range"),
        ("uri,start_s\na,soon\n", "is not a number"),
        ("uri,crop\na,1 2 3\n", "row 1"),
        ("uri,crop\na,5 5 1 1\n", "is no box"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, text, words) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(SourcesError, match=words.replace("`", ".")):
        list(list_sources(str(path)))


def test_a_line_that_is_not_json_is_named(tmp_path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"uri": "a"}\n{oops\n')
    with pytest.raises(SourcesError, match="line 2: not JSON"):
        list(list_sources(str(path)))


@pytest.mark.parametrize("spec", ["nowhere/*.mp4", "nowhere", "s4://bucket/videos"])
def test_what_matches_nothing_or_cannot_be_reached_is_named(spec) -> None:
    with pytest.raises(SourcesError, match=r"nowhere|s4"):
        list(list_sources(spec))


def test_a_folder_without_videos_is_named(tmp_path) -> None:
    touch(tmp_path / "notes.txt")
    with pytest.raises(SourcesError, match="holds no video"):
        list(list_sources(str(tmp_path)))


def test_a_sample_is_the_same_whatever_the_order() -> None:
    sources = [Source(f"{i}.mp4") for i in range(100)]
    assert set(sample_of(sources, 7)) == set(sample_of(reversed(sources), 7))
    assert len(sample_of(sources, 200)) == 100


def test_sources_become_a_table() -> None:
    table = table_of(Source(f"{i}", start_s=float(i)) for i in range(25_000))
    assert table.num_rows == 25_000
    assert table["start_s"][24_999].as_py() == 24_999
    assert table_of([]).num_rows == 0


def uris(store, spec: str | list[str], **options) -> list[str]:
    return [source.uri.removeprefix(f"{store.root}/") for source in list_sources(spec, **options)]


def test_a_prefix_of_a_store_gives_its_videos_and_no_dataset_that_lies_there(store) -> None:
    for key in ("v/b.mp4", "v/a/c.MKV", "v/notes.txt", "v/.hidden.mp4", "v/out/measured/x.mp4", "w/d.mp4"):
        store.put(key, b"x")
    assert uris(store, f"{store.root}/v", output=f"{store.root}/v/out") == ["v/a/c.MKV", "v/b.mp4"]
    assert uris(store, f"{store.root}/v/notes.txt") == ["v/notes.txt"]
    assert uris(store, [f"{store.root}/w", f"{store.root}/w/d.mp4"]) == ["w/d.mp4"]


def test_a_pattern_in_a_store_gives_the_objects_that_match(store) -> None:
    for key in ("v/1.mp4", "v/x/2.mp4", "v/x/y/3.mp4", "v/x/4.avi"):
        store.put(key, b"x")
    assert uris(store, f"{store.root}/v/*/*.mp4") == ["v/x/2.mp4"]
    assert uris(store, f"{store.root}/v/**/*.mp4") == ["v/1.mp4", "v/x/2.mp4", "v/x/y/3.mp4"]


def test_a_list_in_a_store_names_objects_beside_it_and_elsewhere(store) -> None:
    rows = [
        {"uri": "a b.mp4", "start_s": 1, "end_s": 2},
        {"uri": "../c.mp4"},
        {"uri": "s3://other/d.mp4"},
        {"uri": "/local/e.mp4"},
    ]
    store.put("lists/all.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
    store.put("lists/all.csv", ("uri\n" + "\n".join(row["uri"] for row in rows)).encode())
    expected = ["lists/a b.mp4", "c.mp4", "s3://other/d.mp4", "/local/e.mp4"]
    assert uris(store, f"{store.root}/lists/all.jsonl") == expected
    assert uris(store, f"{store.root}/lists/all.csv") == expected
    first = next(list_sources(f"{store.root}/lists/all.jsonl"))
    assert (first.start_s, first.end_s) == (1.0, 2.0)


def test_what_a_store_does_not_hold_is_said_before_anything_starts(store) -> None:
    for spec in (f"{store.root}/none", "s3://no-such-bucket/v"):
        with pytest.raises(SourcesError, match=r"is no object, and nothing lies under it"):
            check_reachable(spec)
        with pytest.raises(SourcesError, match="is no object"):
            list(list_sources(spec))
    with pytest.raises(SourcesError, match="nothing is known of s4://"):
        check_reachable("s4://bucket/v")


def test_a_store_that_refuses_is_not_an_empty_one(store, spoil) -> None:
    store.put("v/1.mp4", b"x")
    spoil(lambda method, path: "403")
    with pytest.raises(PermissionError, match="ACCESS_DENIED"):
        check_reachable(f"{store.root}/v")
    with pytest.raises(PermissionError, match="ACCESS_DENIED"):
        list(list_sources(f"{store.root}/v"))
