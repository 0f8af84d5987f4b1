"""Which windows are trained on, and which are held out, follows from the manifest and the configuration."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.dataset import Dataset
from tests.training.datasets import clip_ids, make_dataset
from tests.training.feature_datasets import config
from training.windows import SamplesError, evenly, preview_clips, select

NEVER_JUDGED = "validation.every_steps=null"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Clips of 9, 8, 30 and 17 frames, a shard each; windows have 9, one every 8 frames."""
    return make_dataset(
        tmp_path_factory.mktemp("windows") / "dataset", 4, [9, 8, 30, 17], size_px=32, shard_bytes=1
    )


def of_splits(root: Path, *splits: str) -> Dataset:
    return make_dataset(root, len(splits), 9, size_px=32, splits=splits)


def test_a_clip_has_windows_as_far_as_it_has_frames(dataset) -> None:
    (one,) = select(config(dataset.root, "", NEVER_JUDGED))
    found: dict[str, list[tuple[int, int]]] = {}
    for number in range(len(one.trained)):
        window = one.trained[number]
        found.setdefault(window.clip.clip_id, []).append((window.start, window.starts))
    nine, eight, thirty, seventeen = clip_ids(4)
    assert found == {
        nine: [(0, 1)],
        thirty: [(0, 8), (8, 8), (16, 6)],
        seventeen: [(0, 8), (8, 1)],
    }
    assert eight not in found
    assert sum(one.trained.shard_sizes) == len(one.trained) == 6


def test_windows_are_numbered_shard_after_shard(dataset) -> None:
    (one,) = select(config(dataset.root, "", NEVER_JUDGED))
    shards = [one.trained[number].clip.place.shard for number in range(len(one.trained))]
    assert shards == sorted(shards)
    assert one.trained.shard_sizes == tuple(shards.count(shard) for shard in sorted(set(shards)))


def test_the_validation_split_is_held_out(tmp_path) -> None:
    made = of_splits(tmp_path / "d", "train", "val", "train", "val", "test")
    (one,) = select(config(made.root, ""))
    ids = clip_ids(5)
    assert sorted(one.trained.clip_ids) == sorted([ids[0], ids[2]])
    assert sorted(one.held_out.clip_ids) == sorted([ids[1], ids[3]])


def test_without_one_the_last_tenth_of_the_training_split_is_held_out_and_not_trained_on(tmp_path) -> None:
    made = of_splits(tmp_path / "d", *["train"] * 21)
    (one,) = select(config(made.root, ""))
    ids = sorted(clip_ids(21))
    assert sorted(one.held_out.clip_ids) == ids[-2:]
    assert sorted(one.trained.clip_ids) == ids[:-2]


def test_no_more_is_held_out_than_is_judged_and_nothing_where_nothing_is_judged(tmp_path) -> None:
    made = of_splits(tmp_path / "d", *["train"] * 21)
    (one,) = select(config(made.root, "", "validation.windows=1"))
    assert one.held_out.clips == 1
    (one,) = select(config(made.root, "", NEVER_JUDGED))
    assert (one.trained.clips, one.held_out.clips) == (21, 0)


def test_clips_that_a_run_is_told_to_train_on_are_not_held_out(tmp_path) -> None:
    made = of_splits(tmp_path / "d", "train", "train", "train")
    last = sorted(clip_ids(3))[-1]
    (one,) = select(config(made.root, "", f"samples.clips=['{last}']"))
    assert one.trained.clip_ids == [last]
    assert one.held_out.clip_ids == [sorted(clip_ids(3))[-2]]


def test_a_single_clip_is_trained_on_and_shown(tmp_path) -> None:
    made = of_splits(tmp_path / "d", "train")
    run = config(made.root, "")
    (one,) = select(run)
    assert (one.trained.clips, one.held_out.clips) == (1, 0)
    assert [clip_id for _, clip_id in preview_clips(run, 2)] == clip_ids(1)


def test_held_out_clips_are_shown_the_same_every_time(tmp_path) -> None:
    made = of_splits(tmp_path / "d", "train", "val", "val", "val", "val")
    run = config(made.root, "")
    shown = preview_clips(run, 2)
    assert [clip_id for _, clip_id in shown] == [clip_id for _, clip_id in preview_clips(run, 2)]
    assert {clip_id for _, clip_id in shown} < set(clip_ids(5)[1:])
    assert shown[0][0].root == made.root


@given(st.integers(0, 200), st.integers(0, 20))
def test_evenly_takes_as_many_as_there_are_each_once(there, n) -> None:
    found = evenly(there, n)
    assert len(found) == min(there, n)
    assert found == sorted(set(found))
    assert all(0 <= at < there for at in found)


@pytest.mark.parametrize(
    ("splits", "given", "says"),
    [
        (["train"], "samples.split=test", "samples.split: .* has no clip in 'test'; it has train"),
        (["train"], "samples.clips=[abcd]", "samples.clips: .* has no clip abcd in 'train'"),
        (
            ["train"],
            "model.latent_frames=6",
            "longest clip in 'train' has 9 frames, a window of the model 21",
        ),
        ([], "seed=0", "keeps no clip; `hallo3 dataset show` says why"),
    ],
)
def test_a_dataset_without_samples_is_told_in_words(tmp_path, splits, given, says) -> None:
    made = of_splits(tmp_path / "d", *splits)
    with pytest.raises(SamplesError, match=says):
        select(config(made.root, "", given))


def test_a_dataset_that_is_not_there_is_told_in_words(tmp_path) -> None:
    with pytest.raises(SamplesError, match="is no dataset"):
        select(config(tmp_path, ""))
