"""Rows of measurements for tests: a good clip, and what differs from it."""

from typing import Any

import pyarrow as pa

from data_pipeline.ledger import MEASUREMENTS

GOOD: dict[str, Any] = {
    "clip_id": "0123456789abcdef",
    "source_sha256": "ab" * 32,
    "start_s": 0.0,
    "end_s": 8.0,
    "source_fps": 25.0,
    "source_width": 640,
    "source_height": 480,
    "repeated_frame_ratio": 0.0,
    "luminance": 110.0,
    "sharpness": 100.0,
    "motion": 2.0,
    "loudness_dbfs": -22.0,
    "speech_ratio": 0.8,
    "music_ratio": 0.0,
    "singing_ratio": 0.0,
    "snr_db": 25.0,
    "n_faces_max": 1,
    "other_face_ratio": 0.0,
    "face_fraction": 0.4,
    "face_height_px": 200.0,
    "face_detected_ratio": 1.0,
    "face_gap_s": 0.0,
    "face_confidence": 0.92,
    "yaw_deg_p95": 10.0,
    "pitch_deg_p95": 5.0,
    "roll_deg_p95": 3.0,
    "identity_consistency": 1.0,
    "stage_reasons": [],
    "complete": True,
    "has_media": True,
}


def measurements(*differences: dict[str, Any]) -> pa.Table:
    """One row for each of `differences`, good in all else."""
    rows = [
        GOOD | {"clip_id": f"{number:016x}"} | difference for number, difference in enumerate(differences)
    ]
    return pa.Table.from_pylist(rows, MEASUREMENTS)
