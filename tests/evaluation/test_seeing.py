"""From a file to what all metrics see: pictures, sound and the speaker's face, or words that say why not."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.clip import ANALYSIS_RATE
from evaluation.metrics.metric import SeenClip
from evaluation.seeing import CannotSee, ClipReader
from tests.data_pipeline.face_media import astronaut
from tests.data_pipeline.makers import clicks, clicks_in, number_in, write_sound, write_video
from tests.data_pipeline.sync_media import REAL

FACE = np.array([176, 56, 272, 186])  # the astronaut's, about


@pytest.fixture(scope="module")
def reader() -> ClipReader:
    return ClipReader()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(256, 256, 3): the astronaut at half the size; the face is at FACE / 2."""
    return np.ascontiguousarray(astronaut()[::2, ::2])


def read(reader: ClipReader, path: Path, **other: object) -> SeenClip:
    return reader.read(path, "one", np.zeros((8, 8, 3), np.uint8), **other)


def wall(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_a_face_that_moves_is_followed_frame_by_frame(reader, portrait, tmp_path) -> None:
    def moving(k: int, width: int, height: int) -> np.ndarray:
        picture = wall(height, width)
        picture[:, 4 * k : 4 * k + 256] = portrait
        return picture

    path = write_video(tmp_path / "a.mp4", n_frames=25, size=(384, 256), pixels=moving)
    clip = read(reader, path)
    assert clip.seen.all()
    middles = (clip.boxes[:, 0] + clip.boxes[:, 2]) / 2
    wanted = (FACE[0] + FACE[2]) / 4 + 4 * np.arange(25)
    # After the last frame that was searched, the 21st, the box stays; the mesh goes on.
    np.testing.assert_allclose(middles[:21], wanted[:21], atol=6)
    noses = np.array([mesh.points[1, 0] for mesh in clip.meshes])
    np.testing.assert_allclose(np.diff(noses), 4, atol=2.5)
    assert noses[-1] - noses[0] == pytest.approx(96, abs=3)


def test_of_two_faces_the_larger_is_the_speakers(reader, portrait, tmp_path) -> None:
    def two(k: int, width: int, height: int) -> np.ndarray:
        picture = wall(height, width)
        picture[:128, :128] = portrait[::2, ::2]
        picture[:, 200:456] = portrait
        return picture

    clip = read(reader, write_video(tmp_path / "two.mp4", n_frames=15, size=(456, 256), pixels=two))
    assert (clip.boxes[:, 0] > 200).all()


def test_where_the_face_is_gone_there_is_no_box(reader, portrait, tmp_path) -> None:
    def leaving(k: int, width: int, height: int) -> np.ndarray:
        return portrait if k < 25 else wall(height, width)

    clip = read(reader, write_video(tmp_path / "a.mp4", n_frames=50, size=(256, 256), pixels=leaving))
    assert clip.seen[:25].all()
    assert not clip.seen[25:].any()
    assert all(mesh is None for mesh in clip.meshes[25:])


def test_a_video_without_a_face_is_seen_without_boxes_and_one_without_sound_without_samples(
    reader, tmp_path
) -> None:
    clip = read(reader, write_video(tmp_path / "n.mp4", n_frames=15))
    assert np.isnan(clip.boxes).all()
    assert clip.boxes.shape == (15, 4)
    assert clip.meshes == [None] * 15
    assert len(clip.sound) == 0
    assert not clip.seen.any()


@pytest.mark.parametrize("fps", [25, 30, Fraction(30000, 1001)])
def test_pictures_and_sound_are_of_the_same_time(reader, tmp_path, fps) -> None:
    sound = clicks([0.5, 1.2], 2.0)
    path = write_video(tmp_path / "n.mp4", n_frames=50, fps=fps, sound=sound, audio_codec="aac")
    clip = read(reader, path)
    assert clip.fps == pytest.approx(float(fps))
    assert [number_in(frame) for frame in clip.frames] == list(range(50))
    assert len(clip.sound) == round(50 / float(fps) * ANALYSIS_RATE)
    assert clicks_in(clip.sound)[0] == pytest.approx(0.5, abs=0.003)


def test_pictures_that_come_at_odd_times_are_shown_for_as_long_as_they_last(reader, tmp_path) -> None:
    times_s = [0.04 * k + (0.4 if k >= 20 else 0) for k in range(40)]  # the 20th stays for 0.44 s
    path = write_video(tmp_path / "v.mkv", n_frames=40, times_s=times_s, sound=clicks([1.5], 2.0))
    clip = read(reader, path)
    seen_at_s = np.arange(len(clip.frames)) / clip.fps
    shown = [number_in(frame) for frame in clip.frames]
    wanted = np.searchsorted(np.array(times_s), seen_at_s + 1e-3, side="right") - 1
    assert np.abs(np.array(shown) - wanted).max() <= 1


def test_of_a_longer_video_the_first_seconds_are_seen_and_heard(tmp_path) -> None:
    path = write_video(tmp_path / "n.mp4", n_frames=75, sound=clicks([0.5, 2.5], 3.0))
    clip = read(ClipReader(max_s=2), path)
    assert [number_in(frame) for frame in clip.frames] == list(range(50))
    assert len(clip.sound) == 2 * ANALYSIS_RATE
    assert len(clicks_in(clip.sound)) == 1


def test_larger_pictures_are_shrunk_and_smaller_ones_are_not(tmp_path) -> None:
    path = write_video(tmp_path / "n.mp4", n_frames=5, size=(640, 360))
    reader = ClipReader(max_px=320)
    assert read(reader, path).frames.shape == (5, 180, 320, 3)
    assert reader.protocol["max_px"] == 320
    assert read(ClipReader(max_px=640), path).frames.shape == (5, 360, 640, 3)


def test_the_same_is_seen_with_any_number_of_threads(portrait, tmp_path) -> None:
    import cv2

    path = write_video(
        tmp_path / "a.mp4", n_frames=10, size=(256, 256), pixels=lambda k, *_: np.roll(portrait, k, 1)
    )
    clips = []
    for threads in (1, 4):
        reader = ClipReader()
        cv2.setNumThreads(threads)
        clips.append(read(reader, path))
    one, four = clips
    assert np.array_equal(one.frames, four.frames)
    assert np.array_equal(one.boxes, four.boxes)
    assert all(np.array_equal(a.points, b.points) for a, b in zip(one.meshes, four.meshes, strict=True))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "gone.mp4"),
        ("empty", "is empty"),
        ("text", "not media, or broken"),
        ("sound", "has no video"),
        ("still", "too short to be measured; give at least 2 pictures"),
    ],
)
def test_a_file_that_cannot_be_seen_says_why(reader, tmp_path, kind, said) -> None:
    path = tmp_path / "gone.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no video" * 100)
    elif kind == "sound":
        path = write_sound(tmp_path / "a.wav", clicks([0.1], 1.0))
    elif kind == "still":
        write_video(path, n_frames=1)
    with pytest.raises(CannotSee, match=said):
        read(reader, path)


def test_a_damaged_video_says_how_much_of_it_is_damaged(reader) -> None:
    if not REAL.exists():
        pytest.skip("the labelled real clips are not beside this project")
    with pytest.raises(CannotSee, match="22 of 50 frames are damaged"):
        read(reader, REAL / "decord_corrupted.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["made_05.mp4", "liveportrait_d12.mp4", "grid_lwbsza.mpg"])
def test_the_face_of_a_real_speaker_is_seen_in_every_frame(reader, name) -> None:
    if not REAL.exists():
        pytest.skip("the labelled real clips are not beside this project")
    clip = read(reader, REAL / name)
    assert clip.seen.all()
    assert all(clip.meshes)
