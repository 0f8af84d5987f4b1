"""The demo's source videos are what their truth says they are."""

import csv
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import media
from data_pipeline.clip import ANALYSIS_RATE, Reason
from data_pipeline.demo import DemoSource, make_sources
from data_pipeline.demo.performance import PORTRAITS
from data_pipeline.demo.puppet import OPEN_FACE_HEIGHTS
from data_pipeline.demo.recipes import LATE_S, recipes
from data_pipeline.demo.speech import TWO_CITIES, VISEMES, Utterance, mouth, say
from data_pipeline.models.alignment import Phone
from data_pipeline.models.centerface import CenterFace
from data_pipeline.models.face_mesh import CHIN, FOREHEAD, FaceMesh

FEW = [
    "astronaut.mp4",
    "no_audio.mp4",
    "silence.mp4",
    "music.mp4",
    "reencoded.mkv",
    "truncated.mp4",
    "text.mp4",
]
UPPER_LIP, LOWER_LIP = 13, 14  # the middle of the lips' inner edges


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The few sources that the fast tests look at."""
    place = tmp_path_factory.mktemp("demo")
    make_sources(place, only=FEW, workers=1)
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[DemoSource]]:
    """Every source."""
    place = tmp_path_factory.mktemp("demo")
    return place, make_sources(place)


def measured_apertures(path: Path, every: int = 4) -> np.ndarray:
    """(F / every,) the lips' gap in face heights, as the face mesh sees it in the video."""
    detector, mesh = CenterFace(longer_side_px=320), FaceMesh()
    gaps = []
    for index, frame in enumerate(media.read_frames(path)):
        if index % every:
            continue
        picture = frame.rgb()
        faces = detector.detect(picture)
        points = mesh.fit(picture, faces.boxes[0], faces.points[0, :2]).points
        height = np.linalg.norm(points[FOREHEAD] - points[CHIN])
        gaps.append(np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP]) / height)
    return np.array(gaps)


def truth_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / "truth" / f"{Path(name).stem}.npz") as stored:
        return dict(stored)


def aperture_agreement(folder: Path, name: str) -> float:
    """Correlation of the lips that are seen with the lips that were meant."""
    seen = measured_apertures(folder / name)
    return float(np.corrcoef(seen, truth_of(folder, name)["aperture"][::4])[0, 1])


def loudness_dbfs(sound: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean((sound / 32768.0) ** 2)) + 1e-12))


def test_the_set_has_five_speakers_to_keep_and_every_defect() -> None:
    sources = [recipe.source for recipe in recipes().values()]
    assert len({source.speaker for source in sources if source.expected == "keep" and source.speaker}) >= 5
    assert {source.reason for source in sources if source.expected == "reject"} == {
        Reason.MULTI_FACE,
        Reason.PROFILE,
        Reason.OFF_SYNC,
        Reason.NO_AUDIO,
        Reason.SILENT,
        Reason.NO_SPEECH,
        Reason.SCENE_CUT,
        Reason.FACE_TOO_SMALL,
        Reason.DARK,
        Reason.LOW_MOTION,
        Reason.DUPLICATE,
        Reason.CORRUPT,
    }


def test_a_source_is_rejected_exactly_when_it_has_a_reason() -> None:
    assert all((r.source.expected == "reject") == (r.source.reason is not None) for r in recipes().values())


