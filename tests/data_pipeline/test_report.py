"""The dataset report, as HTML and in a real browser."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser

from data_pipeline import report
from data_pipeline.config import FiltersConfig
from data_pipeline.policy import thresholds
from data_pipeline.report import render_report
from tests.browser import chromium, visit
from tests.data_pipeline.manifests import FAILURES, Strips, manifest

HOSTILE = '<img src="http://example.org/x" onerror="document.title=1">\'"</script><b>.mp4'
SECTIONS = ("funnel", "thresholds", "clips", "contents", "errors", "cost")
STAGES = {"segment": 41.2, "speech": 310.5, "faces": 502.1, "quality": 33.0, "encode": 120.4}


def render(clips: pa.Table, **changes: Any) -> str:
    given = {
        "name": "talking_head",
        "version": 3,
        "clips": clips,
        "thumbnails": Strips(clips) if "clip_id" in clips.column_names else {},
        "thresholds": thresholds(FiltersConfig()),
        "stage_seconds": STAGES,
        "wall_s": 612.0,
        "header": {"dataset": "s3://bucket/talking_head", "faces": "embedded"},
    }
    return render_report(**given | changes)


@pytest.fixture(scope="module")
def clips() -> pa.Table:
    """80 clips; the first kept one, which is always shown, comes from a source with a hostile name."""
    table = manifest(80)
    rows = table.to_pylist()
    first = min(row["clip_id"] for row in rows if row["status"] == "kept")
    uris = [[f"/videos/{HOSTILE}"] if row["clip_id"] == first else row["source_uris"] for row in rows]
    return table.set_column(table.column_names.index("source_uris"), "source_uris", pa.array(uris))


@pytest.fixture(scope="module")
def html(clips: pa.Table) -> str:
    return render(clips)


@pytest.fixture(scope="module")
def path(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Elements(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def text_of(html: str) -> str:
    """What is written on the page, without markup, on one line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_same_dataset_gives_the_same_page(clips: pa.Table, html: str) -> None:
    assert render(clips) == html


def test_nothing_on_the_page_points_outside_it(html: str) -> None:
    for tag, attributes in Elements(html).found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:")), (tag, address)


def test_a_hostile_name_adds_no_element_and_no_handler(html: str) -> None:
    elements = Elements(html).found
    assert not [tag for tag, attributes in elements for name in attributes if name.startswith("on")]
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert "&lt;img src=" in html


def test_every_picture_says_what_it_shows(html: str) -> None:
    images = [attributes for tag, attributes in Elements(html).found if tag == "img"]
    assert len(images) > 100
    assert all((image["alt"] or "").startswith("Three frames of a clip from ") for image in images)


def test_the_page_says_how_much_of_each_reason_it_shows(clips: pa.Table, html: str) -> None:
    written = text_of(html)
    counts = {count["values"]: count["counts"] for count in clips["reason"].value_counts().to_pylist()}
    kept = clips["status"].to_pylist().count("kept")
    assert f"kept 24 of {kept} shown" in written
    shown = min(12, counts["low_frame_rate"])
    assert f"low frame rate {shown} of {counts['low_frame_rate']} shown" in written


def test_each_error_is_listed_with_its_source_and_message(html: str) -> None:
    written = text_of(html)
    for name, reason, message in FAILURES:
        assert f"/videos/broken/{name} {reason.replace('_', ' ')} {message}" in written


def test_throughput_and_the_cost_of_each_stage_are_shown(clips: pa.Table, html: str) -> None:
    seconds = np.nansum(np.subtract(*(clips[c].to_numpy() for c in ("end_s", "start_s"))))
    assert f"{seconds / 612:.3g} times real time" in text_of(html)
    assert f"faces 502 {100 * 502.1 / sum(STAGES.values()):.0f}%" in text_of(html)


def test_identities_are_shown_once_they_are_known(clips: pa.Table, html: str) -> None:
    assert "<h3>identity</h3>" not in html
    identities = pa.array([f"person {i % 30}" for i in range(clips.num_rows)])
    written = render(clips.append_column("identity_id", identities))
    assert "<h3>identity</h3>" in written
    assert "and 18 more with" in written


def test_control_characters_in_a_name_are_made_visible() -> None:
    table = manifest(1)
    error = {"status": "error", "reason": "corrupt", "error": "bad", "source_uris": ["/a\nb\u202egpj.mp4"]}
    html = render(pa.concat_tables([table, pa.Table.from_pylist([error], table.schema)]))
    assert "/a\N{SYMBOL FOR LINE FEED}b\N{REPLACEMENT CHARACTER}gpj.mp4" in html


def test_a_large_dataset_gives_a_page_of_bounded_size() -> None:
    table = manifest(3000)
    strips = dict.fromkeys(table["clip_id"].to_pylist(), Strips(table)["ab"] + bytes(60_000))
    html = render(table, thumbnails=strips)
    assert len(html) < 10_000_000
    shown, total = re.search(r"kept (\d+) of ([\d,]+) shown", text_of(html)).groups()  # type: ignore[union-attr]
    assert 0 < int(shown) < report.KEPT_SHOWN < int(total.replace(",", ""))


def nothing(schema: pa.Schema, count: int) -> pa.Table:
    """Rows of which nothing is known but that they are clips."""
    columns = {field.name: pa.nulls(count, field.type) for field in schema}
    return pa.table(
        columns | {"clip_id": [f"{i:016x}" for i in range(count)], "status": ["rejected"] * count}
    )


