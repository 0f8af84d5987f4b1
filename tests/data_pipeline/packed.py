"""Small packed datasets of people, faces and takes that are known: real H.264, FLAC and arrays."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_pipeline.clip import Clip, clip_id_of
from data_pipeline.config import CurationConfig, load_config
from data_pipeline.ledger import LISTING, Ledger, listing_path
from data_pipeline.media import encode_clip
from data_pipeline.models.embedded_faces import EmbeddedFaces
from tests.data_pipeline.makers import numbered, write_video
from tests.data_pipeline.rows import GOOD

N_FRAMES = 25


def face(person: int) -> np.ndarray:
    """(128,) float32: an embedding that nobody else has; two people's are more than 1 apart."""
    vector = np.random.default_rng(1000 + person).normal(size=128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def sha256_of(name: str) -> str:
    return name.encode().hex().ljust(64, "0")[:64]


def config_of(root: Path | str, *overrides: str) -> CurationConfig:
    given = ["splits.val=0", "splits.test=0", *overrides]
    return load_config("talking_head", ["sources=/videos", f"output={root}", *given])


def encoded(folder: Path, person: int) -> Path:
    """One second of video that only this person has, as encode leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    source = write_video(
        folder / "source.mp4",
        n_frames=40,
        size=(128, 96),
        pixels=lambda k, width, height: numbered(k + 40 * person, width, height),
        sound=np.random.default_rng(person).integers(-9000, 9000, (80_000, 1)).astype(np.int16),
    )
    encode_clip(
        source,
        folder / "clip.mp4",
        folder / "clip.flac",
        start_s=0.0,
        end_s=1.0,
        crop=(0, 0, 96, 96),
        size=(96, 96),
        fps=25.0,
        crf=30,
        preset="ultrafast",
    )
    np.savez(
        folder / "clip.npz",
        boxes=np.zeros((N_FRAMES, 4), np.float32),
        landmarks=np.zeros((N_FRAMES, 5, 2), np.float32),
        identity=face(person),
        identity_backend=EmbeddedFaces.name,
    )
    return folder


def thumbnail(person: int) -> bytes:
    """A JPEG that only this person has."""
    noise = np.random.default_rng(person).integers(0, 255, (24, 72, 3)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "JPEG")
    return data.getvalue()


def add_source(root: Path, media: dict[int, Path], name: str, *clips: dict, **outcome) -> list[str]:
    """A measured source of one-second clips, each of a `person`; returns their names."""
    config = config_of(root)
    ledger = Ledger(root, config.measure_sha256())
    sha256 = sha256_of(name)
    ids = []
    for number, difference in enumerate(clips):
        person = difference.get("person")
        values = {key: value for key, value in (GOOD | difference).items() if key in Clip.__slots__}
        values |= {"source_sha256": sha256, "start_s": float(number), "end_s": number + 1.0}
        values["clip_id"] = clip_id_of(sha256, number, number + 1)
        if person is None:
            values["identity_consistency"] = None
        else:
            embedding = [float(value) for value in face(person)]
            values |= {"face_backend": EmbeddedFaces.name, "identity_embedding": embedding}
            values["thumbnail"] = thumbnail(person)
        if person is not None and difference.get("has_media", True):
            values |= {"width": 96, "height": 96, "fps": 25.0, "n_frames": N_FRAMES, "caption": "A person."}
            folder = ledger.folder(sha256)
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in (".mp4", ".flac", ".npz"):
                shutil.copy(media[person] / f"clip{suffix}", folder / f"{values['clip_id']}{suffix}")
        ledger.add_clip(Clip(f"/videos/{name}", **values), "", complete=difference.get("complete", True))
        ids.append(values["clip_id"])
    source = Clip(f"/videos/{name}", source_sha256=sha256, start_s=0.0, end_s=float(len(clips)), **outcome)
    ledger.add_source(source, ids, "")
    return ids


def write_listing(root: Path, *names: str, **facts: dict) -> None:
    rows = []
    for name in names:
        row = {"uri": f"/videos/{name}", "window": "", "source_sha256": sha256_of(name)}
        rows.append(row | facts.get(Path(name).stem, {}))
    path = listing_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, LISTING), path)
