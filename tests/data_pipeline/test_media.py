"""Real containers and codecs, made here: pictures that carry their number, clicks at known times."""

import hashlib
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.clip import Reason
from data_pipeline.media import MediaError, encode_clip, frames_at, probe, read_audio, read_frames
from tests.data_pipeline.makers import clicks, clicks_in, number_in, numbered, write_sound, write_video

REAL = Path(__file__).resolve().parents[2] / "../shared/real"
CLICKS_S = [0.25, 0.8, 1.5]
KINDS = {
    "h264 in mp4": ("a.mp4", "libx264", "aac"),
    "h264 in mov": ("a.mov", "libx264", "pcm_s16le"),
    "h264 in mkv": ("a.mkv", "libx264", "flac"),
    "h264 in mpegts": ("a.ts", "libx264", "aac"),
    "h264 in flv": ("a.flv", "libx264", "aac"),
    "h264 in avi": ("a.avi", "libx264", "pcm_s16le"),
    "hevc in mp4": ("b.mp4", "libx265", "aac"),
    "mpeg1 in mpg": ("c.mpg", "mpeg1video", "mp2"),
    "mpeg2 in mpegts": ("d.ts", "mpeg2video", "mp2"),
    "mpeg2 in mpg": ("d.mpg", "mpeg2video", "ac3"),
    "mpeg4 in mp4": ("e.mp4", "mpeg4", "libmp3lame"),
    "mpeg4 in avi": ("e.avi", "mpeg4", "pcm_s16le"),
    "vp8 in webm": ("f.webm", "libvpx", "libopus"),
    "vp9 in webm": ("g.webm", "libvpx-vp9", "libopus"),
    "av1 in mp4": ("h.mp4", "libsvtav1", "aac"),
}
KIND_IDS = list(KINDS)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def samples(folder: Path) -> dict[str, Path]:
    """One file of each kind: 50 numbered frames at 25 fps and stereo clicks."""
    sound = clicks(CLICKS_S, 2.0, channels=2)
    return {
        kind: write_video(folder / name, codec=codec, audio_codec=audio_codec, sound=sound)
        for kind, (name, codec, audio_codec) in KINDS.items()
    }


@pytest.fixture(scope="session")
def plain(samples: dict[str, Path]) -> Path:
    return samples["h264 in mp4"]


def time_tolerance_s(kind: str) -> float:
    """libav guesses the times that MPEG-1 program streams leave out, now and then a frame late."""
    return 0.041 if kind == "mpeg1 in mpg" else 0.002


def numbers_and_times(path: Path, **stretch: Any) -> tuple[list[int], list[float]]:
    frames = [(number_in(frame.rgb()), frame.time_s) for frame in read_frames(path, **stretch)]
    return [number for number, _ in frames], [time_s for _, time_s in frames]


def encode(source: Path, folder: Path, start_s: float, end_s: float, **changes: Any) -> tuple[Path, Path]:
    video, audio = folder / "clip.mp4", folder / "clip.flac"
    usual: dict[str, Any] = {
        "crop": (0.0, 0.0, 320.0, 240.0),
        "size": (320, 240),
        "fps": 25.0,
        "crf": 18,
        "preset": "fast",
    }
    encode_clip(source, video, audio, start_s=start_s, end_s=end_s, **{**usual, **changes})
    return video, audio


def assert_near(found: Sequence[float], expected: Sequence[float], tolerance: float) -> None:
    assert len(found) == len(expected), (found, expected)
    assert np.abs(np.subtract(found, expected)).max() <= tolerance, (found, expected)


# what is inside


@pytest.mark.parametrize("kind", KIND_IDS)
def test_probe_tells_the_streams_of(kind: str, samples: dict[str, Path]) -> None:
    info = probe(samples[kind])
    assert info.video is not None
    assert info.audio is not None
    codec = {"mpeg1": "mpeg1video", "mpeg2": "mpeg2video"}.get(kind.split()[0], kind.split()[0])
    assert info.video.codec.removeprefix("lib").replace("dav1d", "av1") == codec
    assert (info.video.width, info.video.height, info.video.rotation_deg) == (320, 240, 0)
    assert info.video.fps == pytest.approx(25, rel=0.03)
    assert info.audio.channels == 2
    assert info.duration_s == pytest.approx(2.0, abs=0.2)


