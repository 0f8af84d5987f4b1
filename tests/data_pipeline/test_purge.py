"""A purge is proved by reading every byte that it left. Packs are real; nothing of ours is mocked."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.cli import main
from data_pipeline.curate import write_report
from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.labels import LABELS
from data_pipeline.ledger import LISTING
from data_pipeline.pack import pack
from data_pipeline.tombstones import Tombstones
from data_pipeline.verify import verify
from tests.data_pipeline import face_media
from tests.data_pipeline.leaks import Traces, leaks
from tests.data_pipeline.packed import (
    add_source,
    config_of,
    encoded,
    face,
    sha256_of,
    thumbnail,
    write_listing,
)

ALICE, BOB = 1, 2
BEGUN = ("alice.mp4", "both.mp4", "bob.mp4", "empty.mp4")


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("media")
    return {person: encoded(folder / str(person), person) for person in (ALICE, BOB)}


@pytest.fixture(scope="module")
def packed(tmp_path_factory, media) -> tuple[Path, dict[str, list[str]]]:
    """Alice alone, Alice and Bob in one source, Bob alone; three versions, labels, features, leftovers."""
    root = tmp_path_factory.mktemp("packed") / "dataset"
    measured = {"has_media": False, "complete": False}
    ids = {
        "alice": add_source(
            root, media, "alice.mp4", {"person": ALICE}, {"person": ALICE, "snr_db": 1.0} | measured
        ),
        "both": add_source(
            root,
            media,
            "both.mp4",
            {"person": ALICE},
            {"person": BOB, "yaw_deg_p95": 35.0},
            {"luminance": 2.0} | measured,
        ),
        "bob": add_source(root, media, "bob.mp4", {"person": BOB}),
    }
    add_source(root, media, "empty.mp4")
    copy = {"source_sha256": sha256_of("alice.mp4")}
    write_listing(root, *BEGUN, "other name.mp4", **{"other name": copy})
    pack(config_of(root))
    words = {"clip_id": ids["alice"][0], "label": "keep", "note": "Alice Liddell", "reviewer": None}
    pack(config_of(root, "filters.max_yaw_deg=30"), labels=pa.Table.from_pylist([words], LABELS))
    config = config_of(root, "filters.max_yaw_deg=29")
    write_report(root, config, pack(config), None)
    shutil.copy(root / "measured" / "sources.parquet", root / "measured" / "pilot.parquet")
    for shard in (root / "shards").glob("*.tar"):
        feature = root / "features" / "speech-01234567" / shard.name
        feature.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shard, feature)
    (root / "shards" / ".train-000000.1").write_bytes((media[ALICE] / "clip.mp4").read_bytes())
    shutil.copy(root / "measured" / "sources.parquet", root / "measured" / ".sources.parquet.0a1b2c3d")
    return root, ids


@pytest.fixture
def root(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed[0], tmp_path / "dataset"))


def traces_of_alice(ids: dict[str, list[str]], media: dict[int, Path], *names: str) -> Traces:
    clips = [*ids["alice"], ids["both"][0], ids["both"][2]]
    blobs = [(media[ALICE] / f"clip{suffix}").read_bytes() for suffix in (".mp4", ".flac")]
    texts = [*clips, *names, *(sha256_of(Path(name).name) for name in names), "Liddell"]
    others = [(media[BOB] / f"clip{suffix}").read_bytes() for suffix in (".mp4", ".flac")]
    return Traces(texts, [*blobs, thumbnail(ALICE)], face(ALICE), [*others, thumbnail(BOB)])


@dataclass(frozen=True)
class Asked:
    """A purge, what it must leave nothing of, and the clips that must be left."""

    arguments: list[str]
    traces: Traces
    left: set[str]


def traces_of_source(ids: dict[str, list[str]]) -> Traces:
    names = ["/videos/alice.mp4", "/videos/other name.mp4", sha256_of("alice.mp4"), "Liddell"]
    return Traces([*ids["alice"], *names], [], np.full(128, 9.0))


def purge(root: Path, *arguments: str) -> int:
    return main(["dataset", "purge", str(root), *arguments])


def identity_of(root: Path, clip_id: str) -> str:
    rows = Dataset.open(root).manifest(["clip_id", "identity_id"]).to_pylist()
    return next(row["identity_id"] for row in rows if row["clip_id"] == clip_id)


def test_the_search_finds_what_there_is_to_find(packed, media) -> None:
    root, ids = packed
    found = "\n".join(leaks(root, traces_of_alice(ids, media, "/videos/alice.mp4")))
    for where in (
        "measured/",
        "shards/train",
        "shards/.train",
        "measured/.sources",
        "features/",
        "manifest/",
        "identities/",
    ):
        assert where in found
    for what in ("report.html/base64", "an embedding", "labels/", ".npz/identity: an embedding", "pilot"):
        assert what in found


def test_nothing_of_a_purged_person_is_left_and_all_else_is_whole(packed, root, media, capsys) -> None:
    _, ids = packed
    who = identity_of(root, ids["alice"][0])
    assert purge(root, "--identity", who, "--yes", "--reason", "asked to go") == 0
    assert leaks(root, traces_of_alice(ids, media, "/videos/alice.mp4", "/videos/other name.mp4")) == []
    dataset = Dataset.open(root)
    assert list(verify(dataset)) == []
    assert {*dataset.places()} == {ids["bob"][0]}
    assert dataset.versions() == [4]
    said = capsys.readouterr().out
    assert "to purge      4 clips" in said
    assert "1 whole sources" in said
    assert "no face was measured in it, and its source shows the person" in said
    assert "source /videos/alice.mp4 (it lies outside the dataset, and is not deleted)" in said


def test_a_clip_that_only_a_removed_version_held_comes_back_with_a_looser_rule(packed, root) -> None:
    _, ids = packed
    assert purge(root, "--identity", identity_of(root, ids["alice"][0]), "--yes") == 0
    pack(config_of(root))
    dataset = Dataset.open(root)
    assert {*dataset.places()} == {ids["bob"][0], ids["both"][1]}
    assert list(verify(dataset)) == []


def test_a_preview_writes_nothing(packed, root, capsys) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert purge(root, "--source", "/videos/alice.mp4") == 0
    assert "nothing was deleted; --yes" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_source_goes_under_every_name_of_its_content(packed, root) -> None:
    _, ids = packed
    assert purge(root, "--source", "/videos/other name.mp4", "--yes") == 0
    assert leaks(root, traces_of_source(ids)) == []
    assert list(verify(Dataset.open(root))) == []
    assert {*Dataset.open(root).places()} == {ids["both"][0], ids["bob"][0]}


def test_a_source_that_gave_no_clip_goes_too(root) -> None:
    assert purge(root, "--source", "/videos/empty.mp4", "--yes") == 0
    assert leaks(root, Traces(["/videos/empty.mp4", sha256_of("empty.mp4")], [], np.full(128, 9.0))) == []


def test_copies_of_the_same_take_go_with_it(tmp_path, media) -> None:
    root = tmp_path / "dataset"
    prints = {"phash": "0123456789abcdef" * 5, "audio_fingerprint": np.arange(400, dtype="<u4").tobytes()}
    ids = [
        add_source(root, media, name, {"person": ALICE, "end_s": 8.0} | prints)[0]
        for name in ("first.mp4", "copy.mp4")
    ]
    write_listing(root, "first.mp4", "copy.mp4")
    pack(config_of(root))
    groups = Dataset.open(root).manifest(["duplicate_group"])["duplicate_group"].to_pylist()
    if groups[0] is None or groups[0] != groups[1]:
        pytest.fail(f"the two takes are not of one group: {groups}")
    assert purge(root, "--source", "/videos/first.mp4", "--yes") == 0
    assert Dataset.open(root).manifest().num_rows == 0
    assert leaks(root, Traces([*ids, "/videos/copy.mp4"], [], face(ALICE))) == []


def test_the_next_pack_does_not_bring_back_what_is_listed_and_measured_again(packed, root, media) -> None:
    _, ids = packed
    assert purge(root, "--identity", identity_of(root, ids["alice"][0]), "--yes") == 0
    add_source(root, media, "alice.mp4", {"person": ALICE})
    add_source(root, media, "both.mp4", {"person": ALICE}, {"person": BOB})
    write_listing(root, "alice.mp4", "both.mp4", "bob.mp4")
    pack(config_of(root))
    rows = Dataset.open(root).manifest(["clip_id", "source_uris"]).to_pylist()
    assert {row["clip_id"] for row in rows} == {ids["bob"][0], ids["both"][1]}


def test_the_audit_record_says_what_was_done_and_names_nobody(root) -> None:
    assert purge(root, "--source", "/videos/alice.mp4", "--yes", "--reason", "ticket 12") == 0
    (record,) = (root / "audit").glob("*.json")
    told = json.loads(record.read_text())
    assert (told["asked"], told["clips"], told["sources"], told["reason"]) == ("source", 2, 1, "ticket 12")
    assert told["finished"] is not None
    assert told["bytes_deleted"] > 10_000
    assert told["versions_removed"] == [1, 2, 3]


def test_a_version_that_never_named_it_stays(tmp_path, media) -> None:
    root = tmp_path / "dataset"
    add_source(root, media, "bob.mp4", {"person": BOB})
    write_listing(root, "bob.mp4")
    pack(config_of(root))
    add_source(root, media, "alice.mp4", {"person": ALICE})
    write_listing(root, "alice.mp4", "bob.mp4")
    pack(config_of(root))
    assert purge(root, "--source", "/videos/alice.mp4", "--yes") == 0
    assert Dataset.open(root).versions() == [1, 3]
    assert list(verify(Dataset.open(root, 1))) == []
    with pytest.raises(DatasetError, match="has no version 2"):
        Dataset.open(root, 2)


def test_what_nobody_knows_is_said_so_with_status_2(root, tmp_path, capsys) -> None:
    assert purge(root, "--source", "/videos/carol.mp4", "--yes") == 2
    assert "names the source '/videos/carol.mp4'" in capsys.readouterr().err
    assert purge(root, "--identity", "nobody", "--yes") == 2
    assert "no clip belongs to an identity 'nobody'" in capsys.readouterr().err
    assert purge(root, "--identity", str(tmp_path / "face.jpg"), "--yes") == 2
    assert "face.jpg: cannot be read" in capsys.readouterr().err
    assert Dataset.open(root).versions() == [1, 2, 3]


def test_a_picture_of_the_face_finds_the_person(packed, root, tmp_path, capsys) -> None:
    """The woman of a photograph in Alice's place: her embedding is written into the ledger by hand."""
    import cv2

    from data_pipeline.models.face_models import identity_of_picture

    _, ids = packed
    picture = tmp_path / "face.png"
    pixels = face_media.astronaut()
    cv2.imwrite(str(picture), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    embedding = identity_of_picture(pixels, config_of(root).faces) + np.float32(0.01)
    for path in (root / "measured").rglob("measurements.parquet"):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            if row["identity_embedding"] and np.allclose(row["identity_embedding"], face(ALICE)):
                row["identity_embedding"] = embedding.tolist()
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    assert purge(root, "--identity", str(picture)) == 0
    said = capsys.readouterr().out
    assert "to purge      4 clips" in said
    for clip_id in (*ids["alice"], ids["both"][0]):
        assert f"{clip_id}  " in said
    assert "the face, at 0.11" in said
    assert "1 clips hold no measured face" in said


def asked_for(packed: tuple[Path, dict[str, list[str]]], media: dict[int, Path], what: str) -> Asked:
    """A purge of Alice's source, or of Alice."""
    root, ids = packed
    if what == "source":
        left = {ids["both"][0], ids["bob"][0]}
        return Asked(["--source", "/videos/alice.mp4", "--yes"], traces_of_source(ids), left)
    traces = traces_of_alice(ids, media, "/videos/alice.mp4", "/videos/other name.mp4")
    return Asked(["--identity", identity_of(root, ids["alice"][0]), "--yes"], traces, {ids["bob"][0]})


def killed_at(root: Path, number: int, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    """A purge in a process that dies before its change of this number."""
    command = [sys.executable, "-m", "tests.data_pipeline.killed_purge", str(number)]
    purge_it = ["dataset", "purge", str(root), *arguments]
    return subprocess.run([*command, *purge_it], capture_output=True, timeout=120)


def finished(root: Path) -> list[bool]:
    """Of every audit record, whether the purge was carried out."""
    records = [json.loads(path.read_text()) for path in (root / "audit").glob("*.json")]
    return [record["finished"] is not None for record in records]


def check_kill(asked: Asked, root: Path, number: int) -> bool:
    """Whether the process was killed; what it left goes on with the same command."""
    done = killed_at(root, number, asked.arguments)
    killed = done.returncode == -signal.SIGKILL
    assert killed or done.returncode == 0, done.stderr.decode()
    assert Dataset.open(root).version.version in (3, 4)
    was_finished = finished(root) == [True]  # then the same command finds nothing, which is status 2
    assert killed or was_finished
    assert purge(root, *asked.arguments) == (2 if was_finished else 0)
    assert leaks(root, asked.traces) == []
    dataset = Dataset.open(root)
    assert dataset.versions() == [dataset.version.version] == [4]
    assert {*dataset.places()} == asked.left
    assert list(verify(dataset)) == []
    assert "Liddell" not in (root / "report.html").read_text()
    assert finished(root) == [True]
    return killed


def test_a_purge_that_was_killed_goes_on_with_the_same_command(packed, media, root) -> None:
    assert check_kill(asked_for(packed, media, "source"), root, 14)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["source", "identity"])
def test_it_goes_on_wherever_it_was_killed(packed, media, tmp_path, what) -> None:
    asked, number = asked_for(packed, media, what), 1
    while check_kill(asked, Path(shutil.copytree(packed[0], tmp_path / str(number))), number):
        number += 1
    assert number > 20


def test_a_tombstone_covers_stretches_and_names_and_tells_nothing(packed, root) -> None:
    _, ids = packed
    assert purge(root, "--identity", identity_of(root, ids["alice"][0]), "--yes") == 0
    stones = Tombstones(Dataset.open(root).version.tombstones)
    both = sha256_of("both.mp4")
    assert stones.cover_content(sha256_of("alice.mp4"))
    assert stones.cover_uri("/videos/other name.mp4")
    assert not stones.cover_content(both)
    assert stones.cover_clip(both, 0.5, 1.5)  # another segmentation's clip, half of it Alice's
    assert not stones.cover_clip(both, 1.0, 2.0)
    assert not stones.cover_uri("/videos/both.mp4")
    listing = pa.Table.from_pylist([{"uri": "/videos/new.mp4", "source_sha256": both}], LISTING)
    assert stones.listing_without(listing).num_rows == 1


@pytest.mark.slow
def test_in_a_store_nothing_is_left_either_not_even_a_name(packed, root, store, tmp_path) -> None:
    _, ids = packed
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        store.put(f"dataset/{path.relative_to(root)}", path.read_bytes())
    there = f"{store.root}/dataset"
    assert main(["dataset", "purge", there, "--source", "/videos/alice.mp4", "--yes"]) == 0
    copy = tmp_path / "copy"
    for each in store.client.list_objects_v2(Bucket=store.bucket)["Contents"]:  # with empty ones, too
        path = copy / each["Key"].rstrip("/")
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(each["Key"])) if each["Size"] else path.with_suffix(".empty").touch()
    assert leaks(copy, traces_of_source(ids)) == []
    assert {*Dataset.open(there).places()} == {ids["both"][0], ids["bob"][0]}
    assert list(verify(Dataset.open(there))) == []
