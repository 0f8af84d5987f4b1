"""The page of what training taught: it says the figures, and links videos that are there."""

import html
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from evaluation.learned import HeldOut, figures
from evaluation.learned_report import summary, write_report
from tests.evaluation.metrics.test_lip_correlation import mouth, opening
from training.clip_file import write_clip


def written(folder: Path) -> tuple[str, str]:
    """The page, and the outcome in a sentence."""
    takes = []
    for place in range(12):
        name = f"{place}-<somebody>"
        for source in ("real", "untrained", "trained"):
            (folder / source).mkdir(exist_ok=True)
            frames = np.full((10, 64, 64, 3), 20 * place, np.uint8)
            write_clip(folder / source / f"{name}.mp4", [frames], 25)
        takes.append(HeldOut(name, f"words {place}", folder, folder / "real" / f"{name}.mp4", opening(place)))
    follows = [mouth(take.opening) for take in takes]
    still = [mouth(np.zeros(100)) for _ in takes]
    found = figures(takes, {"real": follows, "trained": follows, "untrained": still})
    made = {"untrained": folder / "untrained", "trained": folder / "trained"}
    page = write_report(folder / "report.html", takes, made, found, "--steps 10")
    return page.read_text("utf-8"), summary(found)


def test_the_page_says_the_outcome_the_protocol_and_every_take(tmp_path) -> None:
    page, outcome = written(tmp_path)
    assert outcome[1:] in html.unescape(page)
    assert "100 % of the way from untrained to real" in page
    assert "hallo3 animate --steps 10" in page
    assert page.count("<figure") == 12
    links = re.findall(r'<video [^>]*src="([^"]+)"', page)
    assert len(links) == 36
    assert all((tmp_path / unquote(html.unescape(link))).is_file() for link in links)


def test_a_name_is_text_not_markup(tmp_path) -> None:
    page, _ = written(tmp_path)
    assert "<somebody>" not in page
    assert "&lt;somebody&gt;" in page