def test_a_length_that_the_file_does_not_say_is_found_out(tmp_path: Path) -> None:
    path = write_video(tmp_path / "live.mkv", n_frames=30, container_options={"live": "1"})
    assert probe(path).duration_s == pytest.approx(1.2, abs=0.05)
    assert numbers_and_times(path)[0] == list(range(30))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_to_every_picture(degrees: int, tmp_path: Path) -> None:
    def arrow(k: int, width: int, height: int) -> np.ndarray:
        """The number as displayed, so stored turned the other way."""
        turned = degrees in (90, 270)
        shown = numbered(k + 1, *((height, width) if turned else (width, height)))
        return np.ascontiguousarray(np.rot90(shown, degrees // 90))

    path = write_video(
        tmp_path / "turned.mp4", n_frames=12, rotation_deg=degrees, pixels=arrow, sound=clicks([], 0.5)
    )
    info = probe(path)
    assert info.video is not None
    size = (240, 320) if degrees in (90, 270) else (320, 240)
    assert (info.video.width, info.video.height, info.video.rotation_deg) == (*size, degrees)
    expected = list(range(1, 13))
    frames = list(read_frames(path))
    assert [(frame.width, frame.height) for frame in frames] == [size] * 12
    assert [number_in(frame.rgb(160)) for frame in read_frames(path)] == expected
    assert [number_in(frame.luma()) for frame in read_frames(path)] == expected
    assert [number_in(picture) for picture in frames_at(path, [0.0, 0.2])] == [1, 6]
    video, _ = encode(path, tmp_path, 0.0, 0.48, crop=(0.0, 0.0, *map(float, size)), size=size)
    assert numbers_and_times(video)[0] == expected


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", n_frames=5, options={"x264-params": "sar=64/45"})
    info = probe(path)
    assert info.video is not None
    assert (info.video.width, info.video.height) == (455, 240)
    assert next(read_frames(path)).rgb().shape == (240, 455, 3)


@pytest.mark.parametrize("size", [(321, 241), (161, 240), (320, 121)])
def test_odd_sizes_are_read_and_encoded(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mp4", n_frames=10, size=size, sound=clicks([], 0.4))
    info = probe(path)
    assert info.video is not None
    assert (info.video.width, info.video.height) == size
    assert numbers_and_times(path)[0] == list(range(10))
    video, _ = encode(path, tmp_path, 0.0, 0.4, crop=(0.0, 0.0, *map(float, size)), size=(160, 120))
    assert numbers_and_times(video)[0] == list(range(10))


# pictures


@pytest.mark.parametrize("kind", KIND_IDS)
def test_every_frame_comes_once_and_in_time_from(kind: str, samples: dict[str, Path]) -> None:
    numbers, times_s = numbers_and_times(samples[kind])
    assert numbers == list(range(50))
    assert_near(times_s, [k / 25 for k in range(50)], time_tolerance_s(kind))


@pytest.mark.parametrize("kind", KIND_IDS)
def test_a_stretch_in_the_middle_is_the_same_as_in_the_whole(kind: str, samples: dict[str, Path]) -> None:
    numbers, times_s = numbers_and_times(samples[kind])
    wanted = [k for k, time_s in enumerate(times_s) if 1.4 - 1e-3 <= time_s < 1.8 - 1e-3]
    assert numbers_and_times(samples[kind], start_s=1.4, end_s=1.8)[0] == [numbers[k] for k in wanted]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "libvpx-vp9"])
@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_seeking_far_gives_the_same_frames_as_reading_from_the_start(
    codec: str, suffix: str, folder: Path
) -> None:
    if codec == "libvpx-vp9" and suffix == ".ts":
        pytest.skip("MPEG transport streams do not carry VP9")
    path = write_video(folder / f"{codec}{suffix}", codec=codec, n_frames=300, size=(160, 120), gop=90)
    assert numbers_and_times(path, start_s=9.0, end_s=9.2)[0] == [225, 226, 227, 228, 229]
    assert numbers_and_times(path, start_s=11.9)[0] == [298, 299]


def test_adjoining_stretches_share_no_frame_and_lose_none(plain: Path) -> None:
    edges = [0.0, 0.333, 0.7, 1.0, 1.239, math.inf]
    numbers = [
        number
        for start_s, end_s in pairwise(edges)
        for number in numbers_and_times(plain, start_s=start_s, end_s=end_s)[0]
    ]
    assert numbers == list(range(50))


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.1, 0.15, 0.4, 0.44, 0.9, 0.91, 1.2, 1.25]
    path = write_video(tmp_path / "vfr.mp4", n_frames=10, times_s=times_s)
    numbers, found_s = numbers_and_times(path)
    assert numbers == list(range(10))
    assert_near(found_s, times_s, 1e-3)
    assert [number_in(picture) for picture in frames_at(path, [0.39, 0.4, 0.89, 1.1])] == [3, 4, 5, 7]


