"""Rows with fingerprints whose truth is known: takes, copies of them, and who is seen in them."""

from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.stages.fingerprint import ANCHOR, PICTURES
from tests.data_pipeline.rows import measurements

SPACING = 40  # steps between anchors, about


def take(seed: int, seconds: float = 8.0) -> np.ndarray:
    """(A,) of ANCHOR: what somebody says, drawn."""
    random = np.random.default_rng(seed)
    starts = np.arange(round(seconds * 100 / SPACING)) * SPACING
    anchors = np.zeros(len(starts), ANCHOR)
    anchors["step"] = starts + random.integers(0, SPACING - 14, len(starts))
    anchors["bits"] = random.integers(0, 2**64, len(starts), np.uint64)
    return anchors


def part(anchors: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """What a clip from `start_s` to `end_s` has of them."""
    start, end = round(start_s * 100), round(end_s * 100)
    inside = anchors[(anchors["step"] >= start) & (anchors["step"] < end)].copy()
    inside["step"] -= start
    return inside


def face(seed: int) -> np.ndarray:
    """(PICTURES,) uint64: the hashes of one person in one light."""
    base = np.random.default_rng(1_000_000 + seed).integers(0, 2**64, 1, np.uint64)
    return np.repeat(base, PICTURES)


def coded(values: np.ndarray, seed: int, share: float = 0.04) -> np.ndarray:
    """Anchors or hashes with a share of their bits turned over, as another encoding does."""
    random = np.random.default_rng(seed)
    values = values.copy()
    bits = values if values.dtype.names is None else values["bits"]
    turned = random.random((*bits.shape, 64)) < share
    bits ^= (turned.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64)
    return values


def print_of(
    sound: np.ndarray, picture: np.ndarray, seconds: float = 8.0, start_s: float = 0.0, **facts: Any
) -> dict[str, Any]:
    """A row's difference from a good one; every row is of a source of its own unless told."""
    return {
        "audio_fingerprint": sound.tobytes(),
        "phash": "".join(f"{value:016x}" for value in picture),
        "start_s": start_s,
        "end_s": start_s + seconds,
    } | facts


def printed(*differences: dict[str, Any]) -> pa.Table:
    """Rows with clip_ids 0, 1, 2, ... in hexadecimal."""
    own = [{"source_sha256": f"{row:064x}"} | difference for row, difference in enumerate(differences)]
    return measurements(*own)
