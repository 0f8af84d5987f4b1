"""The page on which a person sees whether training taught the mouth: figures, protocol, and every take.

    takes, their videos, the figures -> report.html beside them: players, and of each take a contact sheet,
                                        untrained over trained over real

It opens from disk and links the videos where they lie; the sheets are in the page.
"""

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

import data_pipeline
from data_pipeline.media import read_frames
from data_pipeline.page import render_page
from data_pipeline.storage import replacing
from evaluation.learned import SOURCES, HeldOut, Learned, Made, Source
from evaluation.metrics.lip_correlation import Followed

TEMPLATES = Path(__file__).with_name("templates")
STYLE = Path(data_pipeline.__file__).with_name("templates") / "report.css"
SHEET_FRAMES = 8
TILE_PX = 96


@dataclass(frozen=True)
class Shown:
    """A take on the page."""

    name: str
    words: str
    videos: dict[Source, str]
    """Links."""
    sheet: str
    """data: URI of a JPEG."""
    follows: dict[Source, Followed]


def summary(found: Learned) -> str:
    """The outcome in a sentence."""
    learned = "follows" if found.gain.low > 0 else "does not show to follow"
    return (
        f"the mouth {learned} voices that it has not heard: {found.values['trained']} trained, "
        f"{found.values['untrained']} untrained, {found.values['real']} real; gain {found.gain}"
    )


def write_report(
    page: Path,
    takes: Sequence[HeldOut],
    made: Made,
    found: Learned,
    sampled: str,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        made: the videos, as `learned.judge` took them.
        sampled: how they were made, for the protocol.
    """
    shown = [_shown(page.parent, take, made, found, place) for place, take in enumerate(takes)]
    text = render_page(
        TEMPLATES / "learned.html.j2",
        style=(STYLE, TEMPLATES / "learned.css"),
        script=TEMPLATES / "learned.js",
        filters={"signed": lambda value: f"{value:+.2f}"},
        found=found,
        summary=summary(found),
        sources=SOURCES,
        rows=list(_rows(found)),
        takes=shown,
        sampled=sampled,
    )
    with replacing(page) as temporary:
        temporary.write_text(text, "utf-8")
    return page


def _rows(found: Learned) -> Iterator[tuple[Source, dict[str, str]]]:
    for source in SOURCES:
        follows = found.takes[source]
        yield (
            source,
            {
                "own speech": f"{np.mean([one.own for one in follows]):.2f}",
                "other speech": str(found.decoys[source]),
                "difference": str(found.values[source]),
                "frames with a face": f"{np.mean([one.seen for one in follows]):.0%}",
            },
        )


def _shown(
    root: Path,
    take: HeldOut,
    made: Made,
    found: Learned,
    place: int,
) -> Shown:
    videos: dict[Source, Path] = {source: folder / f"{take.name}.mp4" for source, folder in made.items()}
    videos["real"] = take.video
    return Shown(
        take.name,
        take.words,
        {source: quote(os.path.relpath(videos[source], root)) for source in SOURCES},
        _sheet([videos[source] for source in SOURCES]),
        {source: found.takes[source][place] for source in SOURCES},
    )


def _sheet(videos: Sequence[Path]) -> str:
    """A row a video, of frames at the same moments, as a data: URI."""
    import cv2

    rows = []
    for video in videos:
        frames = [frame.rgb() for frame in read_frames(video)]
        chosen = np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)
        size = (TILE_PX, TILE_PX)
        rows.append(np.hstack([cv2.resize(frames[number], size) for number in chosen]))
    whole, jpeg = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not whole:
        raise ValueError(f"{videos[0]}: its contact sheet cannot be coded")
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"
