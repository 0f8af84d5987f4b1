"""The loader: what is in a batch, that everybody sees the same ones, and what broken clips do to them."""

import io
import logging
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipeline.dataset import Dataset
from data_pipeline.feature_shards import Feature, writing_features
from data_pipeline.shards import read_members
from tests.training import feature_datasets
from tests.training.datasets import MOUTH, clip_ids, make_dataset
from tests.training.feature_datasets import codec
from training.batch import Batch
from training.clip_pixels import ClipFrames, Framing, sound_of
from training.conditions import face_on_black
from training.config import TrainConfig
from training.encoders import Encoders, LogMel, load_encoders
from training.features import ClipMedia, load_maker
from training.model.patch_pca import PatchPcaAutoencoder
from training.samples import Samples, SamplesError, held_out
from training.windows_of_speech import segment_of

N_FRAMES = 30
FRAMES = 9  # of a window
PARTS = "positions weight latents image_condition reference_latent text face audio mouth".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> str:
    return codec(tmp_path_factory.mktemp("codec") / "codec")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Four clips to train on and one to judge by, a shard each; nobody changes it."""
    root = tmp_path_factory.mktemp("samples") / "dataset"
    return make_dataset(root, 5, N_FRAMES, splits=["train"] * 4 + ["val"], shard_bytes=1)


@pytest.fixture
def own(tmp_path) -> Dataset:
    """The same, for one test to spoil."""
    return make_dataset(tmp_path / "dataset", 5, N_FRAMES, splits=["train"] * 4 + ["val"], shard_bytes=1)


def config(dataset: Path | str, autoencoder: str, *overrides: str) -> TrainConfig:
    """Batches of 4, one at a time."""
    return feature_datasets.config(dataset, autoencoder, "batch=4", "samples.ahead=1", *overrides)


def steps(run: TrainConfig, n: int, rank: int = 0, first: int = 0) -> list[list[Batch]]:
    with Samples(run, load_encoders(run.encoders, run.sizes), rank, first) as samples:
        return list(islice(samples, n))


def by_place(batches: list[Batch]) -> dict[int, dict[str, Any]]:
    """Each sample of a step by its place."""
    found = {}
    for batch in batches:
        for at, place in enumerate(batch.positions.tolist()):
            found[place] = {"key": batch.keys[at]} | {
                name: part[at] for name in PARTS if (part := getattr(batch, name)) is not None
            }
    return found


def same(one: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> bool:
    """Whether two steps hold the same samples, bit for bit."""
    return one.keys() == other.keys() and all(
        torch.equal(part, other[place][name]) if isinstance(part, Tensor) else part == other[place][name]
        for place, sample in one.items()
        for name, part in sample.items()
    )


def store(dataset: Dataset, run: TrainConfig, *kinds: str) -> None:
    """What precompute does, here and now."""
    rows = dataset.manifest(["clip_id", "n_frames"]).to_pylist()
    lengths = {row["clip_id"]: row["n_frames"] for row in rows}
    places = dataset.places()
    for kind in kinds:
        maker = load_maker(kind, run)
        for shard in dataset.version.shards:
            clips = sorted((place.offset, clip) for clip, place in places.items() if place.shard == shard)
            with writing_features(dataset.root, maker.features, shard) as writer:
                for _, clip_id in clips:
                    members = read_members(
                        dataset.root / "shards", places[clip_id], (".mp4", ".flac", ".npz", ".txt")
                    )
                    media = ClipMedia(clip_id, lengths[clip_id], members)
                    keys = maker.features.keys(clip_id, lengths[clip_id])
                    for key, array in zip(keys, maker.arrays(media), strict=True):
                        writer.add(Feature(key, array))


def shard_of(dataset: Dataset, clip_id: str) -> Path:
    return Path(str(dataset.root)) / "shards" / dataset.places()[clip_id].shard


# --- what is in a batch


def test_a_step_is_its_micro_batches_in_order_of_their_places(dataset, autoencoder) -> None:
    run = config(dataset.root, autoencoder, "batch=6", "micro_batch=2", "loss.mouth_weight=5")
    first, second = steps(run, 2)
    assert [batch.positions.tolist() for batch in first] == [[0, 1], [2, 3], [4, 5]]
    assert not same(by_place(first), by_place(second))
    shapes = {name: tuple(getattr(first[0], name).shape) for name in PARTS}
    assert shapes == {
        "positions": (2,),
        "weight": (2,),
        "latents": (2, 3, 8, 4, 4),
        "image_condition": (2, 1, 8, 4, 4),
        "reference_latent": (2, 1, 8, 4, 4),
        "text": (2, 1, 16),
        "face": (2, 128),
        "audio": (2, FRAMES, 5, 4, 80),
        "mouth": (2, 3, 1, 4, 4),
    }
    assert first[0].weight.tolist() == [1, 1]


def test_latents_are_those_of_the_frames_from_a_start_drawn_for_each_sample(dataset, autoencoder) -> None:
    run = config(dataset.root, autoencoder)
    codec = PatchPcaAutoencoder.load(Path(autoencoder))
    starts = set()
    for step in steps(run, 3):
        for sample in by_place(step).values():
            clip_id, _, start = sample["key"].partition("/")
            starts.add(int(start))
            mp4 = read_members(dataset.root / "shards", dataset.places()[clip_id], (".mp4",))[".mp4"]
            frames = ClipFrames(mp4, Framing(32, 32)).at(range(int(start), int(start) + FRAMES))
            torch.testing.assert_close(sample["latents"], codec.encode(frames[None])[0])
    assert len(starts) > 6
    assert max(starts) <= N_FRAMES - FRAMES


def test_each_frame_hears_the_clip_s_sound_around_it(dataset, autoencoder) -> None:
    run = config(dataset.root, autoencoder, "conditions.drop_audio=0")
    for sample in by_place(steps(run, 1)[0]).values():
        clip_id, _, start = sample["key"].partition("/")
        flac = read_members(dataset.root / "shards", dataset.places()[clip_id], (".flac",))[".flac"]
        features = torch.from_numpy(LogMel().encode(sound_of(flac)))
        heard = segment_of(features, range(len(features)), 5)
        assert torch.equal(sample["audio"], heard[int(start) : int(start) + FRAMES])


def test_at_a_clip_s_ends_its_first_and_last_frame_s_speech_is_repeated(tmp_path, autoencoder) -> None:
    short = make_dataset(tmp_path / "d", 1, FRAMES)
    run = config(short.root, autoencoder, "conditions.drop_audio=0", "batch=1")
    ((batch,),) = steps(run, 1)
    assert batch.audio is not None
    rows = batch.audio[0]
    assert torch.equal(rows[0, 0], rows[0, 2])
    assert torch.equal(rows[0, 1], rows[0, 2])
    assert torch.equal(rows[-1, 4], rows[-1, 2])
    assert not torch.equal(rows[4, 4], rows[4, 2])


def test_a_face_is_the_clip_s_and_its_reference_one_of_its_frames_black_around_it(
    dataset, autoencoder
) -> None:
    run = config(dataset.root, autoencoder, "conditions.drop_reference=0", "batch=2")
    codec = PatchPcaAutoencoder.load(Path(autoencoder))
    for sample in by_place(steps(run, 1)[0]).values():
        clip_id = sample["key"].partition("/")[0]
        members = read_members(dataset.root / "shards", dataset.places()[clip_id], (".mp4", ".npz"))
        with np.load(io.BytesIO(members[".npz"])) as arrays:
            assert torch.equal(sample["face"], torch.from_numpy(arrays["identity"]))
            boxes = arrays["boxes"].tolist()
        frames = ClipFrames(members[".mp4"], Framing(32, 32)).at(range(N_FRAMES))
        alone = [face_on_black(frames[:, k], boxes[k])[None, :, None] for k in range(N_FRAMES)]
        found = [torch.allclose(codec.encode(one)[0], sample["reference_latent"], atol=1e-4) for one in alone]
        assert any(found)
        assert not all(found)


def test_the_mouth_is_where_the_picture_s_middle_has_it(tmp_path, autoencoder) -> None:
    wide = make_dataset(tmp_path / "d", 1, FRAMES, size_px=(128, 64))
    run = config(wide.root, autoencoder, "batch=1", "loss.mouth_weight=5")
    ((batch,),) = steps(run, 1)
    x0, y0, x1, y1 = MOUTH
    x0, x1 = 0.5 + 2 * (x0 - 0.05 - 0.5), 0.5 + 2 * (x1 + 0.05 - 0.5)
    wanted = torch.zeros(4, 4)
    rows = slice(int(4 * (y0 - 0.05)), int(np.ceil(4 * (y1 + 0.05))))
    wanted[rows, int(4 * x0) : int(np.ceil(4 * x1))] = 1
    assert batch.mouth is not None
    assert torch.equal(batch.mouth[0, 1, 0], wanted)


def test_what_is_left_out_is_zeros_and_the_face_never_is(dataset, autoencoder) -> None:
    always = [f"conditions.drop_{name}=1" for name in ("text", "image", "reference", "audio")]
    ((batch, *_), *_) = steps(config(dataset.root, autoencoder, *always), 1)
    assert batch.audio is not None
    for part in (batch.text, batch.image_condition, batch.reference_latent, batch.audio):
        assert not part.any()
    assert batch.face.any()
    assert batch.latents.any()


def test_a_model_that_hears_nothing_gets_no_audio(dataset, autoencoder) -> None:
    run = config(dataset.root, autoencoder, "phase=identity")
    assert steps(run, 1)[0][0].audio is None


def test_on_its_way_to_a_device_a_batch_becomes_what_networks_and_loss_take(dataset, autoencoder) -> None:
    batch = steps(config(dataset.root, autoencoder), 1)[0][0]
    halves = Batch(**{**vars(batch), "latents": batch.latents.half(), "text": batch.text.half()})
    moved = halves.to("cpu", torch.bfloat16)
    assert moved.audio is not None
    assert (moved.latents.dtype, moved.weight.dtype) == (torch.float32, torch.float32)
    assert {part.dtype for part in (moved.text, moved.audio, moved.face)} == {torch.bfloat16}
    assert moved.positions.dtype == torch.int64


# --- everybody sees the same


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_one_worker_and_several_see_the_same_batches(dataset, autoencoder, workers) -> None:
    alone = steps(config(dataset.root, autoencoder, "micro_batch=4"), 2)
    shared = [
        steps(config(dataset.root, autoencoder, f"num_workers={workers}", "ray.cpus=0.1"), 2, rank)
        for rank in range(workers)
    ]
    for step in range(2):
        together = {place: sample for rank in shared for place, sample in by_place(rank[step]).items()}
        assert same(together, by_place(alone[step]))
    assert [batch.positions.tolist() for batch in shared[1][0]] == [[p] for p in range(1, 4, workers)]


def test_a_run_that_goes_on_sees_what_it_would_have_seen(dataset, autoencoder) -> None:
    run = config(
        dataset.root, autoencoder, "batch=2", "micro_batch=2", "samples.order=shards", "samples.buffer=3"
    )
    whole = steps(run, 9)
    resumed = steps(run, 3, first=6)
    assert all(same(by_place(a), by_place(b)) for a, b in zip(resumed, whole[6:], strict=True))


def test_threads_and_what_is_kept_change_nothing(dataset, autoencoder, monkeypatch) -> None:
    plain = steps(config(dataset.root, autoencoder, "samples.threads=1", "samples.ahead=1"), 1)
    monkeypatch.setattr("training.samples.KEPT_BYTES", 1)
    busy = steps(config(dataset.root, autoencoder, "samples.threads=5", "samples.ahead=3"), 1)
    assert all(same(by_place(a), by_place(b)) for a, b in zip(plain, busy, strict=True))


def test_another_seed_is_another_run(dataset, autoencoder) -> None:
    keys = [
        [sample["key"] for sample in by_place(step).values()]
        for seed in (0, 1)
        for step in steps(config(dataset.root, autoencoder, f"seed={seed}"), 1)
    ]
    assert keys[0] != keys[1]


def test_datasets_have_their_shares(dataset, tmp_path, autoencoder) -> None:
    other = make_dataset(tmp_path / "d", 2, 12, seed=50)
    run = config(
        dataset.root,
        autoencoder,
        "validation.every_steps=null",
        "batch=40",
        "micro_batch=40",
        "conditions.drop_image=1",
        "conditions.drop_reference=1",
    )
    shares = [{"uri": str(dataset.root), "weight": 1.0}, {"uri": str(other.root), "weight": 3.0}]
    run = TrainConfig.model_validate({**run.model_dump(), "dataset": shares})
    keys = [key for (batch,) in steps(run, 1) for key in batch.keys]
    of_other = sum(key.partition("/")[0] in clip_ids(2, seed=50) for key in keys)
    assert of_other / len(keys) == pytest.approx(0.75, abs=0.15)


def test_reading_ahead_ends_when_it_is_closed(dataset, autoencoder) -> None:
    before = threading.active_count()
    run = config(dataset.root, autoencoder)
    with Samples(run, load_encoders(run.encoders, run.sizes)) as samples:
        next(iter(samples))
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_no_more_is_made_ahead_than_the_run_wants(dataset, autoencoder) -> None:
    """Each sample is encoded once here, as its conditions are left out."""
    run = config(dataset.root, autoencoder, "conditions.drop_image=1", "conditions.drop_reference=1")
    run = run.model_copy(update={"samples": run.samples.model_copy(update={"ahead": 2})})
    encoders = load_encoders(run.encoders, run.sizes)
    counting = _Counting(encoders.autoencoder)
    with Samples(run, Encoders(counting, encoders.text, encoders.speech)) as samples:
        batches = iter(samples)
        for asked in (1, 2, 3):
            next(batches)
            most = (asked + 1) * run.batch
            end = time.monotonic() + 20
            while counting.calls < most and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(0.02)
            assert counting.calls == most


class _Counting:
    """An autoencoder that counts what it encodes."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.calls = 0

    def encode(self, *given: Any) -> Tensor:
        self.calls += 1
        return self._encoder.encode(*given)


