"""Counting a table's clips."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def hours_of(rows: pa.Table) -> float:
    """Hours of clips in a table with `start_s` and `end_s`."""
    lengths = pc.subtract(rows["end_s"], rows["start_s"]).to_numpy(zero_copy_only=False)
    return float(np.nansum(lengths.astype(float))) / 3600


def counts_of(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, most frequent first; nulls are left out."""
    counts = {row["values"]: row["counts"] for row in column.value_counts().to_pylist() if row["values"]}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
