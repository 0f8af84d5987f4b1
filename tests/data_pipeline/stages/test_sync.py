"""The sync stage: what is compared, what is believed, and that the stored sound is moved the right way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import media
from data_pipeline.clip import ANALYSIS_RATE, Clip, FaceTrack, Word
from data_pipeline.config import CurationConfig, EncodeConfig, SyncConfig
from data_pipeline.curate import BackendMissing, prepare
from data_pipeline.demo import make_sources
from data_pipeline.demo.speech import RATE
from data_pipeline.demo.video import write_video
from data_pipeline.models.lip_correlation import LipCorrelation
from data_pipeline.models.sync_score import N_DECOYS, SyncScore, decoy_frames, stretch
from data_pipeline.stages.encode import encode
from data_pipeline.stages.face_crops import face_crops
from data_pipeline.stages.sync import Sync, compared, moved, shift_s, shifted
from tests.data_pipeline.sync_media import delayed, tracked_clips

CONFIG = SyncConfig()
SURE = SyncScore(offset_frames=-3.1, confidence=4.6, distance=0.5, margin=2.0)
WORDS = [Word("once", 0.02, 0.3, 0.9), Word("upon", 0.4, 0.6, 0.9), Word("time", 1.7, 1.96, 0.9)]


def a_face(**fields) -> Clip:
    track = FaceTrack(np.zeros(1), np.array([[0.2, 0.2, 0.6, 0.8]]), np.empty((1, 0, 2)))
    facts = {"start_s": 0.0, "end_s": 2.0, "audio": np.zeros(2 * ANALYSIS_RATE, np.int16), "track": track}
    return Clip("a.mp4", "ab" * 32, "0123456789abcdef", **facts | fields)


def never() -> Iterator[np.ndarray]:
    raise AssertionError("crops cost a decode and were not to be asked for")


# --- the correction


def test_sound_that_is_late_is_moved_to_be_earlier_by_as_much() -> None:
    assert shift_s(SURE, CONFIG) == -0.124
    assert shift_s(replace(SURE, offset_frames=3.1), CONFIG) == 0.124


@pytest.mark.parametrize(
    "score",
    [
        replace(SURE, confidence=2.9),
        replace(SURE, margin=0.4),
        replace(SURE, offset_frames=1.9),
        replace(SURE, offset_frames=5.1),
    ],
    ids=["not sure", "other speech fits as well", "within the error", "too much"],
)
def test_nothing_is_moved_for_an_offset_that_is(score) -> None:
    assert shift_s(score, CONFIG) == 0.0


def test_an_offset_without_decoys_to_compare_with_is_believed() -> None:
    assert shift_s(replace(SURE, margin=None), CONFIG) == -0.124


def test_words_move_with_the_sound_and_those_that_leave_are_dropped() -> None:
    assert [(word.text, word.start_s, word.end_s) for word in moved(WORDS, -0.2, 2.0)] == [
        ("upon", 0.2, 0.4),
        ("time", 1.5, 1.76),
    ]
    assert [(word.text, word.start_s, word.end_s) for word in moved(WORDS, 0.12, 2.0)] == [
        ("once", 0.14, 0.42),
        ("upon", 0.52, 0.72),
        ("time", 1.82, 2.0),
    ]


def test_a_dropped_word_leaves_the_transcript_too() -> None:
    clip = shifted(a_face(words=WORDS, n_words=3, transcript="Once upon, time."), -0.2)
    assert (clip.n_words, clip.transcript, clip.sync_shift_applied_s) == (2, "upon time", -0.2)
    clip = shifted(a_face(words=WORDS, n_words=3, transcript="Once upon, time."), 0.12)
    assert (clip.n_words, clip.transcript) == (3, "Once upon, time.")


# --- what is compared


def test_decoys_of_a_clip_are_always_the_same_and_begin_all_over_the_speech() -> None:
    first = decoy_frames("0123456789abcdef", 1000 * 640)
    assert len(first) == N_DECOYS
    assert np.diff(np.sort(first)).tolist() == pytest.approx([200] * (N_DECOYS - 1), abs=1)
    assert first == decoy_frames("0123456789abcdef", 1000 * 640)
    assert first != decoy_frames("1123456789abcdee", 1000 * 640)


def test_a_decoy_goes_on_where_the_speech_begins() -> None:
    assert stretch(np.arange(5), 3, 9).tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"audio": None},
        {"audio": np.zeros(100, np.int16)},
        {"track": None},
        {"track": FaceTrack(np.zeros(1), np.full((1, 4), np.nan), np.empty((1, 0, 2)))},
    ],
    ids=["no sound", "hardly any sound", "no track", "no face in the track"],
)
def test_a_clip_without_face_or_sound_is_not_decoded_again(fields) -> None:
    assert compared(a_face(**fields), never, LipCorrelation(np.zeros(640, np.int16)), 640) is None


def test_crops_that_show_no_face_leave_sync_unmeasured_and_are_no_failure() -> None:
    stage = Sync(CONFIG)
    stage.setup()
    clip = stage(a_face(words=WORDS), lambda: [np.full((25, 224, 224, 3), 110, np.uint8)] * 2)
    assert (clip.sync_backend, clip.sync_offset_frames) == ("lip_correlation", None)
    assert (clip.sync_shift_applied_s, clip.words) == (0.0, WORDS)


def test_either_backend_is_asked_for_the_same_clip_in_the_same_way() -> None:
    pytest.importorskip("torch", reason="SyncNet needs torch")
    from data_pipeline.models.syncnet import SyncNet
    from data_pipeline.models.syncnet_scorer import SyncNetScorer

    random = np.random.default_rng(0)
    speech = random.integers(-3000, 3000, 4 * ANALYSIS_RATE).astype(np.int16)
    faces = random.integers(0, 255, (25, 224, 224, 3)).astype(np.uint8)
    backend = SyncNetScorer(SyncNet(), speech)
    score = compared(a_face(audio=speech[:ANALYSIS_RATE]), lambda: [faces], backend, len(speech))
    assert score is not None
    assert score.offset_frames == int(score.offset_frames)
    assert score.margin is not None
    assert score.margin <= score.confidence


def test_syncnet_without_torch_is_refused_before_anything_starts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("data_pipeline.curate.find_spec", lambda name: None if name == "torch" else name)
    video = write_silent(tmp_path / "a.mp4")
    config = CurationConfig(
        sources=str(video), output=str(tmp_path / "dataset"), sync=SyncConfig(backend="syncnet")
    )
    with pytest.raises(BackendMissing, match=r"sync\.backend: syncnet runs on torch"):
        prepare(config)


def write_silent(path: Path) -> Path:
    write_video(path, [np.zeros((64, 64, 3), np.uint8)] * 5, 25, None, RATE)
    return path


# --- all of it, through real media


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("speaker")
    make_sources(folder, only=["astronaut.mp4"], workers=1)
    return folder / "astronaut.mp4"


@pytest.mark.slow
@pytest.mark.parametrize("late_ms", [-160, 120])
def test_the_stored_sample_is_in_sync_whichever_way_the_source_was_off(
    speaker: Path, tmp_path: Path, late_ms: int
) -> None:
    source = with_sound_moved(speaker, tmp_path / "moved.mp4", late_ms)
    clip = next(tracked_clips(source))
    stage = Sync(CONFIG)
    stage.setup()
    clip = stage(clip, lambda: face_crops(clip, source, media.MAX_PIXELS))
    assert clip.sync_offset_frames == pytest.approx(-late_ms / 40, abs=1)
    assert clip.sync_shift_applied_s == pytest.approx(-late_ms / 1000, abs=0.04)
    stored = encode(clip, source, tmp_path, EncodeConfig(width=256, height=256))
    sample = with_its_sound(tmp_path, stored)
    again = stage(sample, lambda: face_crops(sample, Path(sample.source_uri), media.MAX_PIXELS))
    assert again.sync_offset_frames == pytest.approx(0, abs=1)
    assert len(sample.audio) == round(stored.n_frames * ANALYSIS_RATE / stored.fps)


def with_sound_moved(video: Path, target: Path, late_ms: int) -> Path:
    """The video again, with its sound that much later."""
    samples = delayed(media.read_audio(video, rate=RATE), late_ms, RATE)
    frames = (frame.rgb() for frame in media.read_frames(video))
    write_video(target, frames, 25, samples, RATE)
    return target


def with_its_sound(folder: Path, stored: Clip) -> Clip:
    """The sample's pictures as a clip of their own, with the sample's sound."""
    clip = next(tracked_clips_of(folder / f"{stored.clip_id}.mp4"))
    clip.audio = media.read_audio(folder / f"{stored.clip_id}.flac")
    return clip


def tracked_clips_of(video: Path) -> Iterator[Clip]:
    """A silent video's clips: it is given a sound stream first, for a source without one gives none."""
    target = video.with_suffix(".sound.mp4")
    frames = [frame.rgb() for frame in media.read_frames(video)]
    write_video(target, frames, 25, np.zeros(len(frames) * RATE // 25, np.int16), RATE)
    return tracked_clips(target)
