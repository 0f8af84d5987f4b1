"""Published lists: what HDTF, CelebV-HQ, CelebV-Text and TalkVid publish, as a list that `curate` reads.

    annotations (text or JSON)     ->  ListedClip: video, seconds, box          one parser a format
    ListedClip + folder of videos  ->  Source: file, seconds, crop in pixels    or the video is missing

These datasets publish links and times, no videos: the user fetches those. A video is found by its id
or its name in the list; where only the clip is there, cut out by the dataset's own tools, it is taken
whole.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlparse

from data_pipeline.sources import LIST_COLUMNS, Source, SourcesError, list_sources
from data_pipeline.storage import replacing

CELEBV_HQ_MARGIN = 0.02
"""CelebV-HQ's own tool widens its boxes by this fraction of the picture before it crops."""


@dataclass(frozen=True, slots=True)
class ListedClip:
    """One clip of a published list."""

    clip: str
    """The name that the dataset's own tools give the clip's file, without extension."""
    names: tuple[str, ...]
    """What its whole video may be called, without extension; the first is named where it is missing."""
    start_s: float
    end_s: float
    box: tuple[float, float, float, float] | None = None
    """x0 y0 x1 y1, in the units of `box_of`."""
    box_of: Literal["fractions", "pixels"] = "fractions"
    listed_height: int | None = None
    """Height in pixels of the video that a box in pixels was drawn on."""
    url: str | None = None
    licence: str | None = None
    speaker: str | None = None
    caption: str | None = None


@dataclass(slots=True)
class Imported:
    """What became of a list: sources, and what there is no file for."""

    sources: list[Source] = field(default_factory=list)
    missing: dict[str, ListedClip] = field(default_factory=dict)
    """By the missing video's name, its first clip."""
    n_missing_clips: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """Clips that are listed wrongly, and files whose picture size cannot be read, with what was found."""


def import_list(name: str, annotations: Path, videos: str) -> Imported:
    """A published list as sources.

    `name` is one of FORMATS; `annotations` what the dataset publishes (HDTF: the folder HDTF_dataset,
    the others: their JSON file); `videos` a folder, or whatever else `sources` may name. Raises
    SourcesError where the list is not one of that kind, and for videos that match nothing.
    """
    clips = FORMATS[name](annotations)
    files = _by_name(videos)
    imported = Imported()
    sizes: dict[str, tuple[int, int] | str] = {}
    for clip in clips:
        whole = next((files[key] for key in clip.names if key in files), None)
        cut = files.get(clip.clip)
        if not 0 <= clip.start_s < clip.end_s:
            imported.refused[clip.clip] = f"{clip.start_s:g} to {clip.end_s:g} s is no time range"
        elif whole is None and cut is None:
            imported.missing.setdefault(clip.names[0], clip)
            imported.n_missing_clips += 1
        elif whole is None:
            imported.sources.append(Source(str(cut), **_about(clip)))
        elif (source := _part_of(whole, clip, sizes, imported)) is not None:
            imported.sources.append(source)
    return imported


def write_list(imported: Imported, path: Path) -> Path | None:
    """Write the sources as a CSV list, and beside it what is missing; returns the latter's path if any."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(LIST_COLUMNS)
        for source in imported.sources:
            crop = " ".join(f"{x:g}" for x in source.crop) if source.crop else None
            given = {name: getattr(source, name) for name in LIST_COLUMNS} | {"crop": crop}
            writer.writerow(["" if given[name] is None else given[name] for name in LIST_COLUMNS])
    missing = path.with_name(f"{path.stem}.missing.csv")
    if not imported.missing:
        missing.unlink(missing_ok=True)
        return None
    with replacing(missing) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "url"])
        writer.writerows([name, clip.url or ""] for name, clip in imported.missing.items())
    return missing


def _by_name(videos: str) -> dict[str, str]:
    """Files by their name without extension; yt-dlp's default `Title [id].mp4` by the id, too."""
    files: dict[str, str] = {}
    for source in list_sources(videos):
        stem = Path(source.uri).stem
        files.setdefault(stem, source.uri)
        if bracketed := re.search(r"\[([\w-]{6,})\]$", stem):
            files.setdefault(bracketed[1], source.uri)
    return files


