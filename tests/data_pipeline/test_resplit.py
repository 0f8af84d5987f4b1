"""Identities and splits in packed datasets: kept from version to version, and dealt anew when told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from data_pipeline.dataset import Dataset
from data_pipeline.identities import IDENTITIES
from data_pipeline.pack import PackError, pack
from data_pipeline.resplit import preview, with_shares
from data_pipeline.verify import verify
from tests.data_pipeline.packed import add_source, config_of, encoded, write_listing

PEOPLE = range(1, 7)
SHARES = ("splits.val=0.4", "splits.test=0.3")


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("media")
    return {person: encoded(folder / str(person), person) for person in PEOPLE}


@pytest.fixture
def root(tmp_path, media) -> Path:
    """Six people, each with a source of one clip."""
    root = tmp_path / "dataset"
    for person in PEOPLE:
        add_source(root, media, f"{person}.mp4", {"person": person})
    write_listing(root, *(f"{person}.mp4" for person in PEOPLE))
    return root


def splits(root: Path) -> dict[str, str]:
    """By source; of kept clips."""
    rows = Dataset.open(root).manifest(["source_uris", "split", "status"]).to_pylist()
    return {Path(row["source_uris"][0]).stem: row["split"] for row in rows if row["status"] == "kept"}


def test_a_version_names_its_identities_and_its_shards_are_those_of_its_splits(root):
    pack(config_of(root, *SHARES))
    dataset = Dataset.open(root)
    identities = dataset.identities()
    assert identities.schema.equals(IDENTITIES)
    assert identities.num_rows == len(PEOPLE)
    assert list(verify(dataset)) == []
    assert {name.split("-")[0] for name in dataset.version.shards} == set(splits(root).values())
    assert len(set(splits(root).values())) > 1


def test_an_identities_file_that_is_not_as_written_is_found(root):
    pack(config_of(root))
    (root / "identities" / "1.parquet").write_bytes(b"other")
    assert [problem.split(":")[0] for problem in verify(Dataset.open(root))] == ["identities/1.parquet"]


def test_packing_again_changes_nothing_and_leaves_no_file(root):
    pack(config_of(root, *SHARES))
    assert not pack(config_of(root, *SHARES)).changed
    assert [path.name for path in (root / "identities").iterdir()] == ["1.parquet"]


def test_new_data_of_a_known_person_goes_where_the_person_is(root, media):
    pack(config_of(root, *SHARES))
    before = splits(root)
    for person in PEOPLE:
        add_source(root, media, f"again {person}.mp4", {"person": person})
    write_listing(root, *(f"{name}{person}.mp4" for person in PEOPLE for name in ("", "again ")))
    pack(config_of(root, *SHARES))
    after = splits(root)
    people = {name: name.removeprefix("again ") for name in after}
    assert {people[name]: split for name, split in after.items()} == before


def test_a_preview_of_other_shares_says_what_moves_and_writes_nothing(root, capsys):
    pack(config_of(root))
    assert main(["dataset", "split", str(root), *SHARES]) == 0
    said = capsys.readouterr().out
    assert "now   train       6 identities, 6 clips" in said
    assert "moved train -> val: " in said
    assert "--apply makes the new version" in said
    assert Dataset.open(root).versions() == [1]


def test_applied_shares_hold_for_whatever_comes_later(root, capsys):
    pack(config_of(root))
    dataset = Dataset.open(root)
    foretold = preview(dataset, with_shares(dataset, list(SHARES)))
    assert main(["dataset", "split", str(root), *SHARES, "--apply"]) == 0
    assert capsys.readouterr().out.endswith("version 2\n")
    made = list(splits(root).values())
    assert {split: made.count(split) for split in made} == {
        split: share.clips for split, share in foretold.after.items()
    }
    dataset = Dataset.open(root)
    assert not pack(with_shares(dataset, [])).changed


def test_other_settings_than_splits_are_refused(root, capsys):
    pack(config_of(root))
    assert main(["dataset", "split", str(root), "filters.min_snr_db=4"]) == 2
    assert "splits.KEY=VALUE" in capsys.readouterr().err


def test_the_people_of_another_dataset_train_nothing(root, media, tmp_path):
    bench = tmp_path / "bench"
    add_source(bench, media, "test film.mp4", {"person": 2})
    write_listing(bench, "test film.mp4")
    pack(config_of(bench))
    pack(config_of(root, f"splits.exclude=[{bench}]"))
    assert splits(root) == {str(person): "benchmark" if person == 2 else "train" for person in PEOPLE}
    assert list(verify(Dataset.open(root))) == []


@pytest.mark.parametrize(
    ("made", "problem"),
    [("nothing", "is no folder"), ("empty", "neither a dataset nor a folder of pictures")],
)
def test_people_to_exclude_who_are_not_there_are_an_error(root, tmp_path, made, problem):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackError, match=rf"splits\.exclude: .*{made}.*{problem}"):
        pack(config_of(root, f"splits.exclude=[{tmp_path / made}]"))


def test_a_picture_on_which_nobody_can_be_told_is_an_error_that_names_it(root, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "wall.png")
    (folder / "torn.jpg").write_bytes(b"no picture")
    with pytest.raises(PackError, match=r"of 2 pictures nobody can be told: torn\.jpg: .*wall\.png: no face"):
        pack(config_of(root, f"splits.exclude=[{folder}]"))