@pytest.mark.parametrize("width", [48, 96, 144])
def test_narrow_pictures_are_read_by_number_where_their_rows_are_padded(tmp_path, width) -> None:
    def slopes(number: int, width: int, height: int) -> np.ndarray:
        across = np.linspace(20, 200, width) + 4 * number
        return np.repeat(np.tile(across, (height, 1))[..., None], 3, axis=2).astype(np.uint8)

    path = write_video(tmp_path / "narrow.mp4", n_frames=12, size=(width, 96), pixels=slopes)
    expected = np.stack([frame.rgb() for frame in read_frames(path)])
    found = frames_at(path, [number / 25 for number in range(12)])
    assert found.shape == (12, 96, width, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_more_threads_give_the_same_pictures(plain: Path) -> None:
    one = [frame.rgb().tobytes() for frame in read_frames(plain, threads=1)]
    assert [frame.rgb().tobytes() for frame in read_frames(plain, threads=3)] == one


def test_pictures_shrink_to_the_longer_side_and_never_grow(plain: Path) -> None:
    frame = next(read_frames(plain))
    assert frame.rgb(160).shape == (120, 160, 3)
    assert frame.luma(100).shape == (75, 100)
    assert frame.rgb(1000).shape == (240, 320, 3)
    assert frame.rgb().dtype == frame.luma().dtype == np.uint8


def test_colours_come_back_from_the_file_and_from_its_clip(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], np.uint8)
    source = write_video(
        tmp_path / "source.mp4",
        n_frames=5,
        pixels=lambda k, width, height: np.tile(colours[k], (height, width, 1)),
        options={"crf": "1", "preset": "ultrafast"},
        sound=clicks([], 0.2),
    )

    def shown(path: Path) -> np.ndarray:
        return np.array([frame.rgb()[120, 160] for frame in read_frames(path)], int)

    assert np.abs(shown(source) - colours).max() <= 3  # small and untagged: BT.601 by convention
    clip, _ = encode(source, tmp_path, 0.0, 0.2, crf=1)
    assert np.abs(shown(clip) - colours).max() <= 4  # converted to BT.709, and tagged so
    assert [int(frame.luma()[120, 160]) for frame in read_frames(source)][3:] == [255, 0]


def test_random_access_gives_the_picture_on_screen(samples: dict[str, Path]) -> None:
    times_s = [1.5, 0.0, 0.79, 1.96, 0.11, 1.2]
    for kind, path in samples.items():
        numbers, shown_s = numbers_and_times(path)
        expected = [numbers[np.searchsorted(shown_s, time_s + 1e-3, side="right") - 1] for time_s in times_s]
        found = [number_in(picture) for picture in frames_at(path, times_s, 160)]
        off_by = 1 if kind == "mpeg1 in mpg" else 0  # its guessed times depend on where reading begins
        assert np.abs(np.subtract(found, expected)).max() <= off_by, (kind, found, expected)


# sound


@pytest.mark.parametrize("kind", KIND_IDS)
def test_clicks_are_where_they_were_put_in(kind: str, samples: dict[str, Path]) -> None:
    tolerance_s = 0.0015 if "webm" in kind else 0.0005
    assert_near(clicks_in(read_audio(samples[kind])), CLICKS_S, tolerance_s)