def _part_of(
    uri: str, clip: ListedClip, sizes: dict[str, tuple[int, int] | str], imported: Imported
) -> Source | None:
    crop = None
    if clip.box is not None:
        if uri not in sizes:
            sizes[uri] = _size_of(uri)
        size = sizes[uri]
        if isinstance(size, str):
            imported.refused[uri] = size
            return None
        crop = _in_pixels(clip, *size)
    return Source(uri, clip.start_s, clip.end_s, crop, **_about(clip))


def _about(clip: ListedClip) -> dict[str, Any]:
    return {"licence": clip.licence, "speaker": clip.speaker, "caption": clip.caption}


def _size_of(uri: str) -> tuple[int, int] | str:
    """(width, height) as displayed, or what is wrong with the file."""
    from data_pipeline.media import MediaError, probe

    try:
        video = probe(Source(uri).path).video
    except MediaError as error:
        return str(error)
    return (video.width, video.height) if video else f"{uri}: has no picture"


def _in_pixels(clip: ListedClip, width: int, height: int) -> tuple[float, float, float, float]:
    """The box on a video of this size: it may be another rendition than the one that was annotated."""
    x0, y0, x1, y1 = clip.box or (0.0, 0.0, 1.0, 1.0)
    if clip.box_of == "fractions":
        return round(x0 * width, 1), round(y0 * height, 1), round(x1 * width, 1), round(y1 * height, 1)
    scale = height / clip.listed_height if clip.listed_height else 1.0
    return round(x0 * scale, 1), round(y0 * scale, 1), round(x1 * scale, 1), round(y1 * scale, 1)


def _hdtf(folder: Path) -> Iterator[ListedClip]:
    """HDTF (Zhang et al., CVPR 2021), its folder HDTF_dataset: text tables for RD, WDA and WRA.

    Clips without a box are left in: the box only limits where the face is looked for."""
    groups = sorted(
        path.name.removesuffix("_annotion_time.txt") for path in folder.glob("*_annotion_time.txt")
    )
    if not groups:
        raise SourcesError(
            f"{folder}: no file here ends in _annotion_time.txt; give HDTF's folder HDTF_dataset"
        )
    for group in groups:
        urls = _table(folder / f"{group}_video_url.txt")
        boxes = _table(folder / f"{group}_crop_wh.txt")
        heights = _table(folder / f"{group}_resolution.txt")
        for file, ranges in _table(folder / f"{group}_annotion_time.txt").items():
            video = file.removesuffix(".mp4")
            url = next(iter(urls.get(video, [])), None)
            names = (video, f"{group}_{video}", *([_youtube_id(url)] if url else []))
            listed = next(iter(heights.get(file, [])), None)
            for index, text in enumerate(ranges):
                start_s, end_s = _times(text, folder / f"{group}_annotion_time.txt", file)
                box = boxes.get(f"{video}_{index}.mp4")
                yield ListedClip(
                    clip=f"{video}_{index}",
                    names=names,
                    start_s=start_s,
                    end_s=end_s,
                    box=_hdtf_box(box) if box else None,
                    box_of="pixels",
                    listed_height=int(listed) if listed else None,
                    url=url,
                    licence="CC-BY-4.0",
                )