def degenerate_tables() -> dict[str, pa.Table]:
    table = manifest(3)
    floats = {f.name: pa.array([np.nan] * table.num_rows) for f in table.schema if f.type == pa.float64()}
    same = {f.name: pa.array([8.0] * table.num_rows) for f in table.schema if f.type == pa.float64()}
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return {
        "no row": table.slice(0, 0),
        "no row and no type": pa.table({name: pa.nulls(0) for name in table.column_names}),
        "only failures": table.slice(3),
        "all null": nothing(table.schema, 4),
        "all null and no type": pa.table({name: pa.nulls(4) for name in table.column_names}),
        "NaN": pa.table(columns | floats),
        "one value": pa.table(columns | same),
        "one clip": table.slice(0, 1),
        "few columns": table.select(["clip_id", "source_sha256", "status", "reason"]),
    }


@pytest.mark.parametrize("case", degenerate_tables())
def test_a_degenerate_dataset_has_every_part_of_a_report(case: str) -> None:
    html = render(degenerate_tables()[case], stage_seconds={}, wall_s=None, header={})
    assert {attributes.get("id") for _, attributes in Elements(html).found} >= set(SECTIONS)
    assert not re.search(r"\b(nan|inf|None)\b", text_of(html))


@pytest.mark.parametrize("case", ["no row", "all null", "one value"])
def test_a_degenerate_dataset_has_a_report_that_opens(case: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(degenerate_tables()[case], stage_seconds={}, wall_s=None, header={}), "utf-8")
    with visit(browser, path, width=400) as visited:
        assert visited.errors == []
        assert visited.overflow_px() <= 0
        for section in SECTIONS:
            assert visited.page.locator(f"#{section} h2").is_visible()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits_reads_well_and_asks_for_nothing(
    browser: Browser, path: Path, width: int, color_scheme: Any
) -> None:
    with visit(browser, path, width, color_scheme=color_scheme) as visited:
        assert visited.overflow_px() <= 0
        assert visited.broken_images() == []
        ratio, text = visited.lowest_contrast()
        assert ratio >= 4.5, text
        assert visited.errors == []
        assert visited.requests == []
        for section in SECTIONS:
            assert visited.page.locator(f"#{section} h2").is_visible()


def test_a_dark_page_is_dark(browser: Browser, path: Path) -> None:
    colors = []
    for scheme in ("light", "dark"):
        with visit(browser, path, 400, color_scheme=scheme) as visited:
            colors.append(visited.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, re.findall(r"\d+", color))) for color in colors)
    assert light > 700
    assert dark < 100


def test_a_hostile_name_is_shown_as_text(browser: Browser, path: Path) -> None:
    with visit(browser, path, 1600) as visited:
        clip = visited.page.locator("#sheet-kept .clip").first
        assert clip.locator("bdi").get_attribute("title") == f"/videos/{HOSTILE}"
        clip.locator("button").click()
        assert f"/videos/{HOSTILE}" in visited.page.locator("dialog dd").all_inner_texts()
        assert "dataset report" in visited.page.title()
        assert visited.errors == []


def test_a_clip_opens_with_its_measurements_and_arrows_lead_on(browser: Browser, path: Path) -> None:
    with visit(browser, path, 1600) as visited:
        page = visited.page
        page.locator("#sheet-noisy .strip").first.click()
        assert page.locator("dialog .big img").is_visible()
        first = page.locator("dialog dd").first.inner_text()
        assert "noisy" in page.locator("dialog dl").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("dialog dd").first.inner_text() != first
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()


def test_moving_a_slider_tells_what_would_change_and_what_to_type(browser: Browser, path: Path) -> None:
    with visit(browser, path, 1600) as visited:
        score = visited.page.locator(".score", has=visited.page.locator("h3", has_text="speech to noise"))
        assert "fail → noisy" in score.locator("output").inner_text()
        score.locator("input").focus()
        for _ in range(8):
            visited.page.keyboard.press("ArrowRight")
        label = score.locator(".trial b").inner_text()
        assert re.fullmatch(r"min 8 → \d+", label)
        assert re.match(r"loses \d+ clips? \(", score.locator("output").inner_text())
        assert score.locator("code").inner_text() == f"filters.min_snr_db={label.split()[-1]}"
        for _ in range(8):
            visited.page.keyboard.press("ArrowLeft")
        assert score.locator(".trial b").inner_text() == "min 8"
        assert "fail → noisy" in score.locator("output").inner_text()


def test_search_leaves_only_the_clips_that_match(browser: Browser, path: Path) -> None:
    with visit(browser, path, 1600) as visited:
        visited.page.locator("#find").fill("small town near the coast")
        clips = visited.page.locator("#clips .clip:visible")
        assert 0 < clips.count() < visited.page.locator("#clips .clip").count()
        assert all("small town" in text for text in clips.all_inner_texts())


def test_a_table_sorts_by_the_column_that_is_clicked(browser: Browser, path: Path) -> None:
    with visit(browser, path, 1600) as visited:
        rows = visited.page.locator("#cost tbody tr")
        assert rows.first.inner_text().startswith("faces")
        for expected in ("faces", "quality"):
            visited.page.locator("#cost thead button", has_text="Seconds").click()
            assert rows.first.inner_text().startswith(expected)


def test_without_scripts_everything_but_the_extras_is_there(browser: Browser, path: Path) -> None:
    with visit(browser, path, 400, javascript=False) as visited:
        assert visited.page.locator("#sheet-kept img").count() == 24
        assert visited.page.locator(".trial input:visible").count() == 0
        assert visited.page.locator("#find:visible").count() == 0


def test_only_our_script_may_run(browser: Browser, html: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html.replace("</main>", "<script>document.title = 'taken'</script></main>"), "utf-8")
    with visit(browser, path, 400) as visited:
        assert "dataset report" in visited.page.title()
        assert any("Content Security Policy" in error for error in visited.errors)
