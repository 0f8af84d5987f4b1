"""A run's report shows what the run's files say, at any time, and needs nothing but itself."""

import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.browser import chromium, visit
from training.checkpoint_folder import Contents, TrainState, begun, finish, partial_of
from training.clip_file import write_clip
from training.config import TrainConfig
from training.curves import HEIGHT, POINTS, WIDTH, Chart, Line, smoothed
from training.history import History
from training.metrics import MetricsLog, read_metrics
from training.previews import write_sheet
from training.report import write_report
from training.run_folder import RunFolderError, save
from training.takes import takes

QUANTILES = {f"loss_0.{tenth}": 0.1 * tenth for tenth in range(1, 10)}


def config_of(run: Path, **changes: object) -> TrainConfig:
    values = {"dataset": "/data/heads", "output": str(run), "phase": "audio", "model": "tiny"}
    return TrainConfig.model_validate(values | {"max_steps": 40} | changes)


def make_run(run: Path, steps: int = 40, **changes: object) -> Path:
    """A run of so many steps, held against what is held out every tenth, gone on with from step 20."""
    run.mkdir(parents=True)
    save(config_of(run, **changes))
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write(0, "event", 1e9, {"event": "begins"})
        for step in range(1, steps + 1):
            if step == 21:
                log.write(20, "event", 1e9 + 205, {"event": "goes on from checkpoints/step-00000020"})
            log.write(
                step,
                "train",
                1e9 + 10 * step,
                {
                    "loss": math.nan if step == 30 else 1 / step,
                    "loss_max": 1.0,
                    "samples_per_s": 0.8,
                    "data_wait_share": 0.25,
                    "step_s": 10.0,
                    "peak_memory_gb": 61.5,
                    "gradient_norm": 0.1,
                    "learning_rate": 1e-5,
                    "bad_samples": (step >= 5) + 2 * (step >= 35),
                    "skipped_steps": int(step >= 30),
                },
            )
            if step % 10 == 0:
                log.write(step, "held_out", 1e9 + 10 * step + 1, {"loss": 5 / step} | QUANTILES)
    return run


def add_clips(run: Path, steps: tuple[int, ...], clip: str = "aa11") -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    for step in steps:
        folder = run / "samples" / f"step-{step:08d}"
        write_clip(folder / f"{clip}.mp4", [frames], 25, np.zeros(3200, np.float32))
        write_sheet(folder / f"{clip}.jpg", frames, frames)


def add_checkpoint(run: Path, step: int) -> None:
    data = {"name": "heads", "uri": "/data/heads", "version": 3, "digest": "0123abcd", "weight": 1.0}
    data |= {"clips": 12, "windows": 34, "stored": {}}
    held_out = {"clips": 2, "windows": 5}
    state = TrainState(step, 8 * step, samples={"datasets": [data], "held_out": held_out})
    final = run / "checkpoints" / f"step-{step:08d}"
    partial = partial_of(final)
    begun(partial, final)
    finish(partial, final, Contents(state, step, False, 1, 2, {}, {}, {}))


class Elements(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes.get(attribute) or "" for name, attributes in self.found if name == tag]