@pytest.mark.parametrize("kind", KIND_IDS)
def test_a_stretch_of_sound_is_exactly_as_long_as_asked_for(kind: str, samples: dict[str, Path]) -> None:
    sound = read_audio(samples[kind], 0.7123, 1.7)
    assert len(sound) == round((1.7 - 0.7123) * 16_000)
    tolerance_s = 0.0015 if "webm" in kind else 0.0005
    assert_near(clicks_in(sound), [0.8 - 0.7123, 1.5 - 0.7123], tolerance_s)


def test_sound_past_the_end_is_silence(plain: Path) -> None:
    sound = read_audio(plain, 1.4, 4.0)
    assert len(sound) == 41_600
    assert_near(clicks_in(sound), [0.1], 0.0005)
    assert not sound[12_000:].any()


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mp4", sound=clicks([0.1], 1.0), audio_start_s=0.75)
    # an mp4 writes the moment at which a track begins in whole milliseconds
    assert_near(clicks_in(read_audio(path)), [0.85], 0.001)
    assert_near(clicks_in(read_audio(path, 0.5, 1.5)), [0.35], 0.001)
    assert len(read_audio(path, 0.0, 0.5)) == 8_000
    assert not read_audio(path, 0.0, 0.5).any()


def test_pictures_that_start_late_are_the_clocks_zero(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "late.mkv",
        n_frames=25,
        times_s=[0.5 + k / 25 for k in range(25)],
        sound=clicks([0.6], 1.5),
        audio_codec="flac",
    )
    assert numbers_and_times(path)[1][0] == pytest.approx(0, abs=1e-3)
    assert_near(clicks_in(read_audio(path)), [0.1], 0.0015)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_gives_sound_in_its_place(rate: int, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", clicks([0.25, 0.8], 1.0, rate), rate=rate)
    sound = read_audio(path)
    assert len(sound) == pytest.approx(16_000, abs=1)
    assert_near(clicks_in(sound), [0.25, 0.8], 0.0005)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "flac", "aac"])
