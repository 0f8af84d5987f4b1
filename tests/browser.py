"""A real browser for tests of pages: Debian's chromium, driven by Playwright, without a network.

with chromium() as browser, visit(browser, path, width=400) as visited:
    assert visited.errors == []
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ColorScheme = Literal["light", "dark"]

# Lowest contrast (WCAG 2.2, 1.4.3) of visible text with the background that it stands on. Colours come
# as rgb() or rgba(); a transparent background means that of the parent.
LOWEST_CONTRAST = """
() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let lowest = { ratio: 21, text: "" };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (element.closest("svg, script, style")) continue;
    const [a, b] = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < lowest.ratio) lowest = { ratio, text: walker.currentNode.textContent.trim() };
  }
  return lowest;
}
"""


@dataclass
class Visit:
    """A page that was opened, and what went on while it was."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Console errors and warnings, uncaught exceptions, refused content."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for, other than the page itself and what it carries as data."""

    def overflow_px(self) -> int:
        """How far the page reaches beyond its window, to the right."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def broken_images(self) -> list[str]:
        """Alternative texts of images that do not decode."""
        return self.page.evaluate(
            """async () => {
                 const broken = [];
                 for (const image of document.images)
                   await image.decode().catch(() => broken.push(image.alt));
                 return broken;
               }"""
        )

    def lowest_contrast(self) -> tuple[float, str]:
        """The ratio (1 to 21) of the text that is hardest to read, and that text."""
        lowest = self.page.evaluate(LOWEST_CONTRAST)
        return lowest["ratio"], lowest["text"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; the test is skipped where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} does not exist (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Browser,
    html_path: Path,
    width: int,
    height: int = 900,
    color_scheme: ColorScheme = "light",
    javascript: bool = True,
) -> Iterator[Visit]:
    """Open a file in a window of `width` x `height` CSS pixels."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=color_scheme,
        java_script_enabled=javascript,
        offline=True,
    )
    address = html_path.resolve().as_uri()
    result = Visit(context.new_page())

    def note_request(url: str) -> None:
        if url != address and not url.startswith("data:"):
            result.requests.append(url)

    result.page.on("request", lambda request: note_request(request.url))
    result.page.on("pageerror", lambda error: result.errors.append(str(error)))
    result.page.on(
        "console",
        lambda message: result.errors.append(message.text) if message.type in ("error", "warning") else None,
    )
    try:
        result.page.goto(address, wait_until="load")
        yield result
    finally:
        context.close()


def screenshot(
    html_path: Path,
    png_path: Path,
    width: int,
    height: int = 900,
    color_scheme: ColorScheme = "light",
    full_page: bool = True,
    selector: str | None = None,
) -> None:
    """A picture of a page, of its first `height` pixels, or of the one element that `selector` names."""
    with chromium() as browser, visit(browser, html_path, width, height, color_scheme) as visited:
        if selector is not None:
            visited.page.locator(selector).screenshot(path=png_path)
        else:
            visited.page.screenshot(path=png_path, full_page=full_page)
