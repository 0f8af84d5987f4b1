"""One scorer, without Ray: what is wrong with a video is said, what was found is on the disk."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.benchmarks import BenchmarkItem
from evaluation.config import ClipConfig, MetricsConfig
from evaluation.found_store import FoundStore, Scored
from evaluation.look import Look, decoys_of, fitted, reader_of, resized, see
from evaluation.registry import make_metrics
from evaluation.scorer import MetricUnusable, Scorer, Shot
from tests.evaluation.benchmark_makers import METRICS, SIDE, grey_clip
from tests.evaluation.test_picture import astronaut
from training.clip_file import write_clip

CLIP = ClipConfig(width=SIDE, height=SIDE)
MODULE = "tests.evaluation.small_metrics"


def scorer_of(*names: str) -> Scorer:
    config = MetricsConfig(names=[*names])
    return Scorer(config, CLIP, {name: metric.protocol for name, metric in make_metrics(config).items()})


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    made = scorer_of(*METRICS)
    made.prepare()
    return made


@pytest.fixture
def item(tmp_path) -> BenchmarkItem:
    astronaut().resize((SIDE, SIDE)).save(tmp_path / "a.png")
    return BenchmarkItem("a", tmp_path / "a.png", grey_clip(tmp_path / "truth.mp4", 100), None)


def scored(scorer: Scorer, item: BenchmarkItem, video: Path) -> Scored:
    return scorer.score(Shot(Look(item, video), video.parent / "found"))


def test_what_was_found_is_on_the_disk_with_its_arrays(scorer, item, tmp_path) -> None:
    found = scored(scorer, item, grey_clip(tmp_path / "a.mp4", 120))
    store = FoundStore(tmp_path / "found")
    assert store.scored("a") == found
    assert found.values[METRICS[0]]["luminance"] == pytest.approx(120, abs=1.5)
    assert store.found("a", METRICS[1]).arrays["means"].shape == (10,)
    assert [*store.found("a", METRICS[0]).arrays] == ["luminance_curve"]
    assert store.found("b", METRICS[0]) is None


def test_a_clip_is_not_measured_twice_unless_its_video_is_another(scorer, item, tmp_path) -> None:
    first = scored(scorer, item, grey_clip(tmp_path / "a.mp4", 120))
    written = (tmp_path / "found" / "a.json").stat().st_mtime_ns
    assert scored(scorer, item, tmp_path / "a.mp4") == first
    assert (tmp_path / "found" / "a.json").stat().st_mtime_ns == written
    again = scored(scorer, item, grey_clip(tmp_path / "a.mp4", 150))
    assert again.values[METRICS[0]]["luminance"] == pytest.approx(150, abs=1.5)


def test_what_is_wrong_with_a_video_is_said(scorer, item, tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    given = {
        "fast.mp4": (
            grey_clip(tmp_path / "fast.mp4", 100, fps=30),
            "30 frames a second, and the protocol says 25",
        ),
        "wide.mp4": (grey_clip(tmp_path / "wide.mp4", 100, width=128), "128 x 64 px is another shape than"),
        "one.mp4": (grey_clip(tmp_path / "one.mp4", 100, frames=1), "too short"),
        "text.mp4": (tmp_path / "text.mp4", "not media"),
        "none.mp4": (tmp_path / "none.mp4", "No such file"),
    }
    for name, (video, words) in given.items():
        error = scored(scorer, item, video).error
        assert name in error
        assert words in error


def test_a_metric_that_cannot_score_a_clip_says_so_and_the_others_do(scorer, item, tmp_path) -> None:
    found = scored(scorer, item, grey_clip(tmp_path / "a.mp4", 0))
    assert found.words == f"{METRICS[0]}: a: is black"
    assert [*found.values] == [METRICS[1]]


def test_a_metric_with_a_bug_costs_its_own_figure_and_may_do_better_the_next_time(item, tmp_path) -> None:
    faulty = scorer_of(METRICS[0], f"{MODULE}:Faulty")
    faulty.prepare()
    found = scored(faulty, item, grey_clip(tmp_path / "a.mp4", 120))
    assert found.words == f"{MODULE}:Faulty: ZeroDivisionError: of frames by nothing"
    assert [*found.values] == [METRICS[0]]
    assert FoundStore(tmp_path / "found").scored("a") is None


def test_a_metric_without_its_weights_is_named() -> None:
    with pytest.raises(MetricUnusable, match=r"Weightless cannot be used: .* sha256 0123.* leave it out"):
        scorer_of(f"{MODULE}:Weightless").prepare()


def test_a_machine_that_would_take_another_network_measures_nothing() -> None:
    planned = {METRICS[0]: {"of": "all pixels", "network": "published"}}
    with pytest.raises(MetricUnusable, match=r"would measure it by .* and the evaluation is by .*published"):
        Scorer(MetricsConfig(names=[METRICS[0]]), CLIP, planned).prepare()


def test_frames_are_enlarged_to_the_protocol_s_size_and_the_face_is_where_it_was(tmp_path) -> None:
    small = np.asarray(astronaut().resize((128, 128)))
    write_clip(tmp_path / "a.mp4", [np.stack([small] * 4)], 25)
    astronaut().save(tmp_path / "a.png")
    grey_clip(tmp_path / "sound.mp4", 100)
    clip = ClipConfig(width=256, height=200)
    item = BenchmarkItem("a", tmp_path / "a.png", tmp_path / "sound.mp4", None)
    look = Look(item, tmp_path / "a.mp4", decoys=(tmp_path / "sound.mp4", tmp_path / "a.png"))
    seen = see(look, clip, reader_of(clip))
    assert seen.frames.shape == (4, 200, 200, 3)
    assert seen.seen.all()
    at = resized(seen, (400, 400))
    assert np.allclose(at.boxes, 2 * seen.boxes)
    assert np.allclose(at.meshes[0].points, 2 * seen.meshes[0].points)
    nose = seen.meshes[0].points[1, :2] / 200
    assert np.allclose(nose, [0.44, 0.24], atol=0.06)  # of the astronaut
    assert len(seen.sound) == 4 * 640  # the item's, as the video has none
    assert len(seen.decoys) == 1  # what cannot be read is none


def test_sizes_fit_within_the_clip_s_in_the_reference_s_shape() -> None:
    assert fitted(512, 512, ClipConfig()) == (512, 512)
    assert fitted(1080, 1920, ClipConfig()) == (288, 512)
    assert fitted(33, 20, ClipConfig(width=64, height=64)) == (64, 38)


def test_decoys_are_others_and_always_the_same_ones() -> None:
    items = [BenchmarkItem(str(n), Path("p.png"), Path(f"{n}.wav"), None) for n in range(5)]
    drawn = decoys_of(items, 3, seed=0)
    assert drawn == decoys_of(items, 3, seed=0) != decoys_of(items, 3, seed=1)
    for item, others in zip(items, drawn, strict=True):
        assert len(set(others)) == 3
        assert item.audio not in others
    assert decoys_of(items[:1], 3, seed=0) == [()]
    assert len(decoys_of(items[:3], 3, seed=0)[0]) == 2
