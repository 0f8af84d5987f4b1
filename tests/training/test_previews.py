"""Sample clips of a small model on a small dataset: what is written, and what a bad clip costs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from data_pipeline.dataset import Dataset
from data_pipeline.media import read_frames
from tests.training.datasets import clip_ids, frame_number, make_dataset
from tests.training.engine_run import run_workers
from tests.training.preview_run import NEW_FRAMES, SIZES, encoders, preview_config
from tests.training.small_networks import filled_model
from training.clip_pixels import Framing
from training.example import read_example
from training.previews import ALL, Previews, sample_clips

CLIPS = clip_ids(3)
SHOWN = sorted(CLIPS[1:])
SPLITS = ["train", "val", "val"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip to train on and two held out, each of four windows."""
    root = tmp_path_factory.mktemp("previews") / "dataset"
    make_dataset(root, 3, 30, size_px=64, splits=SPLITS, shard_bytes=1)
    return root


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process; no engine needs more of it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def without_clip(dataset: Path, clip_id: str, root: Path) -> Path:
    """The dataset, with the shard of a clip gone."""
    shutil.copytree(dataset, root)
    (root / "shards" / Dataset.open(str(root)).places()[clip_id].shard).unlink()
    return root


@pytest.mark.usefixtures("group")
def test_held_out_clips_are_made_with_sound_and_shown_above_the_true_ones(dataset, tmp_path) -> None:
    config = preview_config(dataset, tmp_path / "run", "validation.clip_windows=2")
    found = sample_clips(filled_model(SIZES), encoders(), config, 120)
    folder = tmp_path / "run" / "samples" / "step-00000120"
    assert found.failed == {}
    assert sorted(found.files) == sorted(
        folder / f"{clip}{kind}" for clip in SHOWN for kind in (".jpg", ".mp4")
    )
    with av.open(str(found.files[0])) as file:
        assert {stream.type for stream in file.streams} == {"video", "audio"}
    assert len([*read_frames(found.files[0])]) == 2 * NEW_FRAMES
    assert cv2.imread(str(found.files[1])).shape == (2 * 64, 8 * 64, 3)


@pytest.mark.usefixtures("group")
def test_making_clips_changes_nothing_in_the_run(dataset, tmp_path) -> None:
    model = filled_model(SIZES)
    before, stream = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    sample_clips(model, encoders(), preview_config(dataset, tmp_path / "run"), 1)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert torch.equal(stream, torch.random.get_rng_state())


@pytest.mark.usefixtures("group")
def test_a_clip_that_cannot_be_read_is_told_and_the_others_are_made(dataset, tmp_path) -> None:
    broken = without_clip(dataset, SHOWN[0], tmp_path / "dataset")
    found = sample_clips(filled_model(SIZES), encoders(), preview_config(broken, tmp_path / "run"), 1)
    assert [file.stem for file in found.files] == 2 * [SHOWN[1]]
    assert [*found.failed] == [SHOWN[0]]
    assert "shard" in found.failed[SHOWN[0]].lower()


@pytest.mark.usefixtures("group")
def test_a_model_that_gives_no_numbers_costs_the_clips_and_not_the_run(dataset, tmp_path) -> None:
    model = filled_model(SIZES)
    torch.nn.init.constant_(model.denoiser.head.linear.weight, float("nan"))
    found = sample_clips(model, encoders(), preview_config(dataset, tmp_path / "run"), 1)
    assert found.files == []
    assert sorted(found.failed) == SHOWN
    assert all("NaN or infinite" in words for words in found.failed.values())


@pytest.mark.usefixtures("group")
def test_a_dataset_that_is_gone_costs_the_clips_and_not_the_run(tmp_path) -> None:
    config = preview_config(tmp_path / "nowhere", tmp_path / "run")
    assert [*sample_clips(filled_model(SIZES), encoders(), config, 1).failed] == [ALL]


def test_a_clip_is_made_again_from_its_own_face_speech_and_first_frame(dataset) -> None:
    found = read_example(Dataset.open(str(dataset)), CLIPS[1], Framing(64, 64), encoders(), 12)
    assert (found.true.shape, len(found.sound), found.speech.shape) == (
        (12, 64, 64, 3),
        30 * 640,
        (30, 4, 80),
    )
    assert np.array_equal(found.portrait.image, found.true[0])
    assert found.portrait.box == pytest.approx((0.25, 0.2, 0.75, 0.85))
    identity = np.random.default_rng(1001).normal(size=128)
    assert found.portrait.identity == pytest.approx(identity / np.linalg.norm(identity), abs=1e-6)
    assert frame_number(1, 0) != frame_number(0, 0)


def previews(world: int, config, without: dict[int, Path] | None = None) -> list[Previews]:
    given = {rank: str(root) for rank, root in (without or {}).items()}
    work = "tests.training.preview_run.previews_of_workers"
    return run_workers(world, work, Path(config.output) / "workers", config, given)


@pytest.mark.slow
@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    "sharing",
    [[], ["deepspeed.zero_stage=3"], ["sequence_parallel=2"]],
    ids=["shared out", "zero-3", "sequence"],
)
def test_two_workers_make_the_clips_of_one(dataset, tmp_path, sharing) -> None:
    config = preview_config(dataset, tmp_path / "two", "num_workers=2", *sharing)
    first, second = previews(2, config)
    one = sample_clips(filled_model(SIZES), encoders(), preview_config(dataset, tmp_path / "one"), 1)
    assert first == second
    assert first.failed == {}
    made, wanted = sorted(first.files), sorted(one.files)
    assert [file.name for file in made] == [file.name for file in wanted]
    for ours, theirs in zip(made[1::2], wanted[1::2], strict=True):
        # DeepSpeed lays weights out otherwise, ranks add in another order: last bits, and so levels, differ.
        shown, expected = (np.stack([frame.rgb() for frame in read_frames(file)]) for file in (ours, theirs))
        assert np.abs(shown.astype(int) - expected).max() <= 2


@pytest.mark.slow
def test_what_one_of_the_workers_of_a_shared_model_cannot_read_all_leave_out(dataset, tmp_path) -> None:
    broken = without_clip(dataset, SHOWN[0], tmp_path / "dataset")
    config = preview_config(dataset, tmp_path / "run", "num_workers=2", "deepspeed.zero_stage=3")
    first, second = previews(2, config, {1: broken})
    assert first == second
    assert [file.stem for file in first.files] == 2 * [SHOWN[1]]
    assert [*first.failed] == [SHOWN[0]]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_steps_after_sample_clips_are_those_without(dataset, tmp_path, stage) -> None:
    found = []
    for with_previews in (True, False):
        config = preview_config(
            dataset,
            tmp_path / f"{with_previews}",
            "num_workers=2",
            f"deepspeed.zero_stage={stage}",
            "batch=2",
        )
        work = "tests.training.preview_run.losses_around_previews"
        found.append(run_workers(2, work, Path(config.output), config, with_previews))
    assert found[0] == found[1]
    assert len(set(found[0][0])) == 4