def test_a_run_knows_what_it_was_trained_on(dataset, autoencoder) -> None:
    run = config(dataset.root, autoencoder, "validation.windows=2")
    with Samples(run, load_encoders(run.encoders, run.sizes)) as samples:
        about = samples.about()
    (one,) = about["datasets"]
    assert (one["uri"], one["version"], one["clips"], one["windows"]) == (str(dataset.root), 1, 4, 12)
    assert len(one["digest"]) == 16
    assert about["held_out"] == {"clips": 1, "windows": 2}


# --- stored features


@pytest.fixture(scope="module")
def stored(tmp_path_factory, autoencoder) -> Dataset:
    """Three clips with latents, speech and two variants of conditions."""
    made = make_dataset(tmp_path_factory.mktemp("stored") / "dataset", 3, N_FRAMES, shard_bytes=1)
    run = config(made.root, autoencoder, "conditions.stored_variants=2")
    store(made, run, "latents", "speech", "conditions")
    return made


def test_stored_features_are_what_is_read(stored, autoencoder) -> None:
    """The clips' own media are not looked at but for the face."""
    run = config(stored.root, autoencoder, "samples.features=stored", "conditions.stored_variants=2")
    encoders = load_encoders(run.encoders, run.sizes)
    deaf_and_blind = Encoders(_Named(encoders.autoencoder), encoders.text, _Named(encoders.speech))
    with Samples(run, deaf_and_blind) as samples:
        found = [by_place(step) for step in islice(samples, 3)]
        assert sorted(samples.about()["datasets"][0]["stored"]) == ["conditions", "latents", "speech"]
    made = {place: sample for step in found for place, sample in step.items()}
    for sample in made.values():
        assert sample["weight"] == 1
        assert sample["latents"].dtype == torch.float16
        assert int(sample["key"][-6:]) % 8 == 0


