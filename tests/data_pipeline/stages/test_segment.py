"""Sources become clips: cuts, times, samples, outcomes."""

import csv
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.clip import Clip, Reason, clip_id_of
from data_pipeline.config import SegmentConfig
from data_pipeline.media import MAX_PIXELS, MediaError
from data_pipeline.stages.segment import probe_source, segment
from tests.data_pipeline.makers import clicks, clicks_in, write_sound, write_video
from tests.data_pipeline.scenes import Pixels, joined, scene

REAL = Path(__file__).resolve().parents[3] / "../shared/real"
SHA256 = "ab" * 32
SMALL = {"size": (192, 108), "gop": 250}


def probed(path: Path, **window) -> Clip:
    return probe_source(path, Clip(str(path), source_sha256=SHA256, **window))


def clips_of(path: Path, config: SegmentConfig | None = None, **window) -> list[Clip]:
    return list(segment(path, probed(path, **window), config or SegmentConfig(), MAX_PIXELS))


def video(path: Path, pixels: Pixels, duration_s: float, fps: int | Fraction = 25, **options) -> Path:
    sound = clicks([0.5, 3.25], duration_s, channels=1)
    n_frames = round(duration_s * fps)
    return write_video(path, n_frames=n_frames, fps=fps, pixels=pixels, sound=sound, **SMALL | options)


@pytest.fixture(scope="module")
def three_shots(tmp_path_factory):
    shots = joined((scene(1), 75), (scene(2), 60), (scene(3), 65))
    return video(tmp_path_factory.mktemp("video") / "three.mp4", shots, 8.0)


def test_a_clip_ends_at_the_cut_and_the_next_begins_there(three_shots):
    assert [(clip.start_s, clip.end_s) for clip in clips_of(three_shots)] == [(0, 3), (3, 5.4), (5.4, 8)]


def test_a_clip_is_named_by_content_and_times(three_shots):
    clips = clips_of(three_shots)
    assert [clip.clip_id for clip in clips] == [clip_id_of(SHA256, c.start_s, c.end_s) for c in clips]
    assert {clip.source_sha256 for clip in clips} == {SHA256}


def test_the_same_source_gives_the_same_clips(three_shots):
    assert pickle.dumps(clips_of(three_shots)) == pickle.dumps(clips_of(three_shots))


def test_a_cut_in_black_and_white_is_seen(tmp_path):
    shots = joined((scene(1, grey=True), 75), (scene(2, grey=True), 75))
    clips = clips_of(video(tmp_path / "grey.mp4", shots, 6.0))
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 3), (3, 6)]


def test_a_moving_scene_is_one_shot(tmp_path):
    clips = clips_of(video(tmp_path / "moving.mp4", scene(1, speed_px=2), 5.0))
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 5)]


def test_a_shot_longer_than_allowed_is_divided_evenly(tmp_path):
    path = video(tmp_path / "long.mp4", scene(1), 15.0, fps=10)
    assert [(clip.start_s, clip.end_s) for clip in clips_of(path)] == [(0, 7.5), (7.5, 15)]


def test_shots_that_are_all_too_short_make_the_source_scene_cut(tmp_path):
    shots = joined((scene(1), 30), (scene(2), 30), (scene(3), 30))
    [source] = clips_of(video(tmp_path / "short.mp4", shots, 3.6))
    assert (source.clip_id, source.reasons) == (None, [Reason.SCENE_CUT])


def test_one_short_shot_makes_the_source_too_short(tmp_path):
    [source] = clips_of(video(tmp_path / "short.mp4", scene(1), 1.5))
    assert (source.clip_id, source.reasons) == (None, [Reason.TOO_SHORT])


def test_a_source_without_sound_is_no_audio_from_its_header(tmp_path):
    path = write_video(tmp_path / "mute.mp4", n_frames=60)
    found = probed(path)
    assert found.reasons == [Reason.NO_AUDIO]
    assert (found.clip_id, found.source_fps, found.source_width, found.source_height) == (None, 25, 320, 240)


def test_a_source_without_picture_is_no_video(tmp_path):
    path = write_sound(tmp_path / "sound.wav", clicks([0.5], 3.0))
    assert probed(path).reasons == [Reason.NO_VIDEO]


def test_a_source_that_breaks_off_raises_after_its_good_clips(three_shots, tmp_path):
    whole = three_shots.read_bytes()
    path = tmp_path / "damaged.mp4"
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes(len(whole) // 2) + whole[middle + len(whole) // 2 :])
    with pytest.raises(MediaError) as failure:
        clips_of(path)
    assert failure.value.reason == Reason.CORRUPT


def test_a_frame_above_the_limit_is_unsupported(three_shots):
    source = probed(three_shots)
    with pytest.raises(MediaError) as failure:
        list(segment(three_shots, source, SegmentConfig(), 192 * 108 - 1))
    assert failure.value.reason == Reason.UNSUPPORTED


def test_only_the_window_that_the_list_asks_for_is_cut(three_shots):
    clips = clips_of(three_shots, start_s=0.6, end_s=7.0)
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0.6, 3), (3, 5.4)]


