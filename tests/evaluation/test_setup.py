"""Videos of other sizes and rates, and of models that are made to fit: what differs, and what does not."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.media import probe
from evaluation.animator import AnimateError, Animator, Take
from evaluation.setup import Setup
from tests.evaluation.checkpoints import write_export
from tests.evaluation.test_animator import QUICK, pictures, stopping_after, tone
from tests.evaluation.test_picture import astronaut
from tests.training.model.test_autoencoder import tiny_vae
from training.encoders import EncodersError, LogMel


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    return write_export(tmp_path_factory.mktemp("run") / "export")


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("CogVideoX")
    tiny_vae().save_pretrained(folder / "vae")
    return f"autoencoder={folder}"


@pytest.fixture
def take(tmp_path) -> Take:
    astronaut().save(tmp_path / "face.png")
    return Take(tmp_path / "face.png", tone(tmp_path / "voice.wav", 0.4), tmp_path / "talk.mp4")


def made(export: Path, take: Take, setup: Setup, *encoders: str) -> bytes:
    Animator.load(export, QUICK, encoders, setup=setup).animate(take)
    return take.output.read_bytes()


def told(take: Take) -> dict:
    with av.open(str(take.output)) as file:
        return json.loads(file.metadata["comment"])


def test_frames_of_another_size_are_told_in_the_video(export, take) -> None:
    made(export, take, Setup(size=(96, 80)))
    assert pictures(take.output)[0].shape == (80, 80, 3)  # the picture is square
    assert (told(take)["size"], told(take)["fps"], told(take)["tile"]) == ([96, 80], 25, None)


def test_the_size_of_training_is_the_default(export, take) -> None:
    assert made(export, take, Setup(size=(64, 64))) == made(export, take, Setup())


def test_a_size_that_cannot_be_is_refused(export) -> None:
    with pytest.raises(AnimateError, match=r"frames of 72x64: .* multiples of 16 px; the nearest is 64x64"):
        Animator.load(export, QUICK, setup=Setup(size=(72, 64)))


@pytest.mark.parametrize(("fps", "frames"), [pytest.param(10, 4, marks=pytest.mark.slow), (30, 12)])
def test_a_video_of_another_rate_lasts_as_long_as_its_sound(export, take, fps, frames) -> None:
    made(export, take, Setup(fps=fps))
    about = probe(take.output)
    assert len(pictures(take.output)) == frames
    assert about.video.fps == fps
    assert about.audio is not None
    assert told(take)["fps"] == fps


def test_at_any_rate_a_frame_hears_the_sound_at_its_time() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    usual, twice = (LogMel().encode(sound, fps) for fps in (25, 50))
    assert (len(usual), len(twice)) == (25, 50)
    assert np.array_equal(usual[:, 0], twice[::2, 0])  # where a frame begins
    assert np.array_equal(usual[:, 2], twice[1::2, 0])  # in its middle


def test_a_video_that_was_begun_at_another_rate_or_size_begins_anew(export, take) -> None:
    with pytest.raises(KeyboardInterrupt):
        Animator.load(export, QUICK).animate(take, stopping_after(7))
    for setup in (Setup(fps=30), Setup(size=(96, 96))):
        heard: list[int] = []
        Animator.load(export, QUICK, setup=setup).animate(
            take, lambda done, of, heard=heard: heard.append(done)
        )
        assert heard[0] == 0


def test_offloading_changes_nothing_and_goes_on_with_what_was_begun(export, take, vae) -> None:
    whole = Animator.load(export, QUICK, [vae])
    wanted = replace(take, output=take.output.with_name("whole.mp4"))
    whole.animate(wanted)
    with pytest.raises(KeyboardInterrupt):
        whole.animate(take, stopping_after(7))
    heard: list[int] = []
    offloaded = Animator.load(export, QUICK, [vae], setup=Setup(offload=True))
    offloaded.animate(take, lambda done, of: heard.append(done))
    assert heard[0] == 7
    assert take.output.read_bytes() == wanted.output.read_bytes()


@pytest.mark.slow
def test_tiles_change_a_video_and_are_told(export, take, vae) -> None:
    whole = made(export, take, Setup(), vae)
    assert made(export, take, Setup(tile=(32, 32)), vae) != whole
    assert told(take)["tile"] == [32, 32]
    with pytest.raises(
        EncodersError, match="is a fitted codec, which takes little memory and knows no tiles"
    ):
        Animator.load(export, QUICK, setup=Setup(tile=(32, 32)))