def test_any_layout_and_sample_format_become_mono(channels: int, codec: str, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", clicks([0.3], 0.6, channels=channels), codec=codec)
    found = clicks_in(read_audio(path))
    assert_near(found, [0.3], 0.03 if codec == "aac" else 0.0015)


def test_a_sound_file_has_no_video_and_a_silent_film_no_audio(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "sound.wav", clicks([0.1], 0.5))
    assert probe(sound).video is None
    for read in (lambda: list(read_frames(sound)), lambda: frames_at(sound, [0.0])):
        with pytest.raises(MediaError) as caught:
            read()
        assert caught.value.reason is Reason.NO_VIDEO
    film = write_video(tmp_path / "film.mp4", n_frames=5)
    assert probe(film).audio is None
    with pytest.raises(MediaError) as caught:
        read_audio(film)
    assert caught.value.reason is Reason.NO_AUDIO


# encoding


@pytest.mark.parametrize(
    "kind", ["h264 in mp4", "vp9 in webm", "mpeg2 in mpegts", "hevc in mp4", "av1 in mp4"]
)
def test_a_clip_has_the_right_frames_and_the_sound_that_belongs_to_them(
    kind: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    video, audio = encode(samples[kind], tmp_path, 0.52, 1.6)
    numbers, times_s = numbers_and_times(video)
    assert numbers == list(range(13, 40))
    assert_near(times_s, [k / 25 for k in range(27)], 1e-6)
    sound = read_audio(audio)
    assert len(sound) == round(27 * 16_000 / 25)
    assert_near(clicks_in(sound), [0.8 - 0.52, 1.5 - 0.52], 0.0015)
    info = probe(video)
    assert info.audio is None
    assert info.video is not None
    assert (info.video.codec, info.video.fps, info.video.n_frames) == ("h264", 25.0, 27)


@settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    start_ms=st.integers(0, 1500),
    frames=st.integers(1, 12),
    fps=st.sampled_from([12.5, 24.0, 29.97, 30.0, 50.0]),
)
def test_frame_k_is_the_one_on_screen_at_its_time_at_any_rate(
    start_ms: int, frames: int, fps: float, plain: Path, tmp_path: Path
) -> None:
    start_s = start_ms / 1000
    video, audio = encode(plain, tmp_path, start_s, start_s + frames / fps, fps=fps, preset="ultrafast")
    numbers, _ = numbers_and_times(video)
    assert numbers == [min(math.floor((start_s + k / fps + 1e-3) * 25), 49) for k in range(frames)]
    assert len(read_audio(audio)) == round(frames * 16_000 / fps)


def test_a_variable_rate_becomes_constant_by_showing_what_was_on_screen(tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.1, 0.15, 0.4, 0.44, 0.9, 0.91, 1.2, 1.25]
    path = write_video(tmp_path / "vfr.mp4", n_frames=10, times_s=times_s, sound=clicks([], 1.4))
    video, _ = encode(path, tmp_path, 0.2, 1.2)
    shown = [max(n for n, time_s in enumerate(times_s) if time_s <= 0.2 + k / 25 + 1e-3) for k in range(25)]
    assert numbers_and_times(video)[0] == shown


def test_the_same_clip_is_the_same_bytes_on_every_run(plain: Path, tmp_path: Path) -> None:
    def digests(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        files = encode(plain, tmp_path / name, 0.3, 1.5, crop=(-20.0, 10.0, 200.0, 230.0), size=(128, 128))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    assert digests("once") == digests("again")


def test_a_clip_names_no_date_and_no_version_of_the_muxer(plain: Path, tmp_path: Path) -> None:
    video, audio = encode(plain, tmp_path, 0.0, 1.0)
    assert b"Lavf" not in video.read_bytes()
    assert b"Lavf" not in audio.read_bytes()
    assert video.read_bytes().index(b"moov") < video.read_bytes().index(b"mdat")


def test_a_crop_shows_what_it_names(tmp_path: Path) -> None:
    def quarters(k: int, width: int, height: int) -> np.ndarray:
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: height // 2, width // 2 :] = 80
        picture[height // 2 :, : width // 2] = 160
        picture[height // 2 :, width // 2 :] = 240
        return picture

    source = write_video(tmp_path / "q.mp4", n_frames=3, pixels=quarters, sound=clicks([], 0.2))
    for name, crop, expected in [
        ("top right", (170.0, 10.0, 310.0, 115.0), [80, 80, 80, 80]),
        ("bottom left", (10.0, 125.0, 150.0, 230.0), [160, 160, 160, 160]),
        ("centre", (80.0, 60.0, 240.0, 180.0), [0, 80, 160, 240]),
        ("over the right edge", (260.0, 130.0, 380.0, 230.0), [240, 0, 240, 0]),
        ("over the left and upper edge", (-60.0, -50.0, 60.0, 50.0), [0, 0, 0, 0]),
        ("over the lower edge", (180.0, 190.0, 300.0, 290.0), [240, 240, 0, 0]),
        ("around everything", (-320.0, -240.0, 640.0, 480.0), [0, 0, 0, 0]),
    ]:
        video, _ = encode(source, tmp_path, 0.0, 0.12, crop=crop, size=(64, 64))
        picture = next(read_frames(video)).luma()
        corners = [int(picture[y, x]) for y in (12, 52) for x in (12, 52)]
        assert np.abs(np.subtract(corners, expected)).max() <= 4, (name, corners)


def test_a_crop_beside_the_picture_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shows nothing"):
        encode(plain, tmp_path, 0.0, 0.4, crop=(400.0, 0.0, 500.0, 100.0))


def test_a_place_that_cannot_be_written_is_storage(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        encode(plain, tmp_path / "absent", 0.0, 0.4)
    assert caught.value.reason is Reason.STORAGE


def test_a_full_disk_is_storage(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.flac").symlink_to("/dev/full")
    with pytest.raises(MediaError, match="No space left") as caught:
        encode(plain, tmp_path, 0.0, 0.4)
    assert caught.value.reason is Reason.STORAGE


# what is wrong with inputs


def reason_of(path: Path, **limits: Any) -> Reason | None:
    """What reading the whole file ends with."""
    try:
        probe(path, **limits)
        for frame in read_frames(path, **limits):
            frame.luma(64)
    except MediaError as failure:
        assert str(path) in str(failure)  # noqa: PT017 - on every way out
        return failure.reason
    return None


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "absent.mp4") is Reason.MISSING
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert reason_of(tmp_path / "loop.mp4") is Reason.MISSING


def test_a_folder_is_unsupported(tmp_path: Path) -> None:
    assert reason_of(tmp_path) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "content",
    [b"", b"just text\n" * 20, b"#EXTM3U\n#EXTINF:2,\n/etc/passwd\n", b"ffconcat version 1.0\nfile a.mp4\n"],
)
def test_a_file_that_is_no_media_is_corrupt(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    assert reason_of(path) is Reason.CORRUPT


def test_a_playlist_does_not_open_other_files(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{plain}'\n")
    assert reason_of(path) is Reason.CORRUPT


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/usr/sbin/runuser").exists(), reason="root reads everything"
)
def test_a_file_that_may_not_be_read_is_storage(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "closed.mp4"
    path.write_bytes(plain.read_bytes())
    path.chmod(0)
    if os.geteuid() != 0:
        assert reason_of(path) is Reason.STORAGE
        return
    # As root: ask as somebody else, in a process of its own. The folders above must let them pass.
    script = (
        "import os, sys; from pathlib import Path; from data_pipeline import media; import av\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: media.probe(Path(sys.argv[1]))\n"
        "except media.MediaError as failure: print(failure.reason)\n"
    )
    for parent in path.parents:
        if parent.owner() == "root" and parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "storage", done.stderr


def test_frames_above_the_limit_are_unsupported(plain: Path) -> None:
    assert reason_of(plain, max_pixels=320 * 240) is None
    assert reason_of(plain, max_pixels=320 * 240 - 1) is Reason.UNSUPPORTED


def test_a_cover_picture_is_not_a_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate = 48_000
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(3, 64, 64), format="rgb24")))
        container.mux(cover.encode(None))
    info = probe(path)
    assert info.video is None
    assert info.audio is not None
    assert reason_of(path) is Reason.NO_VIDEO


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp4",
        "quote'\".mp4",
        "new\nline.mp4",
        "çé 漢字 🎬.mp4",
        "concat:a|b.mp4",
        "file:x.mp4",
        "http:__host.mp4",
        "-vf.mp4",
        "100%d.mp4",
        "*?[a].mp4",
    ],
)
def test_any_name_is_a_name(name: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(plain.read_bytes())
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name)):
        assert probe(path).video is not None
        assert len(list(read_frames(path))) == 50
        assert number_in(frames_at(path, [1.0])[0]) == 25
    encode_clip(
        Path(name),
        Path("out " + name),
        Path("out " + name + ".flac"),
        start_s=0.0,
        end_s=0.2,
        crop=(0.0, 0.0, 320.0, 240.0),
        size=(64, 48),
        fps=25.0,
        crf=30,
        preset="ultrafast",
    )
    assert len(list(read_frames(Path("out " + name)))) == 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_file_that_ends_well_before_it_should_is_corrupt(suffix: str, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / f"whole{suffix}",
        n_frames=100,
        sound=clicks([], 4.0),
        audio_codec="ac3",
        container_options={"movflags": "+faststart"} if suffix == ".mp4" else None,
    )
    assert reason_of(path) is None
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert reason_of(cut) is Reason.CORRUPT


