"""HDTF, CelebV-HQ and CelebV-Text as benchmarks: their lists, and the videos that you have of them.

list + folder of videos (data_pipeline/published_lists.py) -> parts of files: seconds, box -> entries
a part -> the listed box, made as wide as the clip is, over the edge if need be
       -> ground truth at the clip's size and rate, its sound, its first frame as the reference
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

from data_pipeline.media import MediaError, encode_clip, probe
from data_pipeline.published_lists import FORMATS, import_list
from data_pipeline.shards import file_sha256
from data_pipeline.sources import Source, SourcesError
from evaluation.benchmark_of_dataset import write_first_frame
from evaluation.benchmarks import BenchmarkError, BenchmarkItem, Entry, ItemError
from evaluation.config import ClipConfig

CRF = 12
"""Of the ground truth that is made: seen, it is the source."""


def entries_of_published(
    kind: str, listed: Path, videos: str, clip: ClipConfig
) -> tuple[list[Entry], dict[str, str], dict[str, Any]]:
    """The clips whose videos are there; of the others the words, by the video's or the clip's name.

    Raises BenchmarkError."""
    try:
        imported = import_list(kind, listed, videos)
    except SourcesError as error:
        raise BenchmarkError(f"benchmark {listed}: {error}") from None
    digests = {uri: file_sha256(Path(uri)) for uri in {source.uri for source in imported.sources}}
    entries = [_entry(source, digests[source.uri], clip) for source in imported.sources]
    cut_out = {Path(source.uri).stem for source in imported.sources}
    missing = {
        one.clip: f"missing: no video {one.names[0]} in {videos}; the list's link: {one.url}"
        for one in FORMATS[kind](listed)
        if one.names[0] in imported.missing and one.clip not in cut_out
    }
    refused = {Path(name).stem: f"not usable: {words}" for name, words in imported.refused.items()}
    return entries, missing | refused, {"format": kind}


def _entry(source: Source, sha256: str, clip: ClipConfig) -> Entry:
    name = Path(source.uri).stem
    if source.start_s is not None:  # two clips of one moment may show two people
        name = f"{name}-{source.start_s:g}s-{source.window}"
    content = {"sha256": sha256, "start_s": source.start_s, "end_s": source.end_s, "crop": source.crop}
    size = f"{clip.width}x{clip.height}-{clip.fps}"
    return Entry(
        name,
        content,
        partial(_prepare, name, source, clip, size),
        {"speaker": source.speaker},
        {"source_sha256": sha256, "source_uris": source.uri},
    )


def _prepare(name: str, source: Source, clip: ClipConfig, size: str, folder: Path) -> BenchmarkItem:
    """Its files carry the size and rate at which they are made."""
    stem = f"{name}-{size}"
    reference, audio, truth = (folder / f"{stem}{suffix}" for suffix in (".png", ".flac", ".mp4"))
    if not (truth.exists() and reference.exists()):
        _encode(source, clip, truth, audio)
        write_first_frame(truth, reference)
    return BenchmarkItem(name, reference, audio, truth)


def _encode(source: Source, clip: ClipConfig, truth: Path, audio: Path) -> None:
    path = Path(source.uri)
    info = probe(path)
    if info.video is None:
        raise ItemError(f"{path}: has no picture")
    start_s, end_s = source.start_s or 0.0, min(source.end_s or math.inf, info.duration_s)
    end_s = min(end_s, start_s + clip.max_s)
    if end_s - start_s < 1 / clip.fps:
        raise ItemError(f"{path}: ends at {info.duration_s:.2f} s, before the clip at {start_s:g} s")
    box = source.crop or (0.0, 0.0, float(info.video.width), float(info.video.height))
    folder = truth.parent
    folder.mkdir(parents=True, exist_ok=True)
    partial_video, partial_audio = (folder / f".partial-{file.name}" for file in (truth, audio))
    try:
        encode_clip(
            path,
            partial_video,
            partial_audio,
            start_s=start_s,
            end_s=end_s,
            crop=_shaped(box, clip.width / clip.height),
            size=(clip.width, clip.height),
            fps=clip.fps,
            crf=CRF,
            preset="veryfast",
        )
        partial_audio.rename(audio)
        partial_video.rename(truth)
    except MediaError as error:
        raise ItemError(str(error)) from None
    finally:
        partial_video.unlink(missing_ok=True)
        partial_audio.unlink(missing_ok=True)


def _shaped(box: tuple[float, float, float, float], aspect: float) -> tuple[float, float, float, float]:
    """The least box around one that is `aspect` times as wide as high."""
    x0, y0, x1, y1 = box
    width = max(x1 - x0, (y1 - y0) * aspect)
    height = width / aspect
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
