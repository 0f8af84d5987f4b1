"""Synthetic manifests: measurements that are distributed as wild video's are, decided by the real policy."""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from data_pipeline import sync_rules
from data_pipeline.config import FiltersConfig
from data_pipeline.policy import decide

LANGUAGES = ("en", "es", "zh", "pt", "hi", "fr")
LICENCES = ("CC BY 4.0", "CC BY-SA 3.0", "CC0 1.0", None)
SENTENCES = (
    "So what we found in the end was rather different from what we had expected.",
    "Thank you all for coming, it is good to see so many of you here today.",
    "I grew up in a small town near the coast, and we had no television at home.",
    "The question that everybody asks me is how long it took to write the book.",
)
FAILURES: tuple[tuple[str, str, str], ...] = (
    ("truncated.mp4", "corrupt", "moov atom not found: the file ends after 81,920 bytes"),
    ("notes.txt.mp4", "unsupported", "no container that we can read: the file begins with text"),
    ("vanished.mkv", "missing", "No such file: it was listed, and is gone"),
    ("bomb.webm", "decode_timeout", "no progress for 60 s in the decoder (libvpx)"),
)


def manifest(n_clips: int, seed: int = 0, filters: FiltersConfig | None = None, **columns: Any) -> pa.Table:
    """`n_clips` clips, one row a failure and one a source without video; `columns` replace whole columns."""
    random = np.random.default_rng(seed)
    n_sources = max(1, n_clips // 5)
    source = random.integers(0, n_sources, n_clips)
    start_s = random.integers(0, 60, n_clips) * 10.0
    length_s = np.round(np.clip(random.gamma(4, 1.7, n_clips), 2, 14), 2)
    height = random.choice([240, 480, 720, 1080, 1920], n_clips, p=[0.04, 0.2, 0.4, 0.3, 0.06])
    face_fraction = np.clip(random.lognormal(-1.3, 0.6, n_clips), 0.02, 0.9)

    def sometimes(values: np.ndarray, share: float) -> pa.Array:
        return pa.array(np.round(values, 4), mask=random.random(n_clips) < share)

    measured: dict[str, Any] = {
        "clip_id": [hashlib.sha256(f"{seed} {i}".encode()).hexdigest()[:16] for i in range(n_clips)],
        "source_sha256": [hashlib.sha256(f"source {i}".encode()).hexdigest() for i in source],
        "source_uris": [[f"/videos/interviews/session {i:04d}.mp4"] for i in source],
        "source_licence": [LICENCES[i % 4] for i in source],
        "start_s": start_s,
        "end_s": start_s + length_s,
        "source_fps": random.choice([15.0, 24.0, 25.0, 29.97, 30.0, 60.0], n_clips),
        "source_width": (height * 16 // 9).astype(np.int32),
        "source_height": height.astype(np.int32),
        "repeated_frame_ratio": sometimes(random.beta(0.3, 4, n_clips), 0.0),
        "luminance": sometimes(np.clip(random.normal(95, 40, n_clips), 1, 245), 0.02),
        "motion": sometimes(random.lognormal(0.2, 1.1, n_clips), 0.02),
        "sharpness": sometimes(random.lognormal(3.2, 0.9, n_clips), 0.02),
        "loudness_dbfs": sometimes(np.clip(random.normal(-24, 8, n_clips), -90, 0), 0.02),
        "speech_ratio": sometimes(random.beta(6, 1.7, n_clips), 0.05),
        "music_ratio": sometimes(random.beta(0.5, 5, n_clips), 0.05),
        "singing_ratio": sometimes(random.beta(0.3, 9, n_clips), 0.05),
        "snr_db": sometimes(random.normal(18, 7, n_clips), 0.08),
        "speech_quality": pa.nulls(n_clips, pa.float64()),
        "language": [LANGUAGES[min(5, int(random.exponential(1.2)))] for _ in range(n_clips)],
        "transcript": [SENTENCES[i % 4] for i in range(n_clips)],
        "n_words": random.poisson(16, n_clips).astype(np.int32),
        "face_detected_ratio": sometimes(np.clip(random.beta(30, 0.8, n_clips), 0, 1), 0.1),
        "face_gap_s": sometimes(random.exponential(0.3, n_clips), 0.1),
        "face_confidence": pa.nulls(n_clips, pa.float64()),
        "other_face_ratio": sometimes(np.where(random.random(n_clips) < 0.8, 0, random.random(n_clips)), 0.1),
        "face_fraction": sometimes(face_fraction, 0.1),
        "face_height_px": sometimes(face_fraction * height, 0.1),
        "yaw_deg_p95": sometimes(np.abs(random.normal(0, 24, n_clips)), 0.1),
        "pitch_deg_p95": sometimes(np.abs(random.normal(8, 9, n_clips)), 0.1),
        "roll_deg_p95": sometimes(np.abs(random.normal(0, 9, n_clips)), 0.1),
        "identity_consistency": sometimes(random.beta(40, 1.2, n_clips), 0.1),
        "human_score": pa.nulls(n_clips, pa.float64()),
        "sync_backend": pa.nulls(n_clips, pa.string()),
        **{name: pa.nulls(n_clips, pa.float64()) for name in sync_rules.COLUMNS[1:]},
        "error": pa.nulls(n_clips, pa.string()),
        "has_media": [True] * n_clips,
        "complete": [True] * n_clips,
        "stage_reasons": pa.array([[]] * n_clips, pa.list_(pa.string())),
    }
    table = pa.table(measured | columns)
    rows: list[dict[str, Any]] = [
        {"source_uris": [f"/videos/broken/{name}"], "error": message, "stage_reasons": [reason]}
        for name, reason, message in FAILURES
    ]
    rows.append({"source_uris": ["/videos/radio.m4a"], "stage_reasons": ["no_video"]})
    for row in rows:
        row |= {"has_media": False, "complete": True}
    table = pa.concat_tables([table, pa.Table.from_pylist(rows, table.schema)])
    decided = decide(table, filters or FiltersConfig())
    split = pc.if_else(pc.equal(decided["status"], "kept"), "train", pa.scalar(None, pa.string()))
    decided = decided.append_column("split", split)
    return decided.drop_columns(["stage_reasons", "has_media", "complete"])


class Strips(Mapping[str, bytes]):
    """A drawn strip of three frames for every clip, made when asked for."""

    def __init__(self, clips: pa.Table) -> None:
        self.clip_ids = [clip_id for clip_id in clips["clip_id"].to_pylist() if clip_id]

    def __getitem__(self, clip_id: str) -> bytes:
        return draw_strip(clip_id)

    def __iter__(self) -> Any:
        return iter(self.clip_ids)

    def __len__(self) -> int:
        return len(self.clip_ids)


def draw_strip(clip_id: str) -> bytes:
    """A JPEG of three 96-pixel-high frames with somebody in them, told apart by `clip_id`."""
    random = np.random.default_rng(int(clip_id, 16) % 2**32)
    width = int(random.choice([171, 171, 171, 128, 96, 54]))
    strip = Image.new("RGB", (3 * width, 96))
    room = tuple(int(x) for x in random.integers(30, 210, 3))
    skin = tuple(int(x) for x in np.array([224, 172, 138]) * random.uniform(0.45, 1.05))
    shirt = tuple(int(x) for x in random.integers(20, 230, 3))
    size, x0 = random.uniform(14, min(34, width * 0.4)), random.uniform(0.35, 0.65) * width
    for i in range(3):
        frame = Image.new("RGB", (width, 96), room)
        draw = ImageDraw.Draw(frame)
        draw.rectangle((0, 70, width, 96), fill=tuple(x * 2 // 3 for x in room))
        x, y = x0 + random.normal(0, 2), 46 + random.normal(0, 2)
        draw.ellipse((x - 1.9 * size, y + size, x + 1.9 * size, y + 5 * size), fill=shirt)
        draw.ellipse((x - 0.75 * size, y - size, x + 0.75 * size, y + size), fill=skin)
        hair = (x - 0.82 * size, y - 1.12 * size, x + 0.82 * size, y + 0.7 * size)
        draw.pieslice(hair, 180, 360, (40, 28, 22))
        mouth = random.uniform(0.04, 0.2) * size
        draw.ellipse(
            (x - 0.25 * size, y + 0.5 * size - mouth, x + 0.25 * size, y + 0.5 * size + mouth), (110, 30, 34)
        )
        strip.paste(frame, (i * width, 0))
    encoded = io.BytesIO()
    strip.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
