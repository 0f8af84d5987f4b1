"""Features lie parallel to a dataset's shards; what is read is what was written, and damage is found."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from cluster.cli import main
from data_pipeline.dataset import Dataset
from data_pipeline.feature_shards import (
    Feature,
    FeatureMissing,
    FeatureSet,
    FeatureWriter,
    StoredFeatures,
    indexes_of,
    is_done,
    open_features,
    remove_unfinished,
    writing_features,
    wrong_features,
)
from data_pipeline.pack import pack
from tests.data_pipeline.packed import N_FRAMES, add_source, config_of, encoded, write_listing

SPEECH = FeatureSet("speech", "0123456789abcdef")
LATENTS = FeatureSet("latents", "fedcba9876543210", window_frames=9, window_stride=8)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Two clips in one shard, a third in another."""
    root = tmp_path_factory.mktemp("features") / "dataset"
    names = [f"{person}.mp4" for person in (1, 2, 3)]
    for person, name in enumerate(names, start=1):
        add_source(root, {person: encoded(root.parent / name, person)}, name, {"person": person})
    write_listing(root, *names)
    pack(config_of(root, "pack.shard_mb=0.1"))
    return root


@pytest.fixture
def dataset(packed, tmp_path) -> Dataset:
    return Dataset.open(shutil.copytree(packed, tmp_path / "dataset"))


def clips_of(dataset: Dataset, shard: str) -> list[str]:
    places = dataset.places()
    return sorted((x for x in places if places[x].shard == shard), key=lambda x: places[x].offset)


def array_of(key: str, scale: float = 1.0) -> np.ndarray:
    seed = int(key.replace("/", ""), 16)
    return scale * np.random.default_rng(seed).normal(size=(N_FRAMES, 4, 3)).astype(np.float32)


def write(dataset: Dataset, features: FeatureSet, *shards: str, broken: str = "", scale: float = 1.0) -> None:
    for shard in shards or dataset.version.shards:
        with writing_features(dataset.root, features, shard) as writer:
            for clip_id in clips_of(dataset, shard):
                for key in features.keys(clip_id, N_FRAMES):
                    if key == broken:
                        writer.add(Feature(key, None, "MediaError: it is broken"))
                    else:
                        writer.add(Feature(key, array_of(key, scale)))


def stored(dataset: Dataset, features: FeatureSet) -> StoredFeatures:
    found = open_features(dataset, features.kind, features.digest)
    assert found is not None
    return found


def test_what_is_read_is_what_was_written_to_half_precision(dataset) -> None:
    write(dataset, SPEECH)
    found = stored(dataset, SPEECH)
    for clip_id in dataset.places():
        read = found.read(clip_id)
        assert (read.dtype, read.shape) == (np.float16, (N_FRAMES, 4, 3))
        np.testing.assert_allclose(read, array_of(clip_id), rtol=2**-11, atol=2**-25)


def test_numbers_beyond_half_precision_are_kept_whole(dataset) -> None:
    write(dataset, SPEECH, scale=1e6)
    clip_id = next(iter(dataset.places()))
    np.testing.assert_array_equal(stored(dataset, SPEECH).read(clip_id), array_of(clip_id, 1e6))


def test_some_frames_are_read_without_the_others(dataset) -> None:
    write(dataset, SPEECH)
    found = stored(dataset, SPEECH)
    shard = next(iter(dataset.version.shards))
    first = clips_of(dataset, shard)[0]
    np.testing.assert_allclose(found.read(first, 5, 7), array_of(first)[5:12], rtol=2**-11, atol=2**-25)
    tar = SPEECH.folder(dataset.root) / shard
    tar.write_bytes(tar.read_bytes()[: 512 + 128 + 12 * 4 * 3 * 2])  # headers, and 12 of the 25 frames
    np.testing.assert_allclose(found.read(first, 5, 7), array_of(first)[5:12], rtol=2**-11, atol=2**-25)
    with pytest.raises(FeatureMissing, match="is cut off"):
        found.read(first)
    with pytest.raises(ValueError, match="rows 20 to 30 were asked for, it has 25"):
        found.read(first, 20, 10)


def test_windows_are_keys_of_their_own_in_the_shard_s_order(dataset) -> None:
    assert LATENTS.keys("ab", 25) == ["ab/000000", "ab/000008", "ab/000016"]
    assert LATENTS.keys("ab", 8) == []
    write(dataset, LATENTS)
    for shard in dataset.version.shards:
        samples = wds.WebDataset(str(LATENTS.folder(dataset.root) / shard), shardshuffle=False).decode()
        wanted = [key for clip_id in clips_of(dataset, shard) for key in LATENTS.keys(clip_id, N_FRAMES)]
        found = [(sample["__key__"], sample["npy"].shape) for sample in samples]
        assert found == [(key, (N_FRAMES, 4, 3)) for key in wanted]


def test_a_missing_array_says_why(dataset) -> None:
    shard = next(iter(dataset.version.shards))
    broken, *_ = clips_of(dataset, shard)
    write(dataset, SPEECH, broken=broken)
    found = stored(dataset, SPEECH)
    assert broken not in found
    with pytest.raises(FeatureMissing, match=f"{broken}: could not be computed: MediaError: it is broken"):
        found.read(broken)
    with pytest.raises(FeatureMissing, match="has nothing of it"):
        found.read("0000000000000000")
    assert problems_of(dataset) == []


