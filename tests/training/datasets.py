"""Small real datasets to train on: clips of numbered frames, as pack leaves them, in a tenth of a second.

Frame k of clip c shows the number `frame_number(c, k)` (tests.data_pipeline.makers.number_in reads it back),
and its sound is a tone of the clip's own that swells from its begin to its end. Boxes move a little, the mesh
has its mouth where `MOUTH` says.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.clip import clip_id_of
from data_pipeline.config import load_config
from data_pipeline.dataset import MANIFEST, SCHEMA_VERSION, Dataset, Version, commit
from data_pipeline.ledger import MEASUREMENTS
from data_pipeline.models.face_mesh import N_POINTS
from data_pipeline.models.lip_shape import LEFT_CORNER, OUTER_LOWER, OUTER_UPPER, RIGHT_CORNER
from data_pipeline.shards import file_sha256, write_shards
from tests.data_pipeline.makers import numbered, write_sound, write_video
from tests.data_pipeline.rows import GOOD

FPS = 25
RATE = 16_000
FACE_BACKEND = "centerface+mediapipe-face-mesh+dlib-face-recognition"
MOUTH = (0.4, 0.6, 0.6, 0.7)
"""x0 y0 x1 y1 of the outer lips, in fractions of every frame."""


def make_dataset(
    root: Path,
    clips: int = 4,
    frames: int | Sequence[int] = 30,
    size_px: int | tuple[int, int] = 64,
    identity_dim: int = 128,
    splits: Sequence[str] | None = None,
    shard_bytes: float = 1e9,
    seed: int = 0,
    moving: bool = True,
) -> Dataset:
    """A dataset of so many kept clips of so many frames each, in shards of its splits.

    Args:
        frames: of each clip, or of all.
        size_px: of the pictures, or their (width, height).
        splits: of each clip; None: all are "train".
        shard_bytes: a small number puts every clip into a shard of its own.
        seed: another one gives other clips (ids, numbers, tones).
        moving: whether a clip's frames have numbers of their own, else all have its first's.
    """
    each_frames = [frames] * clips if isinstance(frames, int) else list(frames)
    each_split = ["train"] * clips if splits is None else list(splits)
    rows = [
        _row(seed + number, n_frames, size_px, split, f"A person, speaking for the {number + 1}. time.")
        for number, (n_frames, split) in enumerate(zip(each_frames, each_split, strict=True))
    ]
    media = _Media(root.parent / f"{root.name}-media", seed, rows, size_px, identity_dim, moving)
    rows.sort(key=lambda row: row["clip_id"])
    digests: dict[str, str] = {}
    for split in dict.fromkeys(each_split):
        chosen = [row for row in rows if row["split"] == split]
        written, places = write_shards(root / "shards", split, chosen, media, shard_bytes)
        digests |= written
        for row in chosen:
            place = places[row["clip_id"]]
            row |= {"shard": place.shard, "byte_offset": place.offset, "byte_size": place.size}
    _commit(root, rows, digests)
    return Dataset.open(root)


def frame_number(clip: int, frame: int) -> int:
    """The number that a frame of the `clip`-th clip (counted from `seed`) shows."""
    return (clip * 97 + frame) % 1024


def clip_ids(clips: int, seed: int = 0) -> list[str]:
    """The clips' names in the order in which they were given (not that of the manifest)."""
    return [_clip_id(seed + number) for number in range(clips)]


def _clip_id(number: int) -> str:
    return clip_id_of(_source(number), 0.0, 1.0)


def _source(number: int) -> str:
    return f"{number:064x}"


def _row(
    number: int, n_frames: int, size_px: int | tuple[int, int], split: str, caption: str
) -> dict[str, Any]:
    width, height = size_px if isinstance(size_px, tuple) else (size_px, size_px)
    measured = dict.fromkeys([*MEASUREMENTS.names, *MANIFEST.names]) | GOOD
    about = {"clip_id": _clip_id(number), "source_sha256": _source(number), "caption": caption}
    about |= {"start_s": 0.0, "end_s": n_frames / FPS, "face_backend": FACE_BACKEND}
    about |= {"width": width, "height": height, "fps": float(FPS), "n_frames": n_frames}
    about |= {"source_uris": [f"/videos/{number}.mp4"], "status": "kept", "reasons": [], "split": split}
    return measured | about


class _Media:
    """Encodes a clip's media when its shard is written."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        rows: Sequence[Mapping[str, Any]],
        size_px: int | tuple[int, int],
        identity_dim: int,
        moving: bool,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.size = size_px if isinstance(size_px, tuple) else (size_px, size_px)
        self.identity_dim = identity_dim
        self.moving = moving
        self.numbers = {row["clip_id"]: seed + at for at, row in enumerate(rows)}

    def read(self, sample: Mapping[str, Any]) -> dict[str, bytes]:
        clip_id, n_frames = sample["clip_id"], sample["n_frames"]
        number = self.numbers[clip_id]
        video = write_video(
            self.folder / f"{clip_id}.mp4",
            n_frames=n_frames,
            fps=FPS,
            size=self.size,
            pixels=lambda k, w, h: numbered(frame_number(number, k if self.moving else 0), w, h),
        )
        sound = write_sound(self.folder / f"{clip_id}.flac", _tone(number, n_frames), rate=RATE, codec="flac")
        arrays = _face(number, n_frames, self.identity_dim)
        return {".mp4": video.read_bytes(), ".flac": sound.read_bytes(), ".npz": arrays}


def _tone(number: int, n_frames: int) -> np.ndarray:
    """(S, 1) int16: a clip's own pitch, louder and louder."""
    times_s = np.arange(n_frames * RATE // FPS) / RATE
    wave = np.sin(2 * np.pi * (200 + 60 * (number % 20)) * times_s) * np.linspace(0.05, 0.8, len(times_s))
    return (wave * 32767).astype(np.int16)[:, None]


def _face(number: int, n_frames: int, identity_dim: int) -> bytes:
    """The clip's .npz, with a face in every frame."""
    sway = 0.02 * np.sin(np.arange(n_frames) / 5)[:, None]
    boxes = np.float32([0.25, 0.2, 0.75, 0.85]) + (sway * [1, 0, 1, 0]).astype(np.float32)
    landmarks = np.full((n_frames, N_POINTS, 2), 0.5, np.float32)
    x0, y0, x1, y1 = MOUTH
    landmarks[:, LEFT_CORNER], landmarks[:, RIGHT_CORNER] = (x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)
    for points, y in ((OUTER_UPPER, y0), (OUTER_LOWER, y1)):
        landmarks[:, points] = np.stack([np.linspace(x0, x1, 7)[1:-1], np.full(5, y)], axis=1)
    identity = np.random.default_rng(1000 + number).normal(size=identity_dim)
    data = io.BytesIO()
    np.savez(
        data,
        boxes=boxes,
        landmarks=landmarks,
        identity=(identity / np.linalg.norm(identity)).astype(np.float32),
        identity_backend=FACE_BACKEND,
    )
    return data.getvalue()


def _commit(root: Path, rows: list[dict[str, Any]], digests: dict[str, str]) -> None:
    part = "manifest/1/part-00000.parquet"
    (root / part).parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST), root / part)
    config = load_config("talking_head", ["sources=/videos", f"output={root}"])
    commit(
        root,
        "small",
        Version(
            version=1,
            schema_version=SCHEMA_VERSION,
            package_version="0.1.0",
            measure_sha256=config.measure_sha256(),
            policy_sha256=config.policy_sha256(),
            manifest_sha256={part: file_sha256(root / part)},
            shards=digests,
            weights={},
            config=config.model_dump(mode="json"),
        ),
    )
