"""Made people: clips whose embeddings lie about as far apart as dlib's do on real ones.

Measured on the real clips (see docs/curation.md): clips of one video 0.24 apart, of one person in other
pictures 0.37, of different people 0.84, root mean squares."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

DIMENSIONS = 128
BACKEND = "detector+dlib-face-recognition"
CLIP_VARIANCE = 0.24**2 / 2
SESSION_VARIANCE = 0.37**2 / 2 - CLIP_VARIANCE
PERSON_VARIANCE = 0.84**2 / 2 - SESSION_VARIANCE - CLIP_VARIANCE
PERSON_RANK, CLIP_RANK = 33, 21  # of the directions in which they differ


def embeddings(
    n_people: int, sessions: int, clips: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 128) float32 of n_people * sessions * clips clips, each one's person and its session."""
    random = np.random.default_rng(seed)

    def drawn(count: int, rank: int, variance: float) -> np.ndarray:
        directions = np.linalg.qr(random.normal(size=(DIMENSIONS, rank)))[0].astype(np.float32)
        return random.standard_normal((count, rank), np.float32) @ directions.T * (variance / rank) ** 0.5

    people = drawn(n_people, PERSON_RANK, PERSON_VARIANCE)
    meetings = np.repeat(people, sessions, 0) + drawn(n_people * sessions, CLIP_RANK, SESSION_VARIANCE)
    session = np.repeat(np.arange(n_people * sessions), clips)
    directions = np.linalg.qr(random.normal(size=(DIMENSIONS, CLIP_RANK)))[0].astype(np.float32)
    vectors = meetings[session].astype(np.float32)
    for start in range(0, len(vectors), 65_536):
        some = vectors[start : start + 65_536]
        noise = random.standard_normal((len(some), CLIP_RANK), np.float32) @ directions.T
        some += noise * (CLIP_VARIANCE / CLIP_RANK) ** 0.5
    order = random.permutation(len(vectors))
    return vectors[order], session[order] // sessions, session[order]


def clips_of(
    vectors: np.ndarray,
    sources: Sequence[object],
    speakers: Sequence[str | None] | None = None,
    *,
    face_backend: str = BACKEND,
    first: int = 0,
) -> pa.Table:
    """Rows as `identify` takes them; all kept. `first` numbers the clips, whose names are hashes."""
    count = len(vectors)
    offsets = pa.array(np.arange(count + 1) * vectors.shape[1], pa.int32())
    names = [hashlib.sha256(f"clip {first + i}".encode()).hexdigest()[:16] for i in range(count)]
    return pa.table(
        {
            "clip_id": names,
            "source_sha256": pa.array([str(source) for source in sources], pa.string()),
            "speaker": pa.array(speakers or [None] * count, pa.string()),
            "face_backend": pa.array([face_backend] * count, pa.string()),
            "status": pa.array(["kept"] * count, pa.string()),
            "identity_embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel(), pa.float32())),
        }
    )


def purity_and_completeness(identity: np.ndarray, person: np.ndarray) -> tuple[float, float]:
    """Share of clips in identities of mostly their person, and in their person's largest identity."""
    pair, count = np.unique(np.stack([identity, person]), axis=1, return_counts=True)
    scores = []
    for side in pair:
        largest = np.zeros(side.max() + 1, int)
        np.maximum.at(largest, side, count)
        scores.append(largest.sum() / len(identity))
    return scores[0], scores[1]
