"""Clips for tests of sync: a demo's or a real one's lips, with sound that can be shifted."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import media, weights
from data_pipeline.clip import ANALYSIS_RATE, Clip
from data_pipeline.config import FacesConfig, SegmentConfig
from data_pipeline.demo import make_sources
from data_pipeline.models.lip_correlation import score_lips
from data_pipeline.models.lip_shape import LipShape
from data_pipeline.models.sync_score import SAMPLES_PER_FRAME, SyncScore, decoy_frames, stretch
from data_pipeline.stages.face_crops import face_crops
from data_pipeline.stages.faces import Faces
from data_pipeline.stages.segment import probe_source, segment
from data_pipeline.stages.sync import DECOY_FILE, DECOY_SPEECH, read_speech

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
IN_SYNC = (
    *("videoretalking_face2.mp4", "videoretalking_face4.mp4", "latentsync_demo3.mp4", "grid_lbbc2a.mpg"),
    *("grid_lwbsza.mpg", "dreamtalk_out_english.mp4", "pcavs_681100216.mp4", "anitalker_statue.mp4"),
    *("made_06.webm", "made_07.mp4"),
)
"""Of shared/real, those whose labels say that the sound is within 80 ms of the lips."""
NEIGHBOURS_S = 1.0


@dataclass(frozen=True)
class LipsAndSound:
    """A clip's lips, and its sound with a second more on either side."""

    clip_id: str
    lips: np.ndarray
    wide: np.ndarray

    def sound(self, late_ms: int) -> np.ndarray:
        """(S,) int16, heard `late_ms` later than it was recorded."""
        start = round((NEIGHBOURS_S - late_ms / 1000) * ANALYSIS_RATE)
        return self.wide[start : len(self.wide) - round(2 * NEIGHBOURS_S * ANALYSIS_RATE) + start]


def delayed(sound: np.ndarray, late_ms: int, rate: int = ANALYSIS_RATE) -> np.ndarray:
    """(S,) `sound` heard later, silence before it; earlier where negative."""
    shift = round(late_ms * rate / 1000)
    moved = np.zeros_like(sound)
    moved[max(shift, 0) : len(sound) + min(shift, 0)] = sound[max(-shift, 0) : len(sound) - max(shift, 0)]
    return moved


def scored(clip: LipsAndSound, late_ms: int) -> SyncScore:
    """The score of the clip with its sound that much later."""
    sound = clip.sound(late_ms)
    other = _other_speech()
    starts = (frame * SAMPLES_PER_FRAME for frame in decoy_frames(clip.clip_id, len(other)))
    return score_lips(clip.lips, sound, [stretch(other, start, len(sound)) for start in starts])


def demo_clips(folder: Path, names: list[str]) -> Iterator[tuple[str, LipsAndSound]]:
    """The clips of some of the demo's sources."""
    make_sources(folder, only=names)
    for name in names:
        yield from ((name, clip) for clip in _clips(folder / name))


def real_clips() -> Iterator[tuple[str, LipsAndSound]]:
    """The first clip of each real video that is known to be in sync, or the test is skipped."""
    if not REAL.exists():
        pytest.skip("the labelled real clips are not beside this project")
    for name in IN_SYNC:
        yield name, next(_clips(REAL / name))


def tracked_clips(source: Path) -> Iterator[Clip]:
    """The clips of a video, with the face's track and the sound."""
    found = probe_source(source, Clip(str(source), source_sha256="ab" * 32))
    return map(_faces(), segment(source, found, SegmentConfig(), media.MAX_PIXELS))


def _clips(source: Path) -> Iterator[LipsAndSound]:
    for clip in tracked_clips(source):
        crops = np.concatenate(list(face_crops(clip, source, media.MAX_PIXELS)))
        start_s, end_s = float(clip.start_s or 0), float(clip.end_s or 0)
        wide = media.read_audio(source, start_s - NEIGHBOURS_S, end_s + NEIGHBOURS_S)
        yield LipsAndSound(str(clip.clip_id), LipShape().measure(crops), wide)


@cache
def _faces() -> Faces:
    stage = Faces(FacesConfig())
    stage.setup()
    return stage


@cache
def _other_speech() -> np.ndarray:
    return read_speech(weights.fetch(DECOY_SPEECH) / DECOY_FILE)
