"""Duplicates from files to groups: the demo's speakers encoded again in four ways, and real clips."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline import media
from data_pipeline.clip import Clip
from data_pipeline.config import CurationConfig, load_config
from data_pipeline.demo import make_sources
from data_pipeline.demo.video import write_video
from data_pipeline.duplicates import with_groups
from data_pipeline.ledger import MEASUREMENTS, measurement_row
from data_pipeline.media import MediaError
from data_pipeline.sources import VIDEO_EXTENSIONS
from data_pipeline.stages.faces import Faces
from data_pipeline.stages.fingerprint import fingerprint
from data_pipeline.stages.segment import probe_source, segment_alive
from tests.data_pipeline.face_media import REAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RATE = 48_000
SPEAKERS = ["astronaut.mp4", "upright.mov", "slightly_late.mp4"]  # the last two are one man with other words
AGAIN = {
    "smaller.mkv": {"max_px": 320, "video_codec": "mpeg4", "audio_codec": "libmp3lame"},
    "cropped at 30.mp4": {"crop": 0.12, "fps": 30},
    "trimmed at 24.webm": {"trim_s": 0.3, "fps": 24, "video_codec": "libvpx-vp9", "audio_codec": "libopus"},
    "cropped, trimmed and louder.mp4": {"crop": 0.15, "trim_s": 0.3, "gain": 2.0},
}


def encode_again(
    source: Path,
    target: Path,
    *,
    crop: float = 0.0,
    max_px: int = 4096,
    fps: int | None = None,
    trim_s: float = 0.0,
    gain: float = 1.0,
    **codecs: str,
) -> None:
    """What `source` shows from `trim_s` on, without `crop` of its height and width, at `fps`."""
    frames = [(frame.time_s, frame.rgb(max_px)) for frame in media.read_frames(source)]
    times_s = np.array([time_s for time_s, _ in frames])
    fps = fps or round(1 / float(np.median(np.diff(times_s))))
    shown = np.searchsorted(times_s, np.arange(trim_s, times_s[-1], 1 / fps) + 1e-6) - 1
    sound = np.clip(media.read_audio(source, trim_s, rate=RATE) * gain, -32768, 32767).astype(np.int16)
    sound = np.pad(sound, (0, max(0, len(shown) * RATE // fps + RATE - len(sound))))

    def cropped(picture: np.ndarray) -> np.ndarray:
        height, width = (round(side * (1 - crop)) // 2 * 2 for side in picture.shape[:2])
        top, left = picture.shape[0] - height, (picture.shape[1] - width) // 3
        return np.ascontiguousarray(picture[top // 2 :, left:][:height, :width])

    pictures = (cropped(frames[max(index, 0)][1]) for index in shown)
    write_video(target, pictures, fps, sound, RATE, **codecs)


@pytest.fixture(scope="module")
def faces() -> Faces:
    stage = Faces(config().faces)
    stage.setup()
    return stage


def config() -> CurationConfig:
    return load_config("talking_head", ["sources=none", "output=none"])


def groups_of(files: list[Path], faces: Faces) -> dict[str, set[str | None]]:
    """The groups of each file's clips, by its name, as the stages and `duplicates` find them."""
    clips = [clip for path in files for clip in clips_of(path, faces)]
    rows = pa.Table.from_pylist([measurement_row(clip, "", True) for clip in clips], MEASUREMENTS)
    groups = with_groups(rows, config().duplicates)["duplicate_group"].to_pylist()
    found: dict[str, set[str | None]] = {}
    for clip, group in zip(clips, groups, strict=True):
        found.setdefault(Path(clip.source_uri).name, set()).add(group)
    return found


def clips_of(path: Path, faces: Faces) -> list[Clip]:
    max_pixels = config().limits.max_pixels
    source = Clip(str(path), source_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    try:
        probed = probe_source(path, source, max_pixels)
        pieces = [p for p in segment_alive(path, probed, config().segment, max_pixels) if p and p.clip_id]
    except MediaError:
        return []
    return [fingerprint(faces(piece)) for piece in pieces]


def test_a_speaker_encoded_again_is_one_group_and_other_takes_are_others(faces, tmp_path: Path) -> None:
    make_sources(tmp_path, only=SPEAKERS)
    files = [tmp_path / name for name in SPEAKERS]
    for source in list(files):
        for ending, how in AGAIN.items():
            files.append(tmp_path / f"{source.stem}, {ending}")
            encode_again(source, files[-1], **how)
    found = groups_of(files, faces)
    group_of_speaker = {}
    for source in SPEAKERS:
        copies = [name for name in found if name.startswith(Path(source).stem)]
        assert len(copies) == 1 + len(AGAIN)
        (group_of_speaker[source],) = set.union(*(found[name] for name in copies))
    assert None not in group_of_speaker.values()
    assert len(set(group_of_speaker.values())) == len(SPEAKERS)


@pytest.mark.skipif(not REAL.exists(), reason="the real clips are not beside this project")
def test_among_the_real_clips_there_is_the_one_pair_that_was_made(faces) -> None:
    files = sorted(path for path in REAL.iterdir() if path.suffix[1:].lower() in VIDEO_EXTENSIONS)
    found = groups_of(files, faces)
    assert found["made_06.webm"] == found["videoretalking_face2.mp4"] != {None}
    assert {name for name, groups in found.items() if groups != {None}} == {
        "made_06.webm",
        "videoretalking_face2.mp4",
    }
