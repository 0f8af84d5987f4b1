"""The pictures of docs/curation.md, from the demo's sources: python docs/pictures.py FOLDER

    FOLDER/sources (made where missing) -> clips with face and sound -> docs/images/{sync,duplicates}.png
    FOLDER/dataset/report.html, where `hallo3 demo --output FOLDER` made one -> docs/images/scores.png

Needs matplotlib, and playwright with chromium for the report. The one face shown is in the public domain.
"""

import sys
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from data_pipeline import media
from data_pipeline.clip import Clip
from data_pipeline.config import FacesConfig, SegmentConfig
from data_pipeline.demo import make_sources
from data_pipeline.models.lip_correlation import correlation_curve, lags_of
from data_pipeline.models.lip_shape import LipShape
from data_pipeline.models.speech_to_lips import without_drift
from data_pipeline.stages.face_crops import face_crops
from data_pipeline.stages.faces import Faces
from data_pipeline.stages.fingerprint import FACE_PX, aligned_face, picture_hash
from data_pipeline.stages.segment import probe_source, segment

IMAGES = Path(__file__).with_name("images")
SYNC = {
    "astronaut.mp4": "in sync",
    "slightly_late.mp4": "0.12 s late: corrected",
    "late_audio.mp4": "0.6 s late",
    "wrong_audio.mp4": "another voice",
}
FACES = {
    "astronaut.mp4": "a take",
    "reencoded.mkv": "the take, encoded again",
    "tiny_face.mp4": "another take, far away",
}
SCORES = ("sync distance", "sync offset", "sync confidence", "speech to noise")

KEEP_ONLY = """
(labels) => {
  for (const score of document.querySelectorAll("article.score"))
    if (!labels.some((label) => score.querySelector("h3").textContent.includes(label))) score.remove();
}
"""


def main(folder: Path) -> None:
    names = sorted({*SYNC, *FACES})
    make_sources(folder / "sources", only=names)
    faces = Faces(FacesConfig())
    faces.setup()
    clips = {name: tracked(folder / "sources" / name, faces) for name in names}
    IMAGES.mkdir(exist_ok=True)
    draw_sync({name: clips[name] for name in SYNC})
    draw_duplicates({name: clips[name] for name in FACES})
    if (folder / "dataset" / "report.html").exists():
        draw_scores(folder / "dataset" / "report.html")


def tracked(source: Path, faces: Faces) -> Clip:
    """The first clip of a video, with face, frames and sound."""
    found = probe_source(source, Clip(str(source), source_sha256="ab" * 32))
    return faces(next(iter(segment(source, found, SegmentConfig(), media.MAX_PIXELS))))


def draw_sync(clips: dict[str, Clip]) -> None:
    lip_shape = LipShape()
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for name, clip in clips.items():
        crops = np.concatenate(list(face_crops(clip, Path(clip.source_uri), media.MAX_PIXELS)))
        motion = without_drift(lip_shape.measure(crops))
        curve = correlation_curve(motion / motion.std(axis=0), clip.audio)
        axes.plot(-40 * lags_of(len(motion)), curve, label=SYNC[name])
    axes.axvspan(-200, 200, color="0.93", zorder=0)
    axes.axhline(1 - 0.78, color="0.6", linestyle=":", linewidth=1)
    axes.set(xlabel="sound later than the lips (ms); grey: may be corrected", ylabel="correlation")
    axes.legend(frameon=False)
    figure.savefig(IMAGES / "sync.png", dpi=110)


def draw_duplicates(clips: dict[str, Clip]) -> None:
    """The faces as they are hashed, and their hashes."""
    figure, axes = plt.subplots(2, len(clips), figsize=(8, 5), layout="constrained")
    hashes = {}
    for (name, clip), (face_axes, hash_axes) in zip(clips.items(), axes.T, strict=True):
        middle = len(clip.frames) // 2
        face = aligned_face(
            clip.frames.decode(middle), clip.track.boxes[middle], clip.track.landmarks[middle]
        )
        hashes[name] = picture_hash(face)
        bits = (hashes[name] >> np.arange(64, dtype=object)).astype(object) & 1
        face_axes.imshow(face, cmap="gray", extent=(0, FACE_PX, FACE_PX, 0))
        face_axes.set_title(FACES[name], fontsize=10)
        hash_axes.imshow(bits.astype(int).reshape(8, 8), cmap="gray_r")
        for axis in (face_axes, hash_axes):
            axis.set(xticks=[], yticks=[])
    told = (
        f"{FACES[a]} / {FACES[b]}: {(hashes[a] ^ hashes[b]).bit_count()} bits"
        for a, b in combinations(hashes, 2)
    )
    figure.supxlabel("  ·  ".join(told), fontsize=8)
    figure.savefig(IMAGES / "duplicates.png", dpi=110)


def draw_scores(report: Path) -> None:
    """Some of the report's histograms, as a browser shows them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(report.resolve().as_uri())
        page.add_style_tag(content="article.score figure.clip, article.score .sides { display: none }")
        page.evaluate(KEEP_ONLY, list(SCORES))
        page.locator(".scores").first.screenshot(path=IMAGES / "scores.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
