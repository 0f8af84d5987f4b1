"""Sources and datasets in an object store (moto's S3 server): what comes of them is what comes of the same
files on a disk, and a store's faults are its own, never the video's."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_pipeline import storage
from data_pipeline.actors import Decode, Item
from data_pipeline.clip import Reason
from data_pipeline.config import CurationConfig, load_config
from data_pipeline.dataset import Dataset
from data_pipeline.media import MediaError, probe, read_audio, read_frames
from data_pipeline.pack import PackError, pack
from data_pipeline.policy import RULES
from data_pipeline.sources import Source
from data_pipeline.storage import Location, location
from data_pipeline.verify import verify
from tests.data_pipeline.makers import clicks, number_in, write_video
from tests.data_pipeline.stores import Store
from tests.data_pipeline.test_actors import good_video, items_of
from tests.data_pipeline.test_pack import add_source, media, write_listing  # noqa: F401 - media is a fixture
from tests.data_pipeline.test_storage import first


@pytest.fixture
def config(store) -> CurationConfig:
    given = [f"sources={store.root}/videos", f"output={store.root}/out", "limits.decode_timeout_s=120"]
    return load_config("talking_head", [*given, "filters.min_motion=null", "filters.min_sharpness=null"])


def outcome(config: CurationConfig, uri: str) -> Item:
    return items_of(Decode(config), Source(uri))[-1]


def test_a_video_in_a_store_gives_the_clips_that_it_gives_on_a_disk(store, config, tmp_path) -> None:
    path = good_video(tmp_path / "a.mp4")
    uri = store.put("videos/a.mp4", path.read_bytes())
    store.put("videos/a.txt", b"A caption beside it.")
    local, local_end = items_of(Decode(config), Source(str(path)))
    there, there_end = items_of(Decode(config), Source(uri))
    assert there.clip.clip_id == local.clip.clip_id
    assert there.clip.frames.jpegs == local.clip.frames.jpegs
    assert np.array_equal(there.clip.audio, local.clip.audio)
    assert there_end.end.size == local_end.end.size == path.stat().st_size
    assert there_end.end.modified_ns > 0
    assert there_end.end.source.caption == "A caption beside it."


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("gone.mp4", None, Reason.MISSING),
        ("empty.mp4", b"", Reason.CORRUPT),
        ("text.mp4", b"no video\n" * 100, Reason.CORRUPT),
    ],
)
def test_a_bad_object_has_its_reason(store, config, name, data, reason) -> None:
    if data is not None:
        store.put(name, data)
    assert outcome(config, f"{store.root}/{name}").clip.reasons == [reason]


def test_a_prefix_and_a_scheme_without_reader_have_their_reasons(store, config) -> None:
    store.put("folder/x", b"x")
    assert outcome(config, f"{store.root}/folder").clip.reasons == [Reason.UNSUPPORTED]
    assert outcome(config, "https://example.invalid/a.mp4").clip.reasons == [Reason.UNSUPPORTED]


def test_an_object_that_may_not_be_read_is_a_storage_error(store, config, spoil) -> None:
    uri = store.put("a.mp4", b"x" * 1000)
    decode = Decode(config)
    spoil(lambda method, path: "403")
    end = items_of(decode, Source(uri))[-1]
    assert end.clip.reasons == [Reason.STORAGE]
    assert "ACCESS_DENIED" in end.clip.error


@pytest.fixture
def long_object(store, tmp_path, monkeypatch) -> Location:
    """Twenty seconds in many blocks."""
    monkeypatch.setattr(storage, "BLOCK_BYTES", 2**15)

    def noisy(k: int, width: int, height: int) -> np.ndarray:
        picture = np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)
        picture[: height // 2] = 200 if k % 2 else 30
        return picture

    path = write_video(
        tmp_path / "long.mp4",
        n_frames=500,
        size=(160, 128),
        pixels=noisy,
        gop=25,
        options={"crf": "10", "preset": "ultrafast"},
        sound=clicks([7.5], 20.0),
    )
    assert path.stat().st_size > 20 * storage.BLOCK_BYTES
    uri = f"{store.root}/long.mp4"
    storage.upload(path, location(uri))
    return location(uri)


def test_a_clip_of_a_long_video_is_read_without_the_rest(long_object, spoil) -> None:
    size = long_object.stat().st_size
    proxy = spoil(lambda method, path: None)
    frames = list(read_frames(long_object, start_s=7.0, end_s=8.0))
    sound = read_audio(long_object, 7.0, 8.0)
    assert len(frames) == 25
    assert np.abs(sound).max() > 10_000
    assert sum(request.answered_bytes for request in proxy.requests) < size / 2


@pytest.mark.parametrize("kind", ["cut", "500"])
def test_a_store_that_breaks_off_in_the_middle_of_a_video_is_no_broken_video(
    long_object, spoil, monkeypatch, kind
) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    after_some = iter([None] * 3)
    proxy = spoil(lambda method, path: next(after_some, kind) if method == "GET" else None)
    with pytest.raises(MediaError) as caught:
        list(read_frames(long_object))
    assert caught.value.reason == Reason.STORAGE
    assert len(proxy.spoilt()) >= 1


def test_a_store_that_breaks_off_now_and_then_changes_no_picture(store, spoil, tmp_path) -> None:
    path = write_video(tmp_path / "a.mp4", n_frames=50, sound=clicks([0.5], 2.0))
    there = location(store.put("a.mp4", path.read_bytes()))
    spoil(first(1, "GET", "cut"))
    assert [number_in(frame.rgb()) for frame in read_frames(there)] == list(range(50))
    assert probe(there) == probe(path)


@pytest.fixture
def measured(store, media, tmp_path) -> tuple[CurationConfig, CurationConfig]:  # noqa: F811
    """The same measured clips on a disk and in a store: (local, there)."""
    root = tmp_path / "dataset"
    add_source(root, media, "a.mp4", {}, {"snr_db": 6.0, "has_media": False, "complete": False}, {})
    add_source(root, media, "b.mp4", {"yaw_deg_p95": 20.0})
    write_listing(root, "a.mp4", "b.mp4")
    copy_into(store, root, "out")
    small = ["sources=none", "pack.shard_mb=0.03"]
    local, there = (
        load_config("talking_head", [*small, f"output={output}"]) for output in (root, f"{store.root}/out")
    )
    return local, there


def copy_into(store: Store, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_a_dataset_in_a_store_is_the_one_on_the_disk_byte_for_byte(store, measured) -> None:
    local, there = measured
    assert pack(there).version == pack(local).version == 1
    here, dataset = Dataset.open(local.output), Dataset.open(there.output)
    assert dataset.version.shards == here.version.shards
    assert dataset.version.manifest_sha256 == here.version.manifest_sha256
    assert len(dataset.version.shards) > 1
    for name in here.version.shards:
        assert store.get(f"out/shards/{name}") == (Path(local.output) / "shards" / name).read_bytes()
    assert [
        key for key in store.listed("out/measured/") if key.endswith(".mp4")
    ] == []  # the shards hold them
    assert list(verify(dataset)) == []
    again = pack(there)
    assert (again.version, again.changed) == (1, False)


def test_a_sample_in_a_store_is_read_by_its_range(store, measured, spoil) -> None:
    _, there = measured
    pack(there)
    dataset = Dataset.open(there.output)
    (clip_id, place), *_ = sorted(dataset.places().items())
    proxy = spoil(lambda method, path: None)
    sample = dataset.sample(place)
    assert list(sample) == [clip_id + suffix for suffix in (".mp4", ".flac", ".npz", ".json", ".txt")]
    asked = [request for request in proxy.requests if request.method == "GET"]
    assert len(asked) == 1
    assert asked[0].answered_bytes < place.size + 2000


def test_webdataset_reads_shards_where_they_lie(store, measured, monkeypatch) -> None:
    import webdataset as wds
    from webdataset.gopen import gopen_schemes

    _, there = measured
    pack(there)
    names = Dataset.open(there.output).version.shards
    monkeypatch.setitem(gopen_schemes, "s3", lambda url, mode, bufsize: location(url).open(mode))
    urls = [f"{there.output}/shards/{name}" for name in names]
    samples = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert sorted(sample["__key__"] for sample in samples) == sorted(Dataset.open(there.output).places())
    assert all({"mp4", "flac", "npz", "json", "txt"} <= set(sample) for sample in samples)


def test_a_damaged_object_is_found_by_verify(store, measured) -> None:
    _, there = measured
    pack(there)
    name = next(iter(Dataset.open(there.output).version.shards))
    store.put(f"out/shards/{name}", store.get(f"out/shards/{name}")[:-1] + b"!")
    assert any(name in problem and "sha256" in problem for problem in verify(Dataset.open(there.output)))


def test_a_store_that_takes_no_more_leaves_the_version_before_and_the_same_command_goes_on(
    store, measured, spoil, monkeypatch
) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    _, there = measured
    pack(there)
    before = {key: store.get(key) for key in store.listed()}
    stricter = there.model_copy(update={"filters": there.filters.model_copy(update={"max_yaw_deg": 15.0})})
    proxy = spoil(first(99, "PUT", "503", part="/manifest/2/"))
    with pytest.raises(PackError, match=r"cannot be packed.*Nothing is lost"):
        pack(stricter)
    assert proxy.spoilt()
    assert {key: store.get(key) for key in before} == before
    assert Dataset.open(there.output).version.version == 1
    spoil(lambda method, path: None)
    assert pack(stricter).version == 2


def curated(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.cli", "curate", "talking_head", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("wrong", ["output", "sources"])
def test_a_missing_bucket_ends_the_command_in_words_before_anything_starts(store, wrong) -> None:
    store.put("videos/a.mp4", b"x")
    given = {"sources": f"{store.root}/videos", "output": f"{store.root}/out"}
    given[wrong] = "s3://no-such-bucket/x"
    done = curated(*(f"{key}={value}" for key, value in given.items()))
    assert done.returncode in (1, 2)
    assert "s3://no-such-bucket/x" in done.stderr
    assert "Traceback" not in done.stderr
    assert "measure" not in done.stderr


@pytest.mark.slow
def test_refused_credentials_end_the_command_in_words(store, spoil) -> None:
    store.put("videos/a.mp4", b"x")
    spoil(lambda method, path: "403")
    done = curated(f"sources={store.root}/videos", f"output={store.root}/out")
    assert done.returncode == 1
    assert "ACCESS_DENIED" in done.stderr
    assert "Traceback" not in done.stderr


SOURCES = 6
OFF = [f"filters.{rule.filter_key}=null" for rule in RULES]
SMALL = ["segment.min_s=1", "encode.width=64", "encode.height=64", "encode.preset=ultrafast"]
DEADLINE_S = 280


@pytest.fixture
def videos(store, tmp_path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(SOURCES):
        good_video(folder / f"{number}.mp4", 60 + number)
    (folder / "broken.mp4").write_text("no video\n")
    copy_into(store, folder, "videos")
    return folder


def started(sources: str | Path, output: str | Path) -> subprocess.Popen:
    given = [f"sources={sources}", f"output={output}", *OFF, *SMALL, "ray.object_store_gb=0.2"]
    command = [sys.executable, "-m", "cluster.cli", "curate", "talking_head", *given]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def shards(root: str | Path) -> dict[str, str]:
    return Dataset.open(root).version.shards


@pytest.mark.slow
def test_a_build_in_a_store_that_throttles_is_the_build_on_the_disk(store, spoil, videos, tmp_path) -> None:
    assert started(f"{store.root}/videos", tmp_path / "out").wait(DEADLINE_S) == 0
    counted = iter(range(10**6))
    faults = {5: "503", 11: "cut", 17: "500", 23: "reset"}
    proxy = spoil(lambda method, path: faults.get(next(counted) % 29))
    assert started(f"{store.root}/videos", f"{store.root}/out").wait(DEADLINE_S) == 0
    assert len(proxy.spoilt()) > 10
    assert shards(f"{store.root}/out") == shards(tmp_path / "out")
    reasons = [row["reason"] for row in Dataset.open(f"{store.root}/out").manifest(["reason"]).to_pylist()]
    assert sorted(map(str, reasons)) == ["None"] * SOURCES + ["corrupt"]
    assert list(verify(Dataset.open(f"{store.root}/out"))) == []


@pytest.mark.slow
def test_a_killed_build_in_a_store_goes_on_and_measures_nothing_twice(store, videos) -> None:
    build = started(f"{store.root}/videos", f"{store.root}/out")
    until = time.monotonic() + DEADLINE_S
    while len(records(store)) < 2 and time.monotonic() < until:
        assert build.poll() is None
        time.sleep(0.1)
    children = psutil.Process(build.pid).children(recursive=True)
    build.kill()
    build.wait()
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=60)
    committed = records(store)
    assert len(committed) >= 2
    assert "out/dataset.json" not in store.listed()
    assert started(f"{store.root}/videos", f"{store.root}/out").wait(DEADLINE_S) == 0
    assert {key: time for key, time in records(store).items() if key in committed} == committed
    assert len(Dataset.open(f"{store.root}/out").places()) == SOURCES
    assert list(verify(Dataset.open(f"{store.root}/out"))) == []


def records(store: Store) -> dict[str, str]:
    """When each record was written."""
    pages = store.client.get_paginator("list_objects_v2").paginate(
        Bucket=store.bucket, Prefix="out/measured/"
    )
    found = [each for page in pages for each in page.get("Contents", [])]
    return {each["Key"]: str(each["LastModified"]) for each in found if each["Key"].endswith("/record.json")}