class _Named:
    """An encoder that may be told by its digest, and computes nothing."""

    def __init__(self, encoder: Any) -> None:
        self.digest = encoder.digest
        self.latent_channels = getattr(encoder, "latent_channels", None)


def test_stored_or_not_a_window_is_the_same_up_to_half_precision(stored, autoencoder) -> None:
    none = [f"conditions.drop_{name}=0" for name in ("text", "image", "reference", "audio")]
    run = config(stored.root, autoencoder, "samples.features=stored", "conditions.stored_variants=2", *none)
    codec = PatchPcaAutoencoder.load(Path(autoencoder))
    for sample in by_place(steps(run, 1)[0]).values():
        clip_id, _, start = sample["key"].partition("/")
        members = read_members(stored.root / "shards", stored.places()[clip_id], (".mp4", ".flac"))
        frames = ClipFrames(members[".mp4"], Framing(32, 32)).at(range(int(start), int(start) + FRAMES))
        wanted = codec.encode(frames[None])[0]
        torch.testing.assert_close(sample["latents"].float(), wanted, atol=2e-3, rtol=1e-3)
        features = torch.from_numpy(LogMel().encode(sound_of(members[".flac"])))
        heard = segment_of(features, range(len(features)), 5)
        here = heard[int(start) : int(start) + FRAMES]
        torch.testing.assert_close(sample["audio"].float(), here, atol=2e-3, rtol=1e-3)


