"""Pack, and what reads its results, on media that are cheap to make: real H.264, FLAC and arrays."""

import errno
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.clip import Clip, Reason, clip_id_of
from data_pipeline.config import CurationConfig, load_config
from data_pipeline.dataset import MANIFEST, Dataset, DatasetError
from data_pipeline.explain import explain
from data_pipeline.ledger import LISTING, Ledger, listing_path
from data_pipeline.pack import PackError, pack
from data_pipeline.refilter import preview, with_filters
from data_pipeline.shards import file_sha256
from data_pipeline.show import lines_of_preview, show
from data_pipeline.verify import verify
from tests.data_pipeline.packed import N_FRAMES, encoded
from tests.data_pipeline.rows import GOOD


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """One encoded clip of a second, as encode leaves it."""
    return encoded(tmp_path_factory.mktemp("media"), person=1)


def config_of(root: Path, *overrides: str) -> CurationConfig:
    return load_config("talking_head", ["sources=none", f"output={root}", *overrides])


def add_source(root: Path, media: Path, name: str, *clips: dict, **outcome) -> None:
    """A measured source of one-second clips, each good but for what is given."""
    config = config_of(root)
    ledger = Ledger(root, config.measure_sha256())
    sha256 = name.encode().hex().ljust(64, "0")[:64]
    ids = []
    for number, difference in enumerate(clips):
        values = {key: value for key, value in (GOOD | difference).items() if key in Clip.__slots__}
        values |= {"source_sha256": sha256, "start_s": float(number), "end_s": number + 1.0}
        values["clip_id"] = clip_id_of(sha256, number, number + 1)
        if difference.get("has_media", True):
            values |= {"width": 96, "height": 96, "fps": 25.0, "n_frames": N_FRAMES, "caption": "A person."}
            folder = ledger.folder(sha256)
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in (".mp4", ".flac", ".npz"):
                shutil.copy(media / f"clip{suffix}", folder / f"{values['clip_id']}{suffix}")
        clip = Clip(f"/videos/{name}", **values)
        ledger.add_clip(clip, "", complete=difference.get("complete", True))
        ids.append(values["clip_id"])
    source = Clip(f"/videos/{name}", source_sha256=sha256, start_s=0.0, end_s=float(len(clips)), **outcome)
    ledger.add_source(source, ids, "")


def write_listing(root: Path, *names: str, **facts: dict) -> None:
    rows = []
    for name in names:
        row = {
            "uri": f"/videos/{name}",
            "window": "",
            "source_sha256": name.encode().hex().ljust(64, "0")[:64],
        }
        rows.append(row | facts.get(Path(name).stem, {}))
    pq.write_table(pa.Table.from_pylist(rows, LISTING), listing_path(root))


@pytest.fixture
def root(tmp_path, media) -> Path:
    root = tmp_path / "dataset"
    add_source(root, media, "a.mp4", {}, {"snr_db": 6.0, "has_media": False, "complete": False}, {})
    add_source(root, media, "b.mp4", {"yaw_deg_p95": 20.0})
    add_source(root, media, "c.mp4", reasons=[Reason.CORRUPT], error="moov atom not found")
    write_listing(
        root,
        "a.mp4",
        "b.mp4",
        "c.mp4",
        "gone.mp4",
        gone={"source_sha256": None, "reason": "missing", "error": "no such file"},
    )
    return root


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for part in ("shards", "manifest", "versions", "dataset.json")
        for path in ([root / part] if (root / part).is_file() else sorted((root / part).rglob("*")))
        if path.is_file()
    }


