"""Each kind of features is what the encoders make of the clip's own media."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.dataset import Dataset
from tests.data_pipeline.makers import number_in, numbered, write_video
from tests.data_pipeline.packed import N_FRAMES
from tests.training.feature_datasets import CHANNELS, codec, config, dataset_of
from training.clip_pixels import ClipFrames, Framing, sound_of
from training.config import ConditionsConfig, TrainConfig
from training.encoders import LogMel, load_encoders
from training.features import ClipMedia, Conditions, Speech, Text, load_maker, makers
from training.model.patch_pca import PatchPcaAutoencoder
from training.model.text import NoText


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return dataset_of(tmp_path_factory.mktemp("features") / "dataset", people=1)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory) -> TrainConfig:
    return config(dataset.root, codec(tmp_path_factory.mktemp("codec") / "codec"))


@pytest.fixture(scope="module")
def clip(dataset) -> ClipMedia:
    (clip_id,) = dataset.places()
    members = dataset.sample_of(clip_id)
    return ClipMedia(clip_id, N_FRAMES, {"." + name.partition(".")[2]: members[name] for name in members})


def autoencoder_of(run: TrainConfig) -> PatchPcaAutoencoder:
    return PatchPcaAutoencoder.load(Path(run.encoders.autoencoder))


def test_a_picture_is_its_middle_in_the_model_s_proportions_and_a_box_goes_with_it() -> None:
    wide = Framing(32, 48)
    assert wide.crop_of(96, 96) == (16, 0, 64, 96)
    assert wide.crop_of(90, 160) == (0, 12, 90, 135)
    assert Framing(48, 32).crop_of(96, 96) == (0, 16, 96, 64)
    assert wide.box((0.25, 0.25, 0.75, 0.75), 96, 96) == pytest.approx((0.25, 0.125, 0.75, 0.875))
    assert wide.picture(numbered(5, 96, 96)).shape == (32, 48, 3)


def test_frames_are_those_of_their_numbers(tmp_path) -> None:
    path = write_video(tmp_path / "clip.mp4", n_frames=40, size=(96, 96))
    frames = ClipFrames(path.read_bytes(), Framing(48, 48))
    assert (len(frames), frames.size) == (40, (96, 96))
    pixels = frames.at([31, 0, 7])
    assert (pixels.shape, pixels.dtype) == ((3, 3, 48, 48), torch.float32)
    assert float(pixels.min()) >= -1
    assert float(pixels.max()) <= 1
    pictures = ((pixels.permute(1, 2, 3, 0) + 1) * 127.5).numpy()
    assert [number_in(picture) for picture in pictures] == [31, 0, 7]
    with pytest.raises(IndexError, match="frames 39 to 40 of a video of 40"):
        frames.at([39, 40])


def test_sound_lasts_as_long_as_the_video(clip) -> None:
    assert sound_of(clip.members[".flac"]).shape == (N_FRAMES * 640,)


def test_speech_is_what_the_encoder_makes_of_the_whole_sound(clip) -> None:
    maker = Speech(LogMel())
    (heard,) = maker.arrays(clip)
    np.testing.assert_array_equal(heard, LogMel().encode(sound_of(clip.members[".flac"])))
    assert maker.features.digest == LogMel().digest
    longer = ClipMedia(clip.clip_id, N_FRAMES + 1, clip.members)
    with pytest.raises(ValueError, match="its sound lasts 25 frames, its video 26"):
        next(maker.arrays(longer))


def test_text_is_the_caption_s_embedding(clip) -> None:
    (words,) = Text(NoText(3, 5)).arrays(clip)
    assert (words.shape, words.dtype) == ((3, 5), np.float32)


def test_latents_are_those_of_each_window(run, clip) -> None:
    maker = load_maker("latents", run)
    assert maker.features.keys(clip.clip_id, N_FRAMES) == [f"{clip.clip_id}/{x:06d}" for x in (0, 8, 16)]
    made = list(maker.arrays(clip))
    frames = ClipFrames(clip.members[".mp4"], Framing(32, 32))
    for start, latents in zip((0, 8, 16), made, strict=True):
        wanted = autoencoder_of(run).encode(frames.at(range(start, start + 9))[None])[0]
        assert wanted.shape == (3, CHANNELS, 4, 4)
        np.testing.assert_array_equal(latents, wanted.numpy())


def test_conditions_are_variants_of_reference_and_noise_that_stay_what_they_are(run, clip) -> None:
    maker = Conditions(autoencoder_of(run), Framing(32, 32), 9, 8, ConditionsConfig(stored_variants=3))
    made = np.stack(list(maker.arrays(clip)))
    assert made.shape == (3, 3, 2, 1, CHANNELS, 4, 4)
    np.testing.assert_array_equal(made, np.stack(list(maker.arrays(clip))))
    images = made[:, :, 0].reshape(9, -1)
    assert len(np.unique(images, axis=0)) == 9
    fewer = Conditions(autoencoder_of(run), Framing(32, 32), 9, 8, ConditionsConfig(stored_variants=2))
    np.testing.assert_array_equal(np.stack(list(fewer.arrays(clip))), made[:, :2])


def test_the_reference_is_black_around_the_face(run, clip) -> None:
    still = ConditionsConfig(motion_noise_log_mean=-30, masked_pixels=0)
    autoencoder = autoencoder_of(run)
    maker = Conditions(autoencoder, Framing(32, 32), 9, 8, still)
    image, face = torch.from_numpy(next(maker.arrays(clip))[0])
    shown = autoencoder.encode(ClipFrames(clip.members[".mp4"], Framing(32, 32)).at([0])[None])[0]
    black = autoencoder.encode(torch.full((1, 3, 1, 32, 32), -1.0))[0]
    assert torch.allclose(face[..., 0], black[..., 0], atol=0.5)  # the box begins at 8 px: lapped by 4
    assert not torch.allclose(face[..., 1:3, 1:3], black[..., 1:3, 1:3], atol=0.5)
    assert image.shape == shown.shape


def test_a_clip_without_a_face_s_box_has_no_conditions(run, clip) -> None:
    data = io.BytesIO()
    np.savez(data, boxes=np.full((N_FRAMES, 4), np.nan, np.float32))
    unseen = ClipMedia(clip.clip_id, N_FRAMES, {**clip.members, ".npz": data.getvalue()})
    maker = Conditions(autoencoder_of(run), Framing(32, 32), 9, 8, ConditionsConfig())
    with pytest.raises(ValueError, match="no frame of it has a face's box"):
        next(maker.arrays(unseen))


def test_a_digest_follows_from_all_that_changes_the_numbers(run) -> None:
    def digest(kind: str, *changes: str) -> str:
        changed = config("elsewhere", run.encoders.autoencoder, *changes)
        return load_maker(kind, changed).features.digest

    latents = digest("latents")
    assert latents == digest("latents", "seed=5", "batch=2", "conditions.masked_pixels=0.5")
    stride, width = digest("latents", "samples.window_stride=9"), digest("latents", "model.latent_width=6")
    assert len({latents, stride, width, digest("conditions")}) == 4
    noise = [(), ("conditions.masked_pixels=0.5",), ("conditions.stored_variants=2",)]
    assert len({digest("conditions", *changes) for changes in noise}) == 3


def test_a_run_s_encoders_make_what_precompute_made(run) -> None:
    found = makers(run, load_encoders(run.encoders, run.sizes))
    assert sorted(found) == ["conditions", "latents", "speech", "text"]
    for kind in ("speech", "latents", "conditions"):
        assert found[kind].features == load_maker(kind, run).features