def test_a_dataset_without_the_features_that_a_run_insists_on_is_told(dataset, autoencoder) -> None:
    run = config(dataset.root, autoencoder, "samples.features=stored")
    with pytest.raises(SamplesError, match=r"lacks speech, latents of these encoders; `hallo3 dataset pre"):
        steps(run, 1)


def test_features_of_a_model_of_other_sizes_are_not_taken_for_this_one_s(stored, autoencoder) -> None:
    wider = feature_datasets.MODEL | {"latent_width": 8, "out_channels": 8, "in_channels": 16}
    run = config(stored.root, autoencoder, "samples.features=stored", "conditions.stored_variants=2")
    run = TrainConfig.model_validate({**run.model_dump(), "model": wider})
    with pytest.raises(SamplesError, match=r"lacks latents, conditions of these encoders"):
        steps(run, 1)


def test_a_feature_that_is_not_of_the_model_s_size_is_a_broken_sample(tmp_path, autoencoder) -> None:
    made = make_dataset(tmp_path / "d", 2, N_FRAMES, shard_bytes=1)
    run = config(made.root, autoencoder, "validation.every_steps=null", "samples.features=stored")
    store(made, run, "latents", "speech")
    features, (first, *_) = load_maker("latents", run).features, made.version.shards
    (clip_id,) = (clip for clip, place in made.places().items() if place.shard == first)
    with writing_features(made.root, features, first) as writer:
        for key in features.keys(clip_id, N_FRAMES):
            writer.add(Feature(key, np.zeros((3, 8, 4, 2), np.float16)))
    with Samples(run, load_encoders(run.encoders, run.sizes)) as samples:
        for batch in (batch for step in islice(samples, 3) for batch in step):
            assert float(batch.weight) == (clip_id not in batch.keys[0])
        assert (
            "latents: of the size (3, 8, 4, 2), the model takes (3, 8, 4, 4)"
            in (samples.broken.reasons[clip_id])
        )