def _table(path: Path) -> dict[str, list[str]]:
    """First word of a line -> the others."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SourcesError(f"{path}: not there; HDTF publishes it beside the other tables") from None
    return {words[0]: words[1:] for words in (line.split() for line in lines) if words}


def _times(text: str, path: Path, name: str) -> tuple[float, float]:
    """`mm:ss-mm:ss`, or with hours, in seconds."""
    try:
        start_s, end_s = (
            sum(float(part) * 60**power for power, part in enumerate(reversed(moment.split(":"))))
            for moment in text.split("-")
        )
    except ValueError:
        raise SourcesError(f"{path}, {name}: {text!r} is no time range mm:ss-mm:ss") from None
    return start_s, end_s


def _hdtf_box(words: list[str]) -> tuple[float, float, float, float]:
    """Published as left, width, top, height."""
    left, width, top, height = (float(word) for word in words)
    return left, top, left + width, top + height


def _celebv_hq(path: Path) -> Iterator[ListedClip]:
    """CelebV-HQ (Zhu et al., ECCV 2022): celebvhq_info.json, boxes as fractions of the picture."""
    listed = _json(path)
    if not isinstance(listed, dict) or not isinstance(listed.get("clips"), dict):
        raise SourcesError(f"{path}: no object `clips`; give CelebV-HQ's own JSON file")
    for name, row in listed["clips"].items():
        with _reading(path, name):
            box = row["bbox"]
            yield ListedClip(
                clip=name,
                names=(row["ytb_id"],),
                start_s=float(row["duration"]["start_sec"]),
                end_s=float(row["duration"]["end_sec"]),
                box=(
                    max(float(box["left"]) - CELEBV_HQ_MARGIN, 0.0),
                    max(float(box["top"]) - CELEBV_HQ_MARGIN, 0.0),
                    min(float(box["right"]) + CELEBV_HQ_MARGIN, 1.0),
                    min(float(box["bottom"]) + CELEBV_HQ_MARGIN, 1.0),
                ),
                url=f"https://www.youtube.com/watch?v={row['ytb_id']}",
                licence="non-commercial research",
            )


def _celebv_text(path: Path) -> Iterator[ListedClip]:
    """CelebV-Text (Yu et al., CVPR 2023): celebvtext_info.json, as CelebV-HQ's but with boxes in pixels."""
    listed = _json(path)
    if not isinstance(listed, dict) or not isinstance(listed.get("clips"), dict):
        raise SourcesError(f"{path}: no object `clips`; give CelebV-Text's own JSON file")
    for name, row in listed["clips"].items():
        with _reading(path, name):
            left, top, right, bottom = (
                float(row["bbox"][side]) for side in ("left", "top", "right", "bottom")
            )
            yield ListedClip(
                clip=name,
                names=(row["ytb_id"],),
                start_s=float(row["duration"]["start_sec"]),
                end_s=float(row["duration"]["end_sec"]),
                box=(left, top, right, bottom),
                box_of="pixels",
                url=f"https://www.youtube.com/watch?v={row['ytb_id']}",
                licence="non-commercial research",
            )


def _talkvid(path: Path) -> Iterator[ListedClip]:
    """TalkVid (Chen et al., 2025): a JSON array, or an object a line, without boxes."""
    rows = _json(path)
    if not isinstance(rows, list):
        rows = [rows]
    for number, row in enumerate(rows, 1):
        with _reading(path, f"entry {number}"):
            info = row["info"]
            person = info.get("Person ID")
            yield ListedClip(
                clip=row["id"],
                names=(_youtube_id(info["Video Link"]),),
                start_s=float(row["start-time"]),
                end_s=float(row["end-time"]),
                url=info["Video Link"],
                licence="CC-BY-NC-4.0",
                speaker=f"talkvid-{person}" if person else None,
                caption=row.get("description") or None,
            )


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """Turns what a malformed entry raises into an error that names the entry."""
    try:
        yield
    except KeyError as error:
        raise SourcesError(f"{path}, {name}: no {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise SourcesError(f"{path}, {name}: {error}") from None


def _json(path: Path) -> Any:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise SourcesError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as whole:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise SourcesError(f"{path}: neither JSON nor an object a line: {whole}") from None


def _youtube_id(url: str) -> str:
    """The `v` of a watch link; of any other address its last part."""
    parts = urlparse(url)
    return next(iter(parse_qs(parts.query).get("v", [])), parts.path.rstrip("/").rsplit("/", 1)[-1])


FORMATS: dict[str, Callable[[Path], Iterator[ListedClip]]] = {
    "hdtf": _hdtf,
    "celebv-hq": _celebv_hq,
    "celebv-text": _celebv_text,
    "talkvid": _talkvid,
}
