"""A demo's speaker, whose lips are known to follow the sound, seen from its file to the offset."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipeline import weights
from data_pipeline.demo import make_sources
from data_pipeline.models.sync_score import stretch
from data_pipeline.stages.sync import DECOY_FILE, DECOY_SPEECH, read_speech
from evaluation.metrics.lip_sync import LipSync
from evaluation.metrics.metric import CannotScore, SeenClip
from evaluation.seeing import ClipReader
from tests.data_pipeline.face_media import astronaut
from tests.data_pipeline.sync_media import REAL, delayed
from tests.evaluation.metrics.seen import seen_clip

CLIP = "astronaut.mp4"


@pytest.fixture(scope="module")
def lip_sync() -> LipSync:
    metric = LipSync()
    metric.setup()
    return metric


def other_speech() -> list[np.ndarray]:
    speech = read_speech(weights.fetch(DECOY_SPEECH) / DECOY_FILE)
    return [speech, stretch(speech, len(speech) // 2, len(speech))]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> SeenClip:
    folder = tmp_path_factory.mktemp("demo")
    make_sources(folder, only=[CLIP])
    return ClipReader(max_s=4).read(folder / CLIP, "demo", astronaut(), other_speech())


@pytest.mark.parametrize("late_ms", [-400, 160])
def test_the_offset_says_how_early_the_sound_is(lip_sync, clip, late_ms) -> None:
    found = lip_sync.measure(replace(clip, sound=delayed(clip.sound, late_ms)))
    assert found.values["lip_correlation_offset"] == pytest.approx(-late_ms / 40, abs=1)
    assert found.values["lip_correlation"] > 0.4
    assert found.values["lip_correlation_margin"] > 0.2
    lags, curve = found.arrays["lip_correlation_lags"], found.arrays["lip_correlation_curve"]
    assert lags[curve.argmax()] == found.values["lip_correlation_offset"]
    assert curve.max() == found.values["lip_correlation"]


def test_other_speech_has_no_margin_over_other_speech(lip_sync, clip) -> None:
    heard, other = clip.decoys
    found = lip_sync.measure(replace(clip, sound=heard[: len(clip.sound)], decoys=[clip.sound, other]))
    assert found.values["lip_correlation_margin"] < 0


def test_without_decoys_there_is_no_margin(lip_sync, clip) -> None:
    short = replace(clip, frames=clip.frames[:30], boxes=clip.boxes[:30], decoys=())
    assert set(lip_sync.measure(short).values) == {"lip_correlation", "lip_correlation_offset"}


def test_lips_that_no_mesh_fits_are_not_scored(lip_sync) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 224, 224, 3), dtype=np.uint8)
    with pytest.raises(CannotScore, match="a clip: the face mesh fits 0 of 30 crops"):
        lip_sync.measure(seen_clip(noise, (32, 0, 192, 160), sound=np.ones(30 * 640, np.int16)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videoretalking_face2.mp4", "latentsync_demo3.mp4", "made_06.webm"])
def test_real_speakers_at_25_30_and_24_fps_are_in_sync(lip_sync, name) -> None:
    if not REAL.exists():
        pytest.skip("the labelled real clips are not beside this project")
    found = lip_sync.measure(ClipReader().read(REAL / name, name, astronaut(), other_speech())).values
    assert abs(found["lip_correlation_offset"]) <= 3
    assert found["lip_correlation_margin"] > 0.1