def test_features_that_vanish_are_made_again_or_missed_as_the_run_wants(tmp_path, autoencoder) -> None:
    made = make_dataset(tmp_path / "d", 3, N_FRAMES, shard_bytes=1)
    auto = config(made.root, autoencoder, "validation.every_steps=null")
    insisting = config(made.root, autoencoder, "validation.every_steps=null", "samples.features=stored")
    store(made, auto, "latents", "speech")
    for run, weights in ((auto, {1.0}), (insisting, {0.0, 1.0})):
        with Samples(run, load_encoders(run.encoders, run.sizes)) as samples:
            features = next(Path(str(made.root)).glob("features/latents-*/*.tar"))
            hidden = features.rename(features.with_suffix(".hidden"))
            found = {float(w) for step in islice(samples, 3) for batch in step for w in batch.weight}
            hidden.rename(features)
        assert found == weights


# --- broken clips


def damage(dataset: Dataset, clip_id: str, kind: str) -> None:
    """Spoil a clip, which has its shard to itself."""
    path = shard_of(dataset, clip_id)
    if kind == "gone":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if kind == "cut off":
        data = data[: len(data) // 3]
    else:  # its video is not one
        data[512:6000] = bytes(5488)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", [pytest.param("gone", marks=pytest.mark.slow), "cut off", "not a video"])
def test_a_broken_clip_leaves_its_places_empty_on_whichever_worker(own, autoencoder, kind, caplog) -> None:
    bad = clip_ids(4)[2]
    alone = config(own.root, autoencoder, "micro_batch=4")
    halves = config(own.root, autoencoder, "micro_batch=2", "num_workers=2", "ray.cpus=0.5")
    damage(own, bad, kind)
    with caplog.at_level(logging.WARNING, "training.samples"):
        whole = [by_place(step) for step in steps(alone, 3)]
    told = [record for record in caplog.records if record.name == "training.samples"]
    assert len(told) == 1
    assert bad in told[0].getMessage()
    empty = {
        (step, place) for step, found in enumerate(whole) for place in found if not found[place]["weight"]
    }
    of_the_clip = {
        (step, place) for step, found in enumerate(whole) for place in found if bad in found[place]["key"]
    }
    assert empty == of_the_clip != set()
    for step, place in empty:
        assert not any(whole[step][place][name].any() for name in ("latents", "audio", "face", "weight"))
    ranks = [[by_place(step) for step in steps(halves, 3, rank)] for rank in range(2)]
    for step in range(3):
        assert same(ranks[0][step] | ranks[1][step], whole[step])


def test_a_run_begins_though_its_first_clip_s_face_cannot_be_read(own, autoencoder) -> None:
    shard = next(name for name in own.version.shards if "train" in name)
    (bad,) = (clip for clip, place in own.places().items() if place.shard == shard)
    path = shard_of(own, bad)
    data = path.read_bytes()
    at = data.index(b"PK\x03\x04")  # an .npz is a zip
    path.write_bytes(data[:at] + bytes(3000) + data[at + 3000 :])
    for batch in (batch for step in steps(config(own.root, autoencoder), 2) for batch in step):
        assert float(batch.weight) == (bad not in batch.keys[0])


def test_a_shard_that_vanishes_during_the_run_is_missed_and_the_run_goes_on(own, autoencoder) -> None:
    run = config(own.root, autoencoder, "batch=1", "samples.threads=1", "samples.ahead=1")
    with Samples(run, load_encoders(run.encoders, run.sizes)) as samples:
        later = islice(samples, 30)
        seen = next(later)
        last = next(clip for clip in clip_ids(4) if clip not in seen[0].keys[0])
        shard_of(own, last).unlink()
        seen += [batch for (batch,) in later]
        assert list(samples.broken.reasons) == [last]
        assert "No such file" in samples.broken.reasons[last]
    for batch in seen:
        assert float(batch.weight) == (last not in batch.keys[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"identity_dim": 512}, r"an embedding of 512 numbers, the model has face.embedding_dim=128"),
        ({"frames": 8}, r"its longest clip in 'train' has 8 frames, a window of the model 9"),
        ({"clips": 0}, r"keeps no clip"),
    ],
)
def test_a_dataset_that_does_not_fit_is_told_before_the_first_step(
    tmp_path, autoencoder, changes, says
) -> None:
    made = make_dataset(tmp_path / "d", **{"clips": 2, "frames": 9, "size_px": 32} | changes)
    with pytest.raises(SamplesError, match=says):
        steps(config(made.root, autoencoder), 1)