def test_every_clip_and_every_source_without_one_has_a_row(root) -> None:
    pack(config_of(root))
    rows = Dataset.open(root).manifest()
    assert rows.schema == MANIFEST
    outcome = {(Path(row["source_uris"][0]).name, row["status"], row["reason"]) for row in rows.to_pylist()}
    assert outcome == {
        ("a.mp4", "kept", None),
        ("a.mp4", "rejected", "noisy"),
        ("b.mp4", "kept", None),
        ("c.mp4", "error", "corrupt"),
        ("gone.mp4", "error", "missing"),
    }
    ids = [row["clip_id"] for row in rows.to_pylist() if row["clip_id"]]
    assert ids == sorted(ids)
    assert len(ids) == 4


def test_a_packed_dataset_is_whole(root) -> None:
    pack(config_of(root))
    assert list(verify(Dataset.open(root))) == []


def test_five_lines_of_webdataset_read_it(root) -> None:
    pack(config_of(root))
    import webdataset

    shards = sorted(str(path) for path in (root / "shards").glob("train-*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == 3
    for sample in samples:
        assert {"mp4", "flac", "npz", "json", "txt"} <= set(sample)
        assert json.loads(sample["json"])["clip_id"] == sample["__key__"]
        assert np.load(io.BytesIO(sample["npz"]))["boxes"].shape == (N_FRAMES, 4)


def test_a_sample_tells_what_was_measured_and_not_what_was_decided(root) -> None:
    pack(config_of(root))
    dataset = Dataset.open(root)
    clip_id = next(iter(dataset.places()))
    facts = json.loads(dataset.sample_of(clip_id)[f"{clip_id}.json"])
    assert facts["snr_db"] == GOOD["snr_db"]
    assert not {"status", "reason", "split", "shard", "stage_seconds"} & set(facts)


def test_shard_members_carry_no_time_and_no_owner(root) -> None:
    pack(config_of(root))
    (shard,) = (root / "shards").glob("*.tar")
    with tarfile.open(shard) as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}


def test_shards_are_cut_to_size(root) -> None:
    pack(config_of(root, "pack.shard_mb=0.00001"))
    dataset = Dataset.open(root)
    assert len(dataset.version.shards) == 3
    assert list(verify(dataset)) == []


def test_the_same_ledger_gives_the_same_bytes_in_whatever_order_it_was_filled(root, tmp_path, media) -> None:
    other = tmp_path / "other"
    add_source(other, media, "c.mp4", reasons=[Reason.CORRUPT], error="moov atom not found")
    add_source(other, media, "b.mp4", {"yaw_deg_p95": 20.0})
    add_source(other, media, "a.mp4", {}, {"snr_db": 6.0, "has_media": False, "complete": False}, {})
    shutil.copy(listing_path(root), listing_path(other))
    pack(config_of(root))
    pack(config_of(other))
    mine, theirs = files(root), files(other)
    assert {k: v for k, v in mine.items() if "versions" not in k} == {
        k: v for k, v in theirs.items() if "versions" not in k
    }


def test_packing_again_changes_nothing(root) -> None:
    assert pack(config_of(root)).changed
    before = files(root)
    again = pack(config_of(root))
    assert (again.version, again.changed) == (1, False)
    assert files(root) == before


def test_media_are_stored_once_and_a_later_version_finds_them_in_the_shards(root) -> None:
    pack(config_of(root))
    assert not list((root / "measured").rglob("*.mp4"))
    packed = pack(config_of(root, "filters.max_yaw_deg=15"))
    assert (packed.version, packed.changed) == (2, True)
    assert list(verify(Dataset.open(root))) == []
    assert list(verify(Dataset.open(root, 1))) == []
    pack(config_of(root))  # back: the clip of b.mp4 is in version 1's shards only
    assert len(Dataset.open(root).places()) == 3
    assert list(verify(Dataset.open(root))) == []


def test_byte_identical_files_are_one_source_with_several_names(root) -> None:
    same = {"source_sha256": b"b.mp4".hex().ljust(64, "0"), "licence": "CC0", "caption": "B speaks."}
    write_listing(root, "b.mp4", "copy.mp4", copy=same)
    pack(config_of(root))
    (row,) = Dataset.open(root).manifest().to_pylist()
    assert row["source_uris"] == ["/videos/b.mp4", "/videos/copy.mp4"]
    assert (row["source_licence"], row["caption"]) == ("CC0", "B speaks.")


def test_nothing_kept_is_a_dataset_too(root) -> None:
    write_listing(root, "c.mp4")
    pack(config_of(root))
    dataset = Dataset.open(root)
    assert (dataset.version.shards, dataset.manifest().num_rows) == ({}, 1)
    assert list(verify(dataset)) == []
    assert "kept      0 clips" in "\n".join(show(dataset))


def test_a_full_disk_leaves_the_version_before_and_the_same_command_goes_on(root, monkeypatch) -> None:
    pack(config_of(root))
    before = files(root)
    real = os.replace

    def full(source, target):
        if "manifest" in str(target) or str(target).endswith(".tar"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PackError, match=r"No space left on device.*Nothing is lost"):
        pack(config_of(root, "filters.max_yaw_deg=15"))
    monkeypatch.setattr(os, "replace", real)
    assert files(root) == before
    assert list(verify(Dataset.open(root))) == []
    assert pack(config_of(root, "filters.max_yaw_deg=15")).version == 2
    assert list(verify(Dataset.open(root))) == []


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, just large enough to measure on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here (that needs root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_really_full_stops_pack_in_words_and_more_room_lets_it_finish(
    root, small_disk
) -> None:
    there = small_disk / "dataset"
    shutil.copytree(root, there)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(PackError, match="No space left on device"):
        pack(config_of(there))
    with pytest.raises(DatasetError, match="is no dataset"):
        Dataset.open(there)
    filler.unlink()
    assert pack(config_of(there)).version == 1
    assert list(verify(Dataset.open(there))) == []
    assert not list((there / "shards").glob(".*"))


def test_a_pack_that_died_before_its_version_was_named_is_done_over(root, monkeypatch) -> None:
    def died(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_pipeline.pack.commit", died)
    with pytest.raises(KeyboardInterrupt):
        pack(config_of(root))
    with pytest.raises(DatasetError, match="is no dataset"):
        Dataset.open(root)
    monkeypatch.undo()
    assert pack(config_of(root)).version == 1
    assert list(verify(Dataset.open(root))) == []


def test_a_listed_source_without_a_record_is_an_error_and_not_forgotten(root) -> None:
    packed = pack(config_of(root, "encode.crf=30"))  # measured under another configuration
    rows = Dataset.open(root).manifest().to_pylist()
    assert {row["reason"] for row in rows} == {"storage", "missing"}
    assert len(rows) == 4
    assert packed.error_fraction == 3 / 4


def damage_a_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def test_verify_finds_a_damaged_byte_a_missing_shard_and_a_truncated_one(root) -> None:
    pack(config_of(root))
    (shard,) = (root / "shards").glob("*.tar")
    whole = shard.read_bytes()
    damage_a_byte(shard, 3000)
    assert "its sha256 is" in "\n".join(verify(Dataset.open(root)))
    shard.write_bytes(whole[:2000])
    assert "its sha256 is" in "\n".join(verify(Dataset.open(root)))
    shard.unlink()
    assert "missing" in "\n".join(verify(Dataset.open(root)))


def vouch_for(root: Path, shard: Path) -> None:
    """Have the version name the digest that a shard has now."""
    path = root / "versions" / "1.json"
    state = json.loads(path.read_text())
    state["shards"] = {shard.name: file_sha256(shard)}
    path.write_text(json.dumps(state))


def test_verify_looks_inside_even_where_digests_agree(root) -> None:
    pack(config_of(root))
    (shard,) = (root / "shards").glob("*.tar")
    with tarfile.open(shard) as tar:
        member = next(m for m in tar if m.name.endswith(".mp4"))
    damage = bytearray(shard.read_bytes())
    damage[member.offset_data : member.offset_data + member.size] = b"\0" * member.size
    shard.write_bytes(damage)
    vouch_for(root, shard)
    problems = "\n".join(verify(Dataset.open(root)))
    assert "does not decode" in problems
    assert member.name.split(".")[0] in problems


def test_verify_finds_a_sample_that_the_manifest_does_not_name(root) -> None:
    pack(config_of(root))
    (shard,) = (root / "shards").glob("*.tar")
    with tarfile.open(shard, "a") as tar:
        stray = tarfile.TarInfo("0123456789abcdef.mp4")
        stray.size = 2 * tarfile.RECORDSIZE
        tar.addfile(stray, io.BytesIO(bytes(stray.size)))
    vouch_for(root, shard)
    assert "bytes belong to no clip of the manifest" in "\n".join(verify(Dataset.open(root)))


def test_a_shard_with_the_longest_end_that_tar_writes_is_whole(tmp_path, media) -> None:
    """Two empty blocks of which the second one begins a record: that record is padded, too."""
    root, other = tmp_path / "dataset", tmp_path / "other"
    for folder in (root, other):
        add_source(folder, media, "a.mp4", {})
        write_listing(folder, "a.mp4")
    pack(config_of(root))
    (place,) = Dataset.open(root).places().values()
    more = (tarfile.RECORDSIZE - tarfile.BLOCKSIZE - place.size) % tarfile.RECORDSIZE
    (video,) = (other / "measured").rglob("*.mp4")
    free_box = more.to_bytes(4, "big") + b"free" + bytes(max(more - 8, 0))
    video.write_bytes(video.read_bytes() + (free_box if more else b""))
    pack(config_of(other))
    (place,) = Dataset.open(other).places().values()
    size = (other / "shards" / place.shard).stat().st_size
    assert size - place.size == tarfile.RECORDSIZE + tarfile.BLOCKSIZE
    assert list(verify(Dataset.open(other))) == []


def test_a_dataset_of_another_schema_is_refused_in_words(root) -> None:
    pack(config_of(root))
    about = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(about | {"schema_version": 99}))
    with pytest.raises(DatasetError, match="schema version 99"):
        Dataset.open(root)
    with pytest.raises(DatasetError, match="is no dataset"):
        Dataset.open(root / "shards")


def test_explain_tells_of_a_clip_a_source_and_an_error(root) -> None:
    pack(config_of(root))
    dataset = Dataset.open(root)
    story = "\n".join(explain(dataset, "a.mp4"))
    assert "kept" in story
    assert "rejected, noisy" in story
    assert "<- noisy" in story
    assert "not measured further" in story
    assert "moov atom not found" in "\n".join(explain(dataset, "c.mp4"))
    assert "no such file" in "\n".join(explain(dataset, "/videos/gone.mp4"))
    clip_id = next(iter(dataset.places()))
    assert f"in shards/{dataset.places()[clip_id].shard}" in "\n".join(explain(dataset, clip_id[:8]))
    with pytest.raises(DatasetError, match="knows nothing called 'nobody'"):
        list(explain(dataset, "nobody"))


def test_a_preview_says_what_goes_what_comes_and_what_must_be_measured(root) -> None:
    pack(config_of(root))
    dataset = Dataset.open(root)
    stricter = preview(dataset, with_filters(dataset, ["filters.max_yaw_deg=15"]))
    assert (stricter.kept_before, stricter.kept_after, stricter.newly_rejected) == (3, 2, {"profile": 1})
    looser = preview(dataset, with_filters(dataset, ["filters.min_snr_db=5"]))
    assert (looser.kept_after, looser.to_measure) == (3, {"noisy": 1})
    assert looser.to_measure_uris == {"/videos/a.mp4"}
    assert "to measure    1: noisy 1" in "\n".join(lines_of_preview(looser))
    assert Dataset.open(root).version.version == 1
