"""A list of your own as a benchmark: CSV with a head, or a JSON object a line.

    name,image,audio,video,prompt,language,...
    anna,anna.jpg,monday.wav,,,de            a wild item: no ground truth
    ben,,,ben.mp4,,en                        its first frame is the reference, its sound the audio

Paths are relative to the list's folder. `sha256` (of the video; without one of the audio) is held against the
file. Every other column is a fact.
"""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_pipeline.shards import file_sha256
from evaluation.benchmark_of_dataset import write_first_frame
from evaluation.benchmarks import BenchmarkError, BenchmarkItem, Entry, Fact

FILES = ("image", "audio", "video")
KNOWN = ("name", *FILES, "prompt", "sha256")


def entries_of_list(path: Path) -> tuple[list[Entry], dict[str, str], dict[str, Any]]:
    """The items of a list whose files are there; of the others, by name, the words.

    Raises BenchmarkError: the list cannot be read, or a line of it is no item."""
    entries, missing = [], {}
    for number, row in enumerate(_rows(path), start=1):
        files = {key: path.parent / str(row[key]) for key in FILES if row.get(key)}
        if not ({"image", "video"} & files.keys() and {"audio", "video"} & files.keys()):
            raise BenchmarkError(
                f"benchmark {path}, item {number}: needs image and audio, or a video; found "
                f"{', '.join(sorted(files)) or 'none of them'}"
            )
        name = str(row.get("name") or (files.get("video") or files["audio"]).stem)
        words = _wrong(files, row.get("sha256"))
        if words:
            missing[name] = words
        else:
            entries.append(_entry(name, files, row))
    return entries, missing, {"format": "list"}


def _entry(name: str, files: dict[str, Path], row: dict[str, Any]) -> Entry:
    content = {key: file_sha256(file) for key, file in files.items()}
    prompt = str(row.get("prompt") or "")
    facts = {key: _fact(value) for key, value in row.items() if key not in KNOWN}
    return Entry(
        name,
        content | ({"prompt": prompt} if prompt else {}),
        partial(_prepare, name, files, prompt),
        facts,
        {"source_sha256": content.get("video", ""), "source_uris": str(files.get("video", ""))},
    )


def _wrong(files: dict[str, Path], sha256: str | None) -> str:
    """What is wrong with an item's files; nothing: an empty text."""
    for key, file in files.items():
        if not file.is_file():
            return f"missing: {key}: {file}: no such file"
    told_of = files.get("video") or files["audio"]
    if sha256 and (found := file_sha256(told_of)) != sha256:
        return f"changed: {told_of}: the list says sha256 {sha256[:12]}, the file has {found[:12]}"
    return ""


def _prepare(name: str, files: dict[str, Path], prompt: str, folder: Path) -> BenchmarkItem:
    video = files.get("video")
    reference = files.get("image", folder / f"{name}.png")
    if "image" not in files and video is not None and not reference.exists():
        write_first_frame(video, reference)
    return BenchmarkItem(name, reference, files.get("audio") or files["video"], video, prompt)


def _fact(value: Any) -> Fact:
    """Numbers are numbers, also in a CSV."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"benchmark {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"benchmark {path}: not UTF-8: {error}") from None
    if path.suffix == ".csv":
        yield from csv.DictReader(text.splitlines())
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BenchmarkError(f"benchmark {path}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise BenchmarkError(f"benchmark {path}:{number}: expected a JSON object, found {line}")
            yield row
