"""Objects used like files, on a real S3 server (moto's) that refuses, breaks off and stalls."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline import storage
from data_pipeline.storage import (
    ObjectPath,
    check_writable,
    filling,
    location,
    read_into,
    read_range,
    read_table,
    remove_tree,
    replacing,
    upload,
)

BIG = np.random.default_rng(0).bytes(12_000_000)  # more than one part of an upload, and than one block


def first(count: int, methods: str, kind: str, part: str = ""):
    """Spoils the first `count` requests of these methods."""
    left = [count]

    def fault(method: str, path: str) -> str | None:
        if method not in methods.split() or part not in path or left[0] == 0:
            return None
        left[0] -= 1
        return kind

    return fault


def test_a_local_path_stays_a_path_and_a_uri_becomes_an_object(tmp_path) -> None:
    assert location(str(tmp_path)) == tmp_path
    assert location("file:///a%20b/caf%E9") == location(os.fsdecode(b"/a b/caf\xe9"))
    assert str(location("s3://bucket/a b/ü.mp4")) == "s3://bucket/a b/ü.mp4"


@pytest.mark.parametrize(
    ("uri", "words"),
    [("s4://bucket/x", "nothing is known of s4://"), ("https://a/b", "https://"), ("s3:///", "no bucket")],
)
def test_a_place_that_nothing_can_read_is_refused_in_words(uri, words) -> None:
    with pytest.raises(ValueError, match=words):
        location(uri)


def test_what_is_written_lies_there_and_is_read_back(store) -> None:
    path = location(f"{store.root}/a/ü b.json")
    path.write_text('{"ä": 1}')
    assert store.get("a/ü b.json") == '{"ä": 1}'.encode()
    assert path.read_text() == '{"ä": 1}'
    assert (path.stat().st_size, path.is_file(), path.parent.is_dir()) == (9, True, True)


def test_what_is_missing_is_missed_as_a_file_is(store) -> None:
    path = location(f"{store.root}/nothing.json")
    assert not path.exists()
    for ask in (path.stat, path.read_bytes, path.open, path.unlink):
        with pytest.raises(FileNotFoundError) as caught:
            ask()
        assert caught.value.filename == str(path)
    path.unlink(missing_ok=True)
    assert list((path.parent / "no folder").iterdir()) == []


def test_folders_are_listed_globbed_and_removed(store) -> None:
    for key in ("d/b.json", "d/a.json", "d/deep/er/c.json", "d/deep/c.txt", "e.json"):
        store.put(key, b"x")
    folder = location(f"{store.root}/d")
    assert [path.name for path in folder.iterdir()] == ["a.json", "b.json", "deep"]
    assert [path.name for path in folder.glob("*.json")] == ["a.json", "b.json"]
    assert [path.name for path in folder.glob("**/c.*")] == ["c.txt", "c.json"]
    remove_tree(folder)
    assert store.listed() == ["e.json"]
    with pytest.raises(FileNotFoundError):
        remove_tree(folder)
    remove_tree(folder, ignore_errors=True)


def test_an_object_is_read_here_and_there_as_a_file(store) -> None:
    path = location(store.put("big", BIG))
    random = np.random.default_rng(1)
    with path.open("rb") as file:
        for at, size in zip(random.integers(0, len(BIG), 40), random.integers(1, 2**20, 40), strict=True):
            file.seek(int(at))
            assert file.read(int(size)) == BIG[at : at + size]
        assert file.seek(-5, os.SEEK_END) == len(BIG) - 5
        assert file.read() == BIG[-5:]


def test_a_range_is_read_without_the_rest(store, spoil) -> None:
    path = location(store.put("big", BIG))
    proxy = spoil(lambda method, path: None)
    assert read_range(path, 5_000_000, 70_000) == BIG[5_000_000:5_070_000]
    assert sum(request.answered_bytes for request in proxy.requests) < 80_000


def test_a_range_is_read_into_memory_that_is_there_as_far_as_the_file_goes(store, tmp_path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    for path in (tmp_path / "big", location(store.put("big", BIG))):
        held = bytearray(1000)
        assert read_into(path, 70_000, memoryview(held)) == 1000
        assert held == BIG[70_000:71_000]
        assert read_into(path, len(BIG) - 300, memoryview(held)) == 300
        assert held[:300] == BIG[-300:]
    with pytest.raises(FileNotFoundError):
        read_into(tmp_path / "gone", 0, memoryview(bytearray(1)))


def test_a_column_of_a_table_is_read_without_the_others(store, spoil, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(storage, "BLOCK_BYTES", 2**16)
    table = pa.table({"small": range(1000), "large": [bytes([i % 256]) * 3000 for i in range(1000)]})
    pq.write_table(table, tmp_path / "t.parquet", compression="none", use_dictionary=False)
    path = location(f"{store.root}/t.parquet")
    upload(tmp_path / "t.parquet", path)
    assert read_table(path) == table
    proxy = spoil(lambda method, path: None)
    assert read_table(path, ["small"]) == table.select(["small"])
    assert sum(request.answered_bytes for request in proxy.requests) < 500_000


OFTEN_ENOUGH = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("500", "reset")]  # waits cost seconds


@pytest.mark.parametrize("kind", ["503", "cut", *OFTEN_ENOUGH])
def test_reading_survives_a_store_that_refuses_or_breaks_off(store, spoil, kind) -> None:
    path = location(store.put("big", BIG))
    proxy = spoil(first(2, "GET", kind))
    assert path.read_bytes() == BIG
    assert len(proxy.spoilt()) == 2


def test_a_refusal_that_is_longer_than_the_object_is_retried_too(store, spoil) -> None:
    path = location(store.put("dataset.json", b"{}"))
    proxy = spoil(first(2, "GET", "503"))
    assert path.read_text() == "{}"
    assert len(proxy.spoilt()) == 2
    spoil(first(1, "GET", "500"))
    with path.open() as file:
        assert file.read() == "{}"


@pytest.mark.parametrize("kind", ["503", *OFTEN_ENOUGH])
def test_writing_survives_a_store_that_refuses_or_breaks_off(store, spoil, kind) -> None:
    proxy = spoil(first(2, "PUT", kind))
    location(f"{store.root}/big").write_bytes(BIG)
    assert store.get("big") == BIG
    assert len(proxy.spoilt()) == 2
    assert store.unfinished_uploads() == 0


@pytest.mark.slow
def test_a_stalled_transfer_is_given_up_and_asked_for_again(store, spoil, monkeypatch) -> None:
    monkeypatch.setattr(storage, "STALL_TIMEOUT_S", 1.0)
    path = location(store.put("big", BIG))
    spoil(first(1, "GET", "stall"))
    assert path.read_bytes() == BIG


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_a_store_that_keeps_failing_is_an_error_with_the_name(store, spoil, monkeypatch, kind) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    path = location(store.put("big", BIG))
    spoil(first(99, "GET", kind))
    with pytest.raises(OSError, match="AWS Error") as caught:
        path.read_bytes()
    assert caught.value.filename == str(path)
    with path.open("rb") as file, pytest.raises(OSError, match="AWS Error"):
        file.read()


def test_refused_credentials_and_a_missing_bucket_are_told_in_words(store, spoil) -> None:
    with pytest.raises(OSError, match="bucket does not exist"):
        check_writable(location("s3://no-such-bucket/out"))
    check_writable(location(f"{store.root}/out"))
    assert store.listed() == []
    spoil(lambda method, path: "403")
    with pytest.raises(PermissionError, match="ACCESS_DENIED"):
        check_writable(location(f"{store.root}/out"))


def test_what_is_not_finished_replaces_nothing(store) -> None:
    path = location(store.put("a.json", b"before"))
    with contextlib.suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    with contextlib.suppress(RuntimeError), filling(path.parent / "folder") as folder:
        (folder / "one").write_bytes(b"1")
        raise RuntimeError
    assert store.listed() == ["a.json"]
    assert store.get("a.json") == b"before"


def test_an_upload_that_fails_leaves_the_object_before(store, spoil, monkeypatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    store.put("shard.tar", b"before")
    spoil(first(99, "PUT", "500", part="partNumber=2"))
    with pytest.raises(OSError, match="made by the test"):
        location(f"{store.root}/shard.tar").write_bytes(BIG)
    assert store.get("shard.tar") == b"before"


def test_a_process_killed_while_it_uploads_leaves_the_object_before_and_the_next_one_succeeds(
    store, spoil, tmp_path
) -> None:
    store.put("shard.tar", b"before")
    (tmp_path / "shard.tar").write_bytes(BIG)
    proxy = spoil(first(99, "PUT", "hang", part="partNumber=2"))
    code = (
        "import sys; from pathlib import Path; from data_pipeline.storage import location, upload; "
        "upload(Path(sys.argv[1]), location(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, tmp_path / "shard.tar", f"{store.root}/shard.tar"]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while not proxy.spoilt() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert proxy.spoilt()
    assert store.get("shard.tar") == b"before"
    assert store.unfinished_uploads() == 1
    spoil(lambda method, path: None)
    upload(tmp_path / "shard.tar", location(f"{store.root}/shard.tar"))
    assert store.get("shard.tar") == BIG


def test_a_path_travels_between_processes() -> None:
    import pickle

    path = location("s3://bucket/a/b.mp4")
    assert isinstance(path, ObjectPath)
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 - our own