def test_features_of_other_models_are_not_found(dataset) -> None:
    write(dataset, SPEECH)
    assert open_features(dataset, "speech", "ffff") is None
    assert open_features(dataset, "text", SPEECH.digest) is None
    assert open_features(dataset, "speech", SPEECH.digest[:8] + "0" * 8) is None


def test_a_shard_without_an_index_is_not_done(dataset) -> None:
    first, second = dataset.version.shards
    write(dataset, SPEECH)
    assert is_done(dataset.root, SPEECH, first)
    assert not is_done(dataset.root, replace(SPEECH, variants=2), first)
    (SPEECH.folder(dataset.root) / first).with_suffix(".parquet").unlink()
    assert not is_done(dataset.root, SPEECH, first)
    found = stored(dataset, SPEECH)
    assert found.absent == [first.removesuffix(".tar")]
    assert all(clip_id not in found for clip_id in clips_of(dataset, first))
    assert all(clip_id in found for clip_id in clips_of(dataset, second))


def test_a_damaged_index_is_as_none(dataset) -> None:
    first, second = dataset.version.shards
    write(dataset, SPEECH)
    (SPEECH.folder(dataset.root) / first).with_suffix(".parquet").write_bytes(b"PAR1 no table PAR1")
    assert not is_done(dataset.root, SPEECH, first)
    found = stored(dataset, SPEECH)
    assert [clip_id in found for clip_id in clips_of(dataset, first)] == [False, False]
    assert all(clip_id in found for clip_id in clips_of(dataset, second))


def fail_after(writer: FeatureWriter) -> None:
    writer.add(Feature("ab", np.zeros(3)))
    raise RuntimeError


def test_a_writing_that_fails_leaves_nothing_and_a_killed_one_s_leftovers_go(dataset) -> None:
    folder = SPEECH.folder(dataset.root)
    writing = writing_features(dataset.root, SPEECH, "train-000000-aa.tar")
    with pytest.raises(RuntimeError), writing as writer:
        fail_after(writer)
    assert [*folder.iterdir()] == []
    (folder / ".train-000000-aa.tar.01234567").write_bytes(b"half")
    remove_unfinished(dataset.root, SPEECH)
    assert [*folder.iterdir()] == []


def flip_a_byte(folder: Path, shard: str) -> None:
    tar = bytearray((folder / shard).read_bytes())
    tar[700] ^= 1
    (folder / shard).write_bytes(tar)


def remove_the_tar(folder: Path, shard: str) -> None:
    (folder / shard).unlink()


def garble_the_index(folder: Path, shard: str) -> None:
    (folder / shard).with_suffix(".parquet").write_bytes(b"PAR1 no table PAR1")


def call_it_another_digest_s(folder: Path, shard: str) -> None:
    for path in folder.glob("*"):
        (folder.parent / "speech-99999999").mkdir(exist_ok=True)
        path.rename(folder.parent / "speech-99999999" / path.name)


def problems_of(dataset: Dataset) -> list[str]:
    """What verify does for each index, in this process."""
    return [
        problem
        for index, shard in indexes_of(dataset)
        for problem in wrong_features(
            dataset.root, index, [(clip_id, N_FRAMES) for clip_id in clips_of(dataset, shard)]
        )
    ]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_a_byte, "its sha256 is .*, its index says"),
        (remove_the_tar, "there is no train-000000-.*.tar beside it"),
        (garble_the_index, "cannot be read as an index of features"),
        (call_it_another_digest_s, "of the digest 0123456789abcdef, which is not its folder's"),
    ],
)
def test_damage_is_found(dataset, damage, says) -> None:
    write(dataset, SPEECH)
    assert problems_of(dataset) == []
    damage(SPEECH.folder(dataset.root), next(iter(dataset.version.shards)))
    assert re.search(says, problems_of(dataset)[0])


def test_clips_that_are_left_out_or_in_another_order_are_found(dataset) -> None:
    shard = next(iter(dataset.version.shards))
    index = f"features/{SPEECH.folder_name}/{shard.removesuffix('.tar')}.parquet"
    for clip_ids in (clips_of(dataset, shard)[::-1], clips_of(dataset, shard)[:1]):
        with writing_features(dataset.root, SPEECH, shard) as writer:
            for clip_id in clip_ids:
                writer.add(Feature(clip_id, array_of(clip_id)))
        assert problems_of(dataset) == [
            f"{index}: its keys are not those of the shard's clips, in their order"
        ]


def test_numbers_that_are_none_are_found(dataset) -> None:
    shard = next(iter(dataset.version.shards))
    with writing_features(dataset.root, SPEECH, shard) as writer:
        for clip_id in clips_of(dataset, shard):
            writer.add(Feature(clip_id, np.full((N_FRAMES, 1), np.nan, np.float32)))
    assert all("holds more than finite numbers" in problem for problem in problems_of(dataset))
    assert len(problems_of(dataset)) == 2


def test_the_command_proves_features_with_the_rest(dataset, capsys) -> None:
    write(dataset, SPEECH)
    assert main(["dataset", "verify", str(dataset.root)]) == 0
    assert "2 shards and 2 of features: is whole" in capsys.readouterr().out
    remove_the_tar(SPEECH.folder(dataset.root), next(iter(dataset.version.shards)))
    assert main(["dataset", "verify", str(dataset.root)]) == 1
    assert "has 1 problems" in capsys.readouterr().out
