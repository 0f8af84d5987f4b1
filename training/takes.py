"""The clips that a run made on its way: which of them a page holds, and which it links.

RUN/samples/step-N/CLIP.mp4, CLIP.jpg -> of every clip the newest, with pictures of earlier steps
  -> in the page as far as MEDIA_BYTES go: the newest pictures, the newest videos, then what is older
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

MEDIA_BYTES = 12_000_000
"""Of all clips and pictures in one page; they grow by a third in base64."""
EARLIER_SHOWN = 6
"""Pictures of a clip at earlier steps."""
TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Media:
    """A file of a clip: in the page, or beside it."""

    step: int
    link: str
    data_uri: str | None


@dataclass(frozen=True)
class Take:
    """What the model made of one held-out clip."""

    clip_id: str
    step: int
    video: Media | None
    sheet: Media | None
    earlier: list[Media]
    """Pictures at earlier steps, the newest first."""


def takes(run: Path, media_bytes: int = MEDIA_BYTES) -> list[Take]:
    """Of every clip that has been made, its newest, with pictures of earlier ones."""
    by_clip: dict[str, dict[int, dict[str, Path]]] = {}
    for file in sorted((run / "samples").glob("step-*/[!.]*")):
        number = file.parent.name.removeprefix("step-")
        if number.isdigit() and file.suffix in TYPES:
            by_clip.setdefault(file.stem, {}).setdefault(int(number), {})[file.suffix] = file
    room = _Room(media_bytes, run)
    newest = {clip: max(steps) for clip, steps in by_clip.items()}
    for suffix in (".jpg", ".mp4"):  # pictures of all clips before the first video
        for clip, steps in by_clip.items():
            room.take(steps[newest[clip]].get(suffix))
    found = []
    for clip, steps in by_clip.items():
        last = newest[clip]
        pictures = [step for step in sorted(steps, reverse=True) if step != last and ".jpg" in steps[step]]
        chosen = np.unique(np.linspace(0, len(pictures) - 1, min(EARLIER_SHOWN, len(pictures))).round())
        shown = [pictures[int(place)] for place in chosen]
        for step in shown:
            room.take(steps[step][".jpg"])
        found.append(
            Take(
                clip,
                last,
                room.media(last, steps[last].get(".mp4")),
                room.media(last, steps[last].get(".jpg")),
                [media for step in shown if (media := room.media(step, steps[step][".jpg"])) is not None],
            )
        )
    return found


class _Room:
    """Which files fit into a page."""

    def __init__(self, left: int, run: Path) -> None:
        self._left, self._run = left, run
        self._taken: dict[Path, str] = {}

    def take(self, file: Path | None) -> None:
        if file is None or file.stat().st_size > self._left:
            return
        data = file.read_bytes()
        self._left -= len(data)
        self._taken[file] = f"data:{TYPES[file.suffix]};base64,{base64.b64encode(data).decode()}"

    def media(self, step: int, file: Path | None) -> Media | None:
        if file is None:
            return None
        return Media(step, quote(file.relative_to(self._run).as_posix()), self._taken.get(file))