def damaged(source: Path, target: Path, share_of_file: tuple[float, float], n_bytes: int) -> Path:
    """A copy whose bytes are overwritten at `n_bytes` places between two shares of its length."""
    data = bytearray(source.read_bytes())
    generator = np.random.default_rng(7)
    low, high = (int(share * len(data)) for share in share_of_file)
    for position in generator.integers(low, high, n_bytes):
        data[position : position + 16] = generator.bytes(16)
    target.write_bytes(data)
    return target


def noise(k: int, width: int, height: int) -> np.ndarray:
    """Pictures with content in every block, so that damage is noticed."""
    generator = np.random.default_rng(k)
    coarse = generator.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def test_a_stream_with_errors_all_over_is_corrupt(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", n_frames=100, pixels=noise)
    assert reason_of(whole) is None
    assert reason_of(damaged(whole, tmp_path / "bad.mp4", (0.05, 0.95), 40)) is Reason.CORRUPT


def test_one_error_in_a_long_stream_is_let_pass(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", n_frames=400, size=(160, 120), gop=10, pixels=noise)
    bad = damaged(whole, tmp_path / "bad.mp4", (0.5, 0.501), 1)
    assert reason_of(bad) is None


def test_a_damaged_stretch_is_corrupt_while_the_rest_is_not(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", n_frames=250, gop=25, pixels=noise)
    bad = damaged(whole, tmp_path / "bad.mp4", (0.45, 0.55), 30)
    with pytest.raises(MediaError) as caught:
        list(read_frames(bad, start_s=4.0, end_s=6.0))
    assert caught.value.reason is Reason.CORRUPT
    assert len(list(read_frames(bad, start_s=0.0, end_s=3.0))) == 75
    assert len(list(read_frames(bad, start_s=8.0, end_s=9.0))) == 25


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["h264 in mp4", "vp9 in webm", "mpeg4 in avi", "mpeg2 in mpegts", "hevc in mp4"]),
    percent=st.sampled_from([5, 20, 40, 60, 80, 95, 99, 100, 100, 100]),
    flips=st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=20),
)
def test_truncated_and_flipped_bytes_give_a_result_or_a_media_error(
    kind: str, percent: int, flips: list[tuple[int, int]], samples: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(samples[kind].read_bytes())
    data = data[: len(data) * percent // 100]
    for place, value in flips:
        data[place * len(data) // 10_000] = value
    path = tmp_path / f"broken{samples[kind].suffix}"
    path.write_bytes(data)
    for read in (probe, lambda p: list(read_frames(p)), read_audio, lambda p: frames_at(p, [0.5])):
        try:
            read(path)
        except MediaError as failure:
            possible = (Reason.CORRUPT, Reason.NO_VIDEO, Reason.NO_AUDIO, Reason.UNSUPPORTED)
            assert failure.reason in possible  # noqa: PT017 - either a result or this


def test_an_error_keeps_its_reason_across_processes() -> None:
    failure = pickle.loads(pickle.dumps(MediaError(Reason.CORRUPT, "a.mp4: is empty")))  # noqa: S301
    assert (failure.reason, str(failure)) == (Reason.CORRUPT, "a.mp4: is empty")


def test_broken_inputs_write_nothing_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "whole.mp4", n_frames=100, pixels=noise)
    capfd.readouterr()
    reason_of(damaged(whole, tmp_path / "bad.mp4", (0.05, 0.95), 40))
    assert capfd.readouterr().err == ""


def test_importing_media_imports_no_codec() -> None:
    script = "import sys, data_pipeline.media; print({'av', 'decord', 'cv2'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# real files


def reasons_of_real_clips(most_bytes: int) -> dict[str, Reason | None]:
    if not REAL.exists():
        pytest.skip("the real clips are not on this machine")
    clips = [path for path in sorted(REAL.glob("*.*")) if path.suffix not in (".md", ".csv")]
    return {path.name: reason_of(path) for path in clips if path.stat().st_size <= most_bytes}


REAL_BROKEN = dict.fromkeys(["decord_corrupted.mp4", "made_02.mp4", "made_03.mp4"], Reason.CORRUPT)


def test_of_the_small_real_clips_exactly_the_broken_ones_are_corrupt() -> None:
    ended = reasons_of_real_clips(most_bytes=350_000)
    assert len(ended) >= 8
    assert {name: reason for name, reason in ended.items() if reason is not None} == REAL_BROKEN


@pytest.mark.slow
def test_of_all_real_clips_exactly_the_broken_ones_are_corrupt() -> None:
    ended = reasons_of_real_clips(most_bytes=2**40)
    expected = {**REAL_BROKEN, "made_01.mp4": Reason.CORRUPT}
    assert {name: reason for name, reason in ended.items() if reason is not None} == expected