def test_the_truth_is_written_beside_the_videos(folder: Path) -> None:
    with (folder / "truth.csv").open(encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == FEW
    assert rows["silence.mp4"]["reason"] == "silent"
    assert rows["astronaut.mp4"]["words"].startswith("it was the best of times")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_mouth_that_is_seen_follows_the_phones(folder: Path) -> None:
    assert aperture_agreement(folder, "astronaut.mp4") > 0.8


def test_the_truth_has_one_value_a_frame_and_phones_within_the_sound(folder: Path) -> None:
    truth = truth_of(folder, "astronaut.mp4")
    n_frames = sum(1 for _ in media.read_frames(folder / "astronaut.mp4"))
    assert all(len(truth[name]) == n_frames for name in ("aperture", "width", "blink", "yaw_deg"))
    assert np.all(truth["phone_end_s"] >= truth["phone_start_s"])
    assert truth["phone_end_s"].max() <= n_frames / truth["fps"] + 1e-6
    assert set(truth["phones"]) <= set(VISEMES)
    assert truth["aperture"].max() <= OPEN_FACE_HEIGHTS


def test_sound_and_picture_of_a_good_source_are_equally_long(folder: Path) -> None:
    info = media.probe(folder / "astronaut.mp4")
    assert info.video is not None
    assert info.video.fps == 25
    sound = media.read_audio(folder / "astronaut.mp4")
    assert len(sound) / ANALYSIS_RATE == pytest.approx(info.duration_s, abs=0.05)
    assert loudness_dbfs(sound) > -40


def test_defects_of_the_sound_are_in_the_file(folder: Path) -> None:
    assert media.probe(folder / "no_audio.mp4").audio is None
    assert loudness_dbfs(media.read_audio(folder / "silence.mp4")) < -70
    assert loudness_dbfs(media.read_audio(folder / "music.mp4")) > -30


@pytest.mark.parametrize("name", ["truncated.mp4", "text.mp4"])
def test_a_damaged_file_cannot_be_read(folder: Path, name: str) -> None:
    with pytest.raises(media.MediaError) as caught:
        media.probe(folder / name)
    assert caught.value.reason is Reason.CORRUPT


def test_a_duplicate_shows_the_same_pictures_in_another_file(folder: Path) -> None:
    original = [frame.luma(64) for frame in media.read_frames(folder / "astronaut.mp4")]
    again = [frame.luma(64) for frame in media.read_frames(folder / "reencoded.mkv")]
    assert (folder / "reencoded.mkv").read_bytes() != (folder / "astronaut.mp4").read_bytes()
    assert len(again) == len(original)
    assert np.corrcoef(np.ravel(original), np.ravel(again))[0, 1] > 0.99


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_sources(tmp_path / str(seed), seed, only=["silence.mp4"], workers=1)
    made = (folder / "silence.mp4").read_bytes()
    assert (tmp_path / "0" / "silence.mp4").read_bytes() == made
    assert (tmp_path / "1" / "silence.mp4").read_bytes() != made


def test_a_source_that_is_there_is_not_made_again(folder: Path) -> None:
    before = (folder / "astronaut.mp4").stat().st_mtime_ns
    make_sources(folder, only=FEW, workers=1)
    assert (folder / "astronaut.mp4").stat().st_mtime_ns == before


def test_lips_close_for_every_b_m_and_p_and_open_for_vowels() -> None:
    phones = (Phone("AA", 0.0, 0.1), Phone("M", 0.1, 0.18), Phone("AA", 0.18, 0.3), Phone("UW", 0.3, 0.5))
    opening, width = mouth(phones, np.array([0.05, 0.14, 0.24, 0.45]))
    assert opening[1] < 0.15 < 0.6 < min(opening[0], opening[2])
    assert width[3] < -0.8


def test_a_higher_voice_says_the_same_phones_in_less_time() -> None:
    from fractions import Fraction

    plain, high = say(TWO_CITIES[:1]), say(TWO_CITIES[:1], Fraction(9, 8))
    assert [phone.label for phone in high.phones] == [phone.label for phone in plain.phones]
    assert high.duration_s == pytest.approx(plain.duration_s * 8 / 9, abs=1e-3)
    assert high.phones[-1].end_s == pytest.approx(high.duration_s, abs=0.05)


def test_the_mouth_does_not_follow_the_loudness() -> None:
    utterance = say(TWO_CITIES[:1])
    opening, envelope = opening_and_envelope(utterance)
    speaking = envelope > np.percentile(envelope, 40)
    assert np.corrcoef(opening[speaking], envelope[speaking])[0, 1] < 0.6


def opening_and_envelope(utterance: Utterance) -> tuple[np.ndarray, np.ndarray]:
    """(T,) each, 25 a second."""
    n_frames = int(utterance.duration_s * 25)
    blocks = np.array_split(utterance.sound.astype(float), n_frames)
    envelope = np.array([np.sqrt(np.mean(block**2)) for block in blocks])
    return utterance.mouth((np.arange(n_frames) + 0.5) / 25)[0], envelope


def test_every_crop_lies_within_its_photograph() -> None:
    sizes = {"astronaut.png": (512, 512), "t1.jpg": (1280, 886)}
    for portrait in PORTRAITS.values():
        x0, y0, x1, y1 = portrait.crop
        width, height = sizes[portrait.photograph[1]]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height


@pytest.mark.slow
def test_every_expected_file_is_made_and_readable_unless_it_is_damaged(whole) -> None:
    folder, sources = whole
    for source in sources:
        if source.reason is not Reason.CORRUPT:
            assert media.probe(folder / source.name).video is not None


@pytest.mark.slow
def test_a_late_source_is_late_by_what_its_truth_says(whole) -> None:
    folder, sources = whole
    late = next(source for source in sources if source.name == "late_audio.mp4")
    assert late.sound_late_s == LATE_S
    heard = np.abs(media.read_audio(folder / late.name).astype(float))
    truth = truth_of(folder, late.name)
    speaking = np.zeros(len(heard))
    for label, start_s, end_s in zip(
        truth["phones"], truth["phone_start_s"], truth["phone_end_s"], strict=True
    ):
        if label != "SIL":
            speaking[int(start_s * ANALYSIS_RATE) : int(end_s * ANALYSIS_RATE)] = 1
    step = ANALYSIS_RATE // 50
    heard, speaking = (x[: len(x) // step * step].reshape(-1, step).mean(1) for x in (heard, speaking))
    lags = range(0, 60)
    best = max(lags, key=lambda lag: np.corrcoef(heard[lag:], speaking[: len(speaking) - lag])[0, 1])
    assert best / 50 == pytest.approx(LATE_S, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prêt à parler.mp4", "upright.mov", "guest_4.webm", "long.mp4"])
def test_the_mouth_of_every_speaker_follows_the_phones(whole, name: str) -> None:
    folder, _ = whole
    assert aperture_agreement(folder, name) > 0.6


@pytest.mark.slow
def test_formats_are_as_described(whole) -> None:
    folder, _ = whole
    upright = media.probe(folder / "upright.mov").video
    webm = media.probe(folder / "guest_4.webm")
    thirty = media.probe(folder / "prêt à parler.mp4").video
    assert upright is not None
    assert upright.height > upright.width
    assert upright.rotation_deg in (90, 270)
    assert webm.video is not None
    assert webm.audio is not None
    assert (webm.video.codec, webm.audio.codec) == ("vp9", "opus")
    assert thirty is not None
    assert thirty.fps == 30
    assert media.probe(folder / "long.mp4").duration_s > 25


@pytest.mark.slow
def test_a_still_source_does_not_move(whole) -> None:
    folder, _ = whole
    frames = [frame.luma(128).astype(int) for frame in media.read_frames(folder / "still.mp4")]
    assert np.abs(np.diff(frames, axis=0)).mean() < 0.05