def test_only_the_crop_that_the_list_asks_for_is_looked_at(tmp_path):
    def beside(k: int, width: int, height: int) -> np.ndarray:
        left = scene(1)(k, width, height)
        left[:, width // 2 :] = 235 if k < 75 else 16  # the right half changes
        return left

    path = video(tmp_path / "beside.mp4", beside, 6.0)
    assert len(clips_of(path)) == 2
    [clip] = clips_of(path, crop=[0, 0, 96, 108])
    assert (clip.frames.width, clip.frames.height) == (96, 108)
    [bright, _] = clips_of(path, crop=[120, 0, 192, 108])
    assert bright.luminance == pytest.approx(235, abs=4)


def test_analysis_frames_have_the_rate_and_the_times_of_the_clip(three_shots):
    frames = clips_of(three_shots, SegmentConfig(analysis_fps=5, analysis_px=96))[1].frames
    assert np.diff(frames.times_s) == pytest.approx(0.2, abs=0.041)
    assert 0 <= frames.times_s[0] < 0.2
    assert len(frames) == 12
    assert frames.decode(0).shape == (frames.height, frames.width, 3) == (54, 96, 3)


def test_sound_is_cut_with_the_picture(three_shots):
    first, second, _ = clips_of(three_shots)
    assert first.audio.dtype == np.int16
    assert len(second.audio) == round(2.4 * 16_000)
    assert clicks_in(first.audio) == pytest.approx([0.5], abs=0.002)
    assert clicks_in(second.audio) == pytest.approx([0.25], abs=0.002)


def test_a_thumbnail_shows_three_moments(three_shots):
    import cv2

    strip = cv2.imdecode(np.frombuffer(clips_of(three_shots)[0].thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape == (96, 3 * 171, 3)


def test_film_shown_at_sixty_frames_a_second_has_repeated_frames_but_the_same_motion(tmp_path):
    film = scene(1, speed_px=2)
    [plain] = clips_of(video(tmp_path / "24.mp4", film, 3.0, fps=24))
    [pulled] = clips_of(video(tmp_path / "60.mp4", lambda k, w, h: film(k * 24 // 60, w, h), 3.0, fps=60))
    assert plain.repeated_frame_ratio == 0
    assert pulled.repeated_frame_ratio == pytest.approx(0.6, abs=0.02)
    assert pulled.motion == pytest.approx(plain.motion, rel=0.1)


def test_a_still_picture_does_not_move(tmp_path):
    [clip] = clips_of(video(tmp_path / "still.mp4", scene(1, speed_px=0), 3.0))
    assert clip.repeated_frame_ratio > 0.95
    assert clip.motion < 0.02


@pytest.mark.slow
def test_transnetv2_finds_the_same_cuts(three_shots):
    pytest.importorskip("torch", reason="TransNetV2 needs torch")
    if not weights.registry()["transnetv2"].is_cached():
        pytest.skip("the weights are not in the cache: `hallo3 weights pull transnetv2`")
    clips = clips_of(three_shots, SegmentConfig(backend="transnetv2"))
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 3), (3, 5.4), (5.4, 8)]


def real_clips() -> list[dict[str, str]]:
    if not (REAL / "manifest.csv").exists():
        return []
    with (REAL / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "/" not in row["file"]]
    return [row for row in rows if row["expected"] == "keep"]


@pytest.mark.skipif(not real_clips(), reason="the real clips are not here")
def test_no_talking_head_is_cut_in_two():
    for row in real_clips():
        if float(row["duration_s"]) > 10:  # the long ones: the slow test
            continue
        assert len(clips_of(REAL / row["file"])) == 1, row["file"]


@pytest.mark.slow
@pytest.mark.skipif(not real_clips(), reason="the real clips are not here")
def test_no_long_talking_head_is_cut_but_where_it_is_too_long():
    for row in real_clips():
        if float(row["duration_s"]) > 10:
            assert [clip.start_s for clip in clips_of(REAL / row["file"])] == [0, 14], row["file"]


@pytest.mark.skipif(not (REAL / "made_07.mp4").exists(), reason="the real clips are not here")
def test_three_speakers_before_the_same_wall_are_three_clips():
    clips = clips_of(REAL / "made_07.mp4")
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 3), (3, 6), (6, 9)]
