"""How long it takes to tell who is who among 10,000 to 1,000,000 clips, how well, and in how much memory.

Made people, 10 clips each in two sessions, whose embeddings lie as far apart as dlib's on real clips
(tests/data_pipeline/people.py). Each size runs in a process of its own, so that peaks are its own.
"""

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.config import IdentitiesConfig, SplitsConfig
from data_pipeline.identities import identify
from data_pipeline.splits import assign, with_splits
from tests.data_pipeline.people import clips_of, embeddings, purity_and_completeness

SIZES = (10_000, 100_000, 1_000_000)
SESSIONS, CLIPS = 2, 5
MORE = 10_000


def main(sizes: tuple[int, ...] = SIZES) -> None:
    """Print seconds, purity and peak memory at each size, and of adding clips to it."""
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(_measure, size).result()


def _measure(size: int) -> None:
    config, shares = IdentitiesConfig(), SplitsConfig(val=0.05, test=0.05)
    more = min(MORE, size // 10)
    vectors, person, session = embeddings((size + more) // (SESSIONS * CLIPS), SESSIONS, CLIPS)
    every = clips_of(vectors, session)
    del vectors
    clips = every.slice(0, size)
    print(f"{size} clips of {len(np.unique(person[:size]))} people, {_peak_gb():.2f} GB:", flush=True)
    time_taken, (rows, identities) = _timed(lambda: identify(clips, config))
    print(f"  {time_taken}; {_scores(rows, identities, person[:size], shares)}", flush=True)
    time_taken, (later, after) = _timed(lambda: identify(every, config, identities))
    print(f"  + {more} clips: {time_taken}; {_scores(later, after, person[: size + more], shares)}")
    moved = _moved(rows, later.slice(0, size), after)
    merged = sum(map(len, after["merged"].to_pylist()))
    print(f"  {merged} identities merged, {moved} clips changed theirs otherwise", flush=True)


def _scores(rows: pa.Table, identities: pa.Table, person: np.ndarray, shares: SplitsConfig) -> str:
    """Purity, completeness, and the share of people who are in more than one split."""
    rows = with_splits(rows, assign(identities, shares))
    held = np.unique(np.stack([person, _codes(rows["split"])]), axis=1)[0]
    purity, completeness = purity_and_completeness(_codes(rows["identity_id"]), person)
    return (
        f"{identities.num_rows} identities, purity {purity:.5f}, completeness {completeness:.5f}, "
        f"people in two splits {(np.bincount(held) > 1).mean():.3%}"
    )


def _moved(rows: pa.Table, later: pa.Table, after: pa.Table) -> int:
    merged = zip(after["identity_id"].to_pylist(), after["merged"].to_pylist(), strict=True)
    became = {old: new for new, names in merged for old in names}
    pairs = zip(rows["identity_id"].to_pylist(), later["identity_id"].to_pylist(), strict=True)
    return sum(became.get(old, old) != new for old, new in pairs)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().dictionary_encode().indices.to_numpy()


def _timed(work: Callable[[], Any]) -> tuple[str, Any]:
    """What the work took, on the clock and of all cores, and what came of it."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    return f"{seconds:.1f} s, {cpu_s:.1f} s of CPU, peak {_peak_gb():.2f} GB", result


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main(tuple(int(size) for size in sys.argv[1:]) or SIZES)
