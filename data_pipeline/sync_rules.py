"""Sync rules: which measured clips are off sync, and of which nothing certain is known.

Each backend has its own scale, so what a limit of "auto" means depends on the row's `sync_backend`:

                     min_sync_confidence       max_sync_distance
    syncnet          3 (the field's)           none
    lip_correlation  none                      0.78: at no offset do lips and sound have 0.22 in common

An offset is believed where the confidence is at least `min_sync_confidence` (3 in both scales where that is
auto or off) and the clip's own speech beats other speech by `min_sync_margin`.

    off_sync         a believed offset beyond `max_sync_offset_frames`; or more than `max_sync_distance`
    sync_unmeasured  no offset is believed, and `min_sync_confidence` asks for one

So lip_correlation, whose doubt about a short or quiet clip says little, rejects only on evidence, and
`min_sync_confidence=4` keeps, with either backend, only clips whose offset is that sure.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.config import FiltersConfig

BELIEVED_FROM = 3.0
SYNCNET = "syncnet"  # its rows' backend is named after the published file: syncnet_v2
LIP_CORRELATION_DISTANCE = 0.78

COLUMNS = ("sync_backend", "sync_offset_frames", "sync_confidence", "sync_distance", "sync_margin")


@dataclass(frozen=True, slots=True)
class SyncScores:
    """The stored scores of some rows; NaN where one is missing."""

    backend: np.ndarray
    """(N,) str or None: None where sync was not measured."""
    offset_frames: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    margin: np.ndarray


def min_confidence(filters: FiltersConfig, backend: str | None) -> float | None:
    """The confidence that rows of this backend must have."""
    if filters.min_sync_confidence != "auto":
        return filters.min_sync_confidence
    return BELIEVED_FROM if (backend or "").startswith(SYNCNET) else None


def max_distance(filters: FiltersConfig, backend: str | None) -> float | None:
    """The distance that rows of this backend may have."""
    if filters.max_sync_distance != "auto":
        return filters.max_sync_distance
    return None if (backend or "").startswith(SYNCNET) else LIP_CORRELATION_DISTANCE


def sync_verdicts(scores: SyncScores, filters: FiltersConfig) -> tuple[np.ndarray, np.ndarray]:
    """(off_sync, sync_unmeasured), each (N,) bool. Rows without a backend violate nothing."""
    off = np.zeros(len(scores.backend), bool)
    unmeasured = np.zeros(len(scores.backend), bool)
    for backend in {name for name in scores.backend if name is not None}:
        of_backend = np.array([name == backend for name in scores.backend], bool)
        wanted, limit = min_confidence(filters, backend), max_distance(filters, backend)
        believed = scores.confidence >= (BELIEVED_FROM if wanted is None else wanted)
        if filters.min_sync_margin is not None:  # where there was no decoy, there is no margin to ask for
            believed &= ~(scores.margin < filters.min_sync_margin)
        beyond = np.zeros(len(believed), bool)
        if filters.max_sync_offset_frames is not None:
            beyond |= believed & (np.abs(scores.offset_frames) > filters.max_sync_offset_frames)
        if limit is not None:
            beyond |= scores.distance > limit
        off |= of_backend & beyond
        if wanted is not None:
            unmeasured |= of_backend & ~believed & ~beyond
    return off, unmeasured
