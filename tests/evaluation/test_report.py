"""The report in a real browser: it opens from disk, players play, tables sort, at two widths."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from evaluation.comparison import Change
from evaluation.found_store import FoundStore, Scored
from evaluation.gate import Broken, parse_rule
from evaluation.metrics.metric import Figure
from evaluation.report import Compared, interval_text, number_text, signed_text, write_report
from evaluation.report_clips import distances_of, scatters
from evaluation.results import BenchmarkResult, Beside, Evaluation
from tests.browser import chromium, visit
from tests.evaluation.benchmark_makers import grey_clip
from training.metrics import MetricsLog

NAN = math.nan
TITLE = "<hdtf & more>"
RNG = np.random.default_rng(0)


def evaluation(folder: Path) -> Evaluation:
    """Twelve clips of one benchmark, two of another; the last one could not be made."""
    rows = []
    with MetricsLog(folder / "run" / "metrics.jsonl") as log:
        for step in range(1, 40):
            log.write(step, "train", 1e9 + step, {"loss": 1 / step})
    found, real = FoundStore(folder / "out" / "found"), FoundStore(folder / "out" / "real")
    for place in range(14):
        name, benchmark = f"clip-{place:02d}", TITLE if place < 12 else "wild"
        sync = {"generated": 5 + 0.1 * place, "real": 7 + 0.05 * (place % 5)}
        row = {"benchmark": benchmark, "name": name, "error": None, "video": None, "truth": None}
        row |= {"video_sha256": None, "fact.language": "en"}
        if place < 13:
            row |= {"video": f"videos/{name}.mp4", "truth": f"real/{name}.mp4", "video_sha256": "1"}
            grey_clip(folder / "out" / f"videos/{name}.mp4", 100 + place, frames=4)
            grey_clip(folder / "out" / f"real/{name}.mp4", 100, frames=4)
            row |= {f"{side}.sync_c": value for side, value in sync.items()}
            for store in (found, real):
                curve = RNG.normal(size=31).cumsum().astype(np.float32)
                arrays = {"sync_curve": curve, "sync_shifts": np.arange(15, -16, -1)}
                store.write(name, Scored("1", {"sync": {"sync_c": 1.0}}), {"sync": arrays})
        else:
            row["error"] = "clip-13.png: no face is seen in the picture of <64> x 64 px"
        rows.append(row)
    figures = Beside(
        [Figure("fvd", 512.3, 480, 560, 12), Figure("sync_c", 5.61, 5.2, 6, 12)],
        [Figure("fvd", 90.1, NAN, NAN, 6), Figure("sync_c", 7.1, 7, 7.2, 12)],
    )
    few = Beside([Figure("fvd", NAN, NAN, NAN, 0), Figure("sync_c", 6.2, NAN, NAN, 1)], [])
    protocol = {"benchmark": {"sha256": "ab" * 32}, "metrics": {"fvd": {"network": {"sha256": "cd" * 32}}}}
    groups = {"language": {"en": figures, "de": few}}
    benchmarks = [
        BenchmarkResult(
            TITLE, protocol, "12" * 32, {}, 14, 12, {"x": "missing"}, figures, groups, "found", "real"
        ),
        BenchmarkResult("wild", protocol, "34" * 32, {}, 2, 1, {}, few, {}, "found", "real"),
    ]
    about = {"path": "run/export", "run": str(folder / "run"), "sha256": "ef" * 32, "step": 2000}
    about["datasets"] = [{"name": "talking", "version": 3, "digest": "0123"}]
    return Evaluation(about, ["sync"], benchmarks, rows)


def compared() -> Compared:
    rules = [parse_rule("fvd > +5%"), parse_rule("sync_c < -0.3")]
    fvd = Change(TITLE, "fvd", 400, 512.3, 20, 210, 12, False)
    sync = Change(TITLE, "sync_c", 5.5, 5.61, -0.02, 0.3, 12, True)
    return Compared("before", [fvd, sync], rules, [Broken(rules[0], fvd)])


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(evaluation(folder), folder / "out", 3, compared())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("width", [390, 1440])
def test_it_opens_from_disk_without_errors_and_fits(page, browser, width) -> None:
    with visit(browser, page, width) as visited:
        assert visited.errors == []
        assert visited.overflow_px() <= 0
        assert all(url.startswith("file:") and url.endswith(".mp4") for url in visited.requests)
        assert visited.lowest_contrast()[0] >= 4.5
        text = visited.page.inner_text("main")
        for words in ("The gate fails: 2 rules against before", "fvd > +5%: ", "512.3", "[480, 560] n=12"):
            assert words in text
        assert "no face is seen in the picture of <64> x 64 px" in text
        assert "metrics.fvd.network.sha256" in text
        assert visited.page.locator("h3", has_text=f"{TITLE}: best").count() == 1


def test_players_play_ground_truth_beside_generated_and_the_folder_may_move(page, browser, tmp_path) -> None:
    moved = page.parent.rename(tmp_path / "moved")
    try:
        with visit(browser, moved / page.name, 1440) as visited:
            videos = visited.page.locator("video")
            assert videos.count() == 2 * (3 + 3 + 1)
            # Debian's Chromium has H.264; a size is known once it is read.
            visited.page.wait_for_function(
                "[...document.querySelectorAll('video')].every((video) => video.videoWidth === 64)"
            )
            titles = [videos.nth(place).get_attribute("title") for place in (0, 1)]
            assert titles == ["ground truth of clip-11", "generated of clip-11"]
    finally:
        moved.rename(page.parent)


def test_a_click_on_a_heading_sorts_the_table(page, browser) -> None:
    with visit(browser, page, 1440) as visited:
        table = visited.page.locator("#all table")
        heading = table.locator("thead th button").nth(2)
        heading.click()
        assert table.locator("tbody th").first.inner_text() == "clip-12"
        heading.click()
        assert heading.locator("xpath=..").get_attribute("aria-sort") == "ascending"
        names = table.locator("tbody th").all_inner_texts()
        assert names[:2] == ["clip-13", "clip-00"]  # what is not known is least


def test_best_is_what_is_nearest_to_its_real_clip() -> None:
    rows = [
        {"name": name, "generated.a": made, "real.a": real}
        for name, made, real in (("near", 10.5, 10.0), ("far", 20.0, 12.0), ("none", None, 14.0))
    ]
    found = distances_of(rows)
    assert found == {"near": 0.5, "far": 8.0}  # the spread of 10 and 12 is 1
    (plot,) = scatters(rows)
    assert [point.name for point in plot.points] == ["far", "near"]
    far, near = plot.points
    assert far.y < near.y  # upwards
    assert far.x > near.x


def test_numbers_as_a_person_reads_them() -> None:
    assert [number_text(value) for value in (None, NAN, 0.12345, -3.0, 12345.6)] == [
        "–",
        "–",
        "0.1235",
        "−3",
        "12,346",
    ]
    assert (signed_text(2.0), signed_text(-2.0), signed_text(0.0)) == ("+2", "−2", "0")
    assert interval_text(Figure("a", 1, NAN, NAN, 1)) == ""