# --- held out


def test_held_out_windows_are_the_same_for_every_run_and_nothing_of_them_is_left_out(
    dataset, autoencoder
) -> None:
    more = ["conditions.drop_audio=1", "conditions.drop_text=1", "conditions.drop_image=1", "micro_batch=3"]
    runs = [config(dataset.root, autoencoder, "batch=3", f"seed={seed}", *more) for seed in (0, 1)]
    (one,), (other,) = (held_out(run, load_encoders(run.encoders, run.sizes), 0) for run in runs)
    judged = clip_ids(5)[4]
    assert one.keys == tuple(f"{judged}/{start:06d}" for start in (0, 8, 16))
    assert same(by_place([one]), by_place([other]))
    assert one.audio is not None
    assert one.audio.any()
    assert one.image_condition.any()


def test_workers_share_what_is_held_out_and_have_as_many_batches(dataset, autoencoder) -> None:
    two = config(dataset.root, autoencoder, "batch=2", "num_workers=2", "ray.cpus=0.5")
    encoders = load_encoders(two.encoders, two.sizes)
    shares = [held_out(two, encoders, rank) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    one = config(dataset.root, autoencoder, "batch=3", "micro_batch=3")
    together = {**by_place(shares[0]), **by_place(shares[1])}
    filled = together.pop(3)
    assert filled["weight"] == 0
    assert same(together, by_place(held_out(one, encoders, 0)))


def test_where_nothing_is_held_out_there_is_nothing_to_judge_by(tmp_path, autoencoder) -> None:
    made = make_dataset(tmp_path / "d", 1, FRAMES)
    run = config(made.root, autoencoder)
    assert held_out(run, load_encoders(run.encoders, run.sizes), 0) == []


# --- object stores


@pytest.mark.slow
def test_a_dataset_in_a_store_gives_the_batches_that_it_gives_on_a_disk(
    stored, store_copy, autoencoder
) -> None:
    for features in ("on_the_fly", "stored"):
        given = [f"samples.features={features}", "conditions.stored_variants=2"]
        local = steps(config(stored.root, autoencoder, *given), 2)
        there = steps(config(store_copy, autoencoder, *given), 2)
        assert all(same(by_place(a), by_place(b)) for a, b in zip(local, there, strict=True))


@pytest.fixture
def store_copy(stored, store) -> Iterator[str]:
    """The dataset with its features, in a bucket."""
    root = Path(str(stored.root))
    for path in sorted(root.rglob("*")):
        if path.is_file():
            store.put(f"dataset/{path.relative_to(root).as_posix()}", path.read_bytes())
    return f"{store.root}/dataset"