def text_of(page: Path) -> str:
    """What is written on the page, without markup, on one line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_a_run_that_has_not_begun_has_a_report_that_says_so(tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save(config_of(run))
    text = text_of(write_report(run))
    for words in ("run nothing yet", "No step is done yet.", "Nothing held out has been measured yet."):
        assert words in text
    assert "No clip has been made yet." in text
    assert "Nothing has happened yet." in text


def test_a_folder_without_anything_has_a_report_too(tmp_path) -> None:
    assert "The folder has no config.yaml" in text_of(write_report(tmp_path))


def test_a_run_half_way_says_how_far_it_is_and_what_it_is(tmp_path) -> None:
    run = make_run(tmp_path / "run", steps=25, deepspeed={"zero_stage": 3})
    add_checkpoint(run, 20)
    text = text_of(write_report(run))
    assert "run at step 25" in text
    assert "Step 25 of 40" in text
    assert "Held-out loss 0.25 lowest: 0.25 at step 20" in text
    assert "Time in steps 0:05 h" in text
    assert "25% waiting for data" in text
    assert "ZeRO stage 3" in text
    assert "heads, version 3 (0123abcd), weight 1: 12 clips, 34 windows" in text
    assert "held out 5 windows of 2 clips" in text


def test_a_run_that_is_over_is_done(tmp_path) -> None:
    assert "run done" in text_of(write_report(make_run(tmp_path / "run")))


def test_what_happened_is_told_the_last_first(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    history = History(list(read_metrics(run / "metrics.jsonl")))
    assert [(one.step, one.words) for one in history.happened] == [
        (35, "2 samples were broken and weighed nothing, up to step 36"),
        (30, "1 step was left out: no finite gradient"),
        (20, "goes on from checkpoints/step-00000020"),
        (5, "1 sample was broken and weighed nothing"),
        (0, "begins"),
    ]


def test_what_ended_a_run_is_on_the_page_as_text(tmp_path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    (run / "error.txt").write_text("rank 1: <b>no</b> memory")
    page = write_report(run).read_text()
    assert "rank 1: &lt;b&gt;no&lt;/b&gt; memory" in page


def test_a_hostile_name_adds_no_element_and_no_handler(tmp_path) -> None:
    run = make_run(tmp_path / "a<img src=x onerror=alert(1)>", steps=3)
    add_clips(run, (3,), clip="<b onclick=x>")
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write(3, "event", 1e9, {"event": "</script><script>alert(1)</script>"})
    elements = Elements(write_report(run).read_text())
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert len(elements.values("script", "src")) == 1


def test_a_run_that_began_from_anothers_export_links_its_report(tmp_path) -> None:
    first = make_run(tmp_path / "identity", steps=3, phase="identity")
    write_report(first)
    second = make_run(tmp_path / "audio", steps=3, start_from=str(first / "export"))
    page = write_report(second)
    assert "../identity/report.html" in Elements(page.read_text()).values("a", "href")
    assert "Begun from the export of identity" in text_of(page)


def test_clips_and_pictures_are_in_the_page(tmp_path) -> None:
    run = make_run(tmp_path / "run", steps=30)
    add_clips(run, (10, 20, 30))
    elements = Elements(write_report(run).read_text())
    (video,) = elements.values("video", "src")
    assert video.startswith("data:video/mp4;base64,")
    pictures = elements.values("img", "src")
    assert len(pictures) == 3
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in pictures)


def test_clips_that_do_not_fit_are_linked_the_newest_pictures_fit_first(tmp_path) -> None:
    add_clips(tmp_path, (10, 20))
    newest = tmp_path / "samples" / "step-00000020"
    (take,) = takes(tmp_path, media_bytes=(newest / "aa11.jpg").stat().st_size)
    assert take.step == 20
    assert take.sheet is not None
    assert take.sheet.data_uri is not None
    assert take.video is not None
    assert (take.video.link, take.video.data_uri) == ("samples/step-00000020/aa11.mp4", None)
    assert [(earlier.step, earlier.data_uri) for earlier in take.earlier] == [(10, None)]


def test_nothing_on_the_page_points_outside_the_run(tmp_path) -> None:
    run = make_run(tmp_path / "run", steps=30)
    add_clips(run, (10, 30))
    for tag, attributes in Elements(write_report(run).read_text()).found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:", "samples/")), (tag, address)


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    page = write_report(run)
    before = page.read_bytes()
    (run / "config.yaml").write_text("dataset: [")
    with pytest.raises(RunFolderError):
        write_report(run)
    assert page.read_bytes() == before
    assert not list(run.glob(".report*"))


# Curves.


def line_of(values: np.ndarray, look: str = "main") -> Line:
    return Line("loss", np.arange(1, len(values) + 1), values, look)


def places(path: str) -> Iterator[tuple[float, float]]:
    x = 0.0
    for command, numbers in re.findall(r"([MLV])([^MLV]+)", path):
        given = [float(number) for number in numbers.split()]
        if command != "V":
            x = given[0]
        yield x, given[-1]


def test_a_line_fills_its_box() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.4, 100)
    found = list(places(Chart("loss", [line_of(values)]).path(line_of(values))))
    assert (found[0][0], found[-1][0]) == (0, WIDTH)
    assert 0 < min(y for _, y in found) < 0.1 * HEIGHT
    assert 0.9 * HEIGHT < max(y for _, y in found) < HEIGHT


def test_a_single_spike_among_many_steps_is_drawn() -> None:
    values = np.full(100_000, 0.5)
    values[61_234] = 0.9
    line = line_of(values, "raw")
    chart = Chart("loss", [line], from_zero=True)
    found = list(places(chart.path(line)))
    assert len(found) <= 2 * POINTS
    spike = min(found, key=lambda place: place[1])
    assert spike[0] == pytest.approx(612, abs=3)
    assert spike[1] == pytest.approx(chart.y(0.9), rel=1e-3)


def test_a_wide_range_is_drawn_by_its_logarithm_with_ticks_inside() -> None:
    chart = Chart("loss", [line_of(np.geomspace(1.0, 1e-3, 50))])
    assert chart.log
    low, high = chart.range
    assert len(chart.y_ticks) >= 3
    assert all(low <= tick <= high for tick in chart.y_ticks)
    assert chart.y(0.1) - chart.y(1.0) == pytest.approx(chart.y(0.01) - chart.y(0.1), abs=0.01)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0, 0.0], [math.nan, 0.3]])
def test_few_and_equal_values_have_a_curve(values) -> None:
    line = line_of(np.array(values))
    chart = Chart("loss", [line])
    assert chart.path(line).startswith("M")
    assert "nan" not in chart.path(line)
    assert chart.y_ticks


def test_what_was_never_finite_is_no_chart() -> None:
    assert Chart("loss", [line_of(np.full(5, math.nan))]).is_empty


def test_a_mean_of_equal_values_is_that_value_up_to_the_ends_and_around_what_is_lost() -> None:
    values = np.full(500, 0.7)
    values[[100, 101, 499]] = math.nan
    found = smoothed(values)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    np.testing.assert_allclose(found[np.isfinite(found)], 0.7, rtol=1e-9)


def test_a_mean_takes_noise_away_and_keeps_the_trend() -> None:
    trend = np.linspace(1.0, 0.2, 4000)
    noisy = trend + np.random.default_rng(0).normal(0, 0.1, 4000)
    inner = slice(200, -200)  # at the ends a mean of one side follows a slope late
    assert np.abs(smoothed(noisy) - trend)[inner].max() < 0.05
    assert np.std(smoothed(noisy) - trend) < 0.02


# In a browser.


@pytest.mark.slow
@pytest.mark.parametrize(("width", "color_scheme"), [(1400, "light"), (1400, "dark"), (400, "light")])
def test_in_a_browser_it_is_readable_complete_and_without_errors(tmp_path, width, color_scheme) -> None:
    run = make_run(tmp_path / "run")
    add_clips(run, (10, 40))
    page = write_report(run)
    with chromium() as browser, visit(browser, page, width, color_scheme=color_scheme) as visited:
        visited.page.wait_for_function("document.querySelector('video').readyState > 0")
        assert visited.page.evaluate("document.querySelector('video').videoWidth") == 64
        assert visited.errors == []
        assert visited.requests == []
        assert visited.broken_images() == []
        assert visited.overflow_px() <= 0
        ratio, text = visited.lowest_contrast()
        assert ratio >= 4.5, text


@pytest.mark.slow
def test_pointing_at_a_chart_tells_its_values_at_that_step(tmp_path) -> None:
    page = write_report(make_run(tmp_path / "run"))
    with chromium() as browser, visit(browser, page, 1400) as visited:
        plot = visited.page.locator(".plot.wide").first
        box = plot.locator(".frame").bounding_box()
        assert box is not None
        values = plot.locator(".keys b")
        before = values.all_inner_texts()
        visited.page.mouse.move(box["x"] + 1, box["y"] + 50)
        assert plot.locator(".pointer").inner_text() == "step 1"
        assert values.all_inner_texts()[1] == "1"
        visited.page.mouse.move(box["x"] + 1, box["y"] - 300)
        assert values.all_inner_texts() == before
