"""An image file and a sound file become a video, with a real, small model."""

import hashlib
import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_pipeline.config_file import ConfigError
from data_pipeline.media import MediaError, probe, read_audio
from evaluation.animator import AnimateError, Animator, Take, digest_of_files
from evaluation.parts import BeingMade, Parts
from evaluation.picture import PictureError
from tests.evaluation.checkpoints import write_export
from tests.evaluation.test_picture import astronaut
from tests.training.little_room import files_of_at_most
from training.clip_file import write_clip
from training.generate import Sampling

QUICK = Sampling(steps=2, guidance=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with its export."""
    folder = tmp_path_factory.mktemp("run")
    write_export(folder / "export")
    return folder


@pytest.fixture(scope="module")
def animator(run) -> Animator:
    return Animator.load(run, QUICK)


def tone(path: Path, seconds: float, rate: int = 44_100) -> Path:
    """A stereo file of a tone that swells."""
    times = np.arange(round(seconds * rate)) / rate
    swelling = (np.sin(2 * np.pi * 440 * times) * np.minimum(times, 1) * 20_000).astype(np.int16)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le" if path.suffix == ".wav" else "flac", rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.repeat(swelling, 2)[None], format="s16", layout="stereo")
        frame.sample_rate = rate
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.fixture
def take(tmp_path) -> Take:
    astronaut().save(tmp_path / "face.png")
    return Take(tmp_path / "face.png", tone(tmp_path / "voice.wav", 0.9), tmp_path / "out" / "talk.mp4")


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_a_video_is_as_long_as_its_sound_and_has_it(animator, take) -> None:
    heard = []
    made = animator.animate(take, lambda done, of: heard.append((done, of)))
    assert (made.frames, made.warnings) == (23, ())  # 0.9 s are 22.5 frames
    assert heard == [(0, 23), (7, 23), (14, 23), (21, 23), (23, 23)]
    assert len(pictures(take.output)) == 23
    about = probe(take.output)
    assert (about.video.codec, about.audio.codec) == ("h264", "aac")
    given, written = read_audio(take.audio), read_audio(take.output)
    assert abs(len(written) - len(given)) <= 16_000 / 25 + 1024
    shared = min(len(given), len(written))
    assert np.corrcoef(given[:shared], written[:shared])[0, 1] > 0.99


def test_the_voice_may_come_from_a_video(animator, take, tmp_path) -> None:
    sound = read_audio(take.audio).astype(np.float32) / 32768
    write_clip(tmp_path / "speaker.mp4", [np.zeros((22, 32, 32, 3), np.uint8)], 25, sound)
    made = animator.animate(replace(take, audio=tmp_path / "speaker.mp4"))
    assert abs(made.frames - 22) <= 1


def test_the_same_seed_gives_the_same_file_and_another_seed_another_video(animator, take, tmp_path) -> None:
    first, again, other = (
        replace(take, output=tmp_path / name, seed=seed)
        for name, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2))
    )
    for each in (first, again, other):
        animator.animate(each)
    assert first.output.read_bytes() == again.output.read_bytes()
    assert not np.array_equal(pictures(first.output), pictures(other.output))


def test_a_video_shows_what_the_picture_shows_undistorted(animator, take) -> None:
    wide = Image.new("RGB", (768, 512), "grey")
    wide.paste(astronaut(), (128, 0))
    wide.save(take.image)
    animator.animate(take)
    assert pictures(take.output)[0].shape == (42, 64, 3)


def test_the_largest_of_several_faces_speaks_and_that_is_said(animator, take) -> None:
    both = Image.new("RGB", (800, 512), "grey")
    both.paste(astronaut(), (0, 0))
    both.paste(astronaut().resize((256, 256)), (530, 100))
    both.save(take.image)
    assert animator.animate(take).warnings == (f"{take.image}: 2 faces; the largest one speaks",)


def test_the_file_says_that_it_is_generated_and_of_what(animator, run, take) -> None:
    animator.animate(replace(take, seed=3))
    with av.open(str(take.output)) as file:
        told = json.loads(file.metadata["comment"])
    assert told["generated"] is True
    assert told["seed"] == 3
    assert told["steps"] == 2
    for name, path in (("image", take.image), ("audio", take.audio)):
        assert told[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["checkpoint"] == digest_of_files(run / "export")


def test_a_checkpoint_s_digest_is_of_its_weights_alone(run, tmp_path) -> None:
    weights = hashlib.sha256((run / "export" / "model.safetensors").read_bytes()).hexdigest()
    codec = [*(run / "export" / "autoencoder").glob("*.safetensors")]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  autoencoder/{file.name}\n" for file in codec]
    lines.append(f"{weights}  model.safetensors\n")
    assert digest_of_files(run / "export") == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_what_is_wrong_is_named(animator, take, tmp_path) -> None:
    (tmp_path / "text.txt").write_text("no media\n")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")
    with wave.open(str(tmp_path / "none.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    write_clip(tmp_path / "mute.mp4", [np.zeros((5, 32, 32, 3), np.uint8)], 25)
    for changed, error, words in (
        ({"output": tmp_path / "a.avi"}, AnimateError, r"a\.avi: .* name it a\.mp4"),
        ({"prompt": "a person talks"}, AnimateError, "prompt: the model was trained without a text encoder"),
        ({"image": tmp_path / "text.txt"}, PictureError, r"text\.txt: no image"),
        ({"image": tmp_path / "grey.png"}, PictureError, r"grey\.png: no face is seen"),
        ({"audio": tmp_path / "text.txt"}, MediaError, r"text\.txt: not media"),
        ({"audio": tmp_path / "none.wav"}, (AnimateError, MediaError), r"none\.wav: "),
        ({"audio": tmp_path / "mute.mp4"}, MediaError, r"mute\.mp4: has no audio stream"),
    ):
        with pytest.raises(error, match=words):
            animator.animate(replace(take, **changed))
        assert not take.output.exists()


def test_a_checkpoint_that_cannot_speak_is_refused(run, tmp_path) -> None:
    with pytest.raises(AnimateError, match="no such checkpoint"):
        Animator.load(tmp_path / "nowhere")
    with pytest.raises(AnimateError, match=r"no audio part \(phase identity\)"):
        Animator.load(write_export(tmp_path / "deaf", "identity"))
    with pytest.raises(ConfigError, match=r"encoders\.speach: unknown key .* did you mean speech"):
        Animator.load(run, encoders=["speach=log_mel"])


def stopping_after(frames: int) -> Callable[[int, int], None]:
    def told(made: int, of: int) -> None:
        if made >= frames:
            raise KeyboardInterrupt

    return told


def test_a_video_that_was_broken_off_goes_on_and_is_the_same(animator, take, tmp_path) -> None:
    animator.animate(take)
    before = take.output.read_bytes()
    other = replace(take, seed=9)
    with pytest.raises(KeyboardInterrupt):
        animator.animate(other, stopping_after(14))
    assert take.output.read_bytes() == before
    heard = []
    animator.animate(other, lambda made, of: heard.append(made))
    assert heard == [14, 21, 23]
    undisturbed = replace(other, output=tmp_path / "undisturbed.mp4")
    animator.animate(undisturbed)
    assert take.output.read_bytes() == undisturbed.output.read_bytes()
    assert [path.name for path in take.output.parent.iterdir()] == ["talk.mp4"]


def test_a_video_that_was_broken_off_before_its_end_was_written_needs_only_that(animator, take) -> None:
    with pytest.raises(KeyboardInterrupt):
        animator.animate(take, stopping_after(23))
    heard = []
    assert animator.animate(take, lambda made, of: heard.append(made)).frames == 23
    assert heard == [23]


def test_another_picture_begins_anew(animator, take) -> None:
    with pytest.raises(KeyboardInterrupt):
        animator.animate(take, stopping_after(14))
    astronaut().resize((400, 400)).save(take.image)
    heard = []
    animator.animate(take, lambda made, of: heard.append(made))
    assert heard[0] == 0


def test_two_do_not_make_one_video(animator, take) -> None:
    with Parts(take.output, {}, 25), pytest.raises(BeingMade, match=r"talk\.mp4: another process makes it"):
        animator.animate(take)
    assert animator.animate(take).frames == 23


def test_a_disk_that_takes_no_more_loses_no_window(animator, take) -> None:
    with files_of_at_most(2_000), pytest.raises(OSError, match="File too large"):
        animator.animate(take)
    assert not take.output.exists()
    assert animator.animate(take).frames == 23
