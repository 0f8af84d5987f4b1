"""Duplicates among many clips: time, memory, and what is found of what was planted.

    python -m benchmarks.duplicates [--clips 10000 100000 1000000]

Fingerprints are made, with the structure and the errors that real ones have: speakers with many takes in
one set (pictures a few bits apart), copies with bits turned over as measured on media encoded again, cut
off by up to 0.6 s at both ends, an intro that thousands share, one sound under many faces, and one
clip that was posted a thousand times. Each size runs in a process of its own, whose peak counts.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context

import numpy as np
import pyarrow as pa

from data_pipeline.config import DuplicatesConfig
from data_pipeline.duplicates import with_groups
from data_pipeline.stages.fingerprint import ANCHOR, PICTURES, SWELL_REACH

SIZES = (10_000, 100_000, 1_000_000)
CLIP_STEPS = (300, 1400)  # 3 to 14 s
ANCHORS_A_STEP = 0.0238
TAKES = 100  # of a speaker, on average
LOOKALIKE_BITS = 0.1  # share that differs between two takes of one speaker
COPIES = 0.05  # of all clips, each of another one
PICTURE_ERROR, SOUND_ERROR = 0.045, (0.02, 0.08)  # share of bits, of copies; the latter by clip
LOST = 0.08  # share of anchors that a copy does not have
TRIM_STEPS = 60
INTRO = 0.02  # share of clips that begin with one jingle
MEME = 0.01  # share of clips whose whole sound is one and the same, each under another face
POSTED = 1_000  # times one clip was posted


def main(arguments: Sequence[str] = ()) -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=SIZES)
    for n_clips in parser.parse_args(arguments).clips:
        process = get_context("spawn").Process(target=_measure, args=(n_clips,))
        process.start()
        process.join()


def _measure(n_clips: int) -> None:
    rows, original = made(n_clips)
    before_mb = _peak_mb()
    started, cpu_started = time.perf_counter(), time.process_time()
    groups = with_groups(rows, DuplicatesConfig())["duplicate_group"].combine_chunks()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    _, group = np.unique(np.array(groups.fill_null("").to_pylist()), return_inverse=True)
    alone = ~groups.is_valid().to_numpy(zero_copy_only=False)
    group[alone] = -1 - np.arange(alone.sum())
    copies = np.flatnonzero(original >= 0)
    found = group[copies] == group[original[copies]]
    truth = np.where(original >= 0, original, np.arange(len(original)))
    print(
        f"{n_clips:>9,} clips: {seconds:.1f} s, CPU {cpu_s:.1f} s = {cpu_s / n_clips * 1e6:5.1f} us a clip, "
        f"peak {_peak_mb():,.0f} MB ({before_mb:,.0f} before); "
        f"{found.sum():,} of {len(copies):,} copies found ({found.mean():.2%}); "
        f"clips in a group with another take: {_mixed(group, truth):,}",
        flush=True,
    )


def _mixed(group: np.ndarray, truth: np.ndarray) -> int:
    """Clips whose group holds more than one take."""
    grouped = group >= 0
    different = np.unique(np.stack([group[grouped], truth[grouped]]), axis=1)[0]
    takes = np.bincount(different)
    return int((takes[group[grouped]] > 1).sum())


def made(n_clips: int, seed: int = 0) -> tuple[pa.Table, np.ndarray]:
    """Rows with fingerprints, and (rows,) the row that each is a copy of, -1 for an original.

    The rows are in the order of their clip_id, which is drawn: copies are nowhere near each other."""
    random = np.random.default_rng(seed)
    n_posted = min(POSTED, n_clips // 100)
    n_copies = int(COPIES * n_clips) + n_posted
    n_originals = n_clips - n_copies
    of = random.integers(0, n_originals, n_copies)
    of[:n_posted] = 0
    anchors, first, steps = _takes(random, n_originals)
    pictures = _pictures(random, n_originals)
    copied, copied_first, copied_steps = _copies(random, anchors, first, steps, of)
    anchors = np.concatenate([anchors, copied])
    first = np.concatenate([first, copied_first[1:] + first[-1]])
    pictures = np.concatenate([pictures, pictures[of] ^ _turned(random, pictures[of].shape, PICTURE_ERROR)])
    original = np.concatenate([np.full(n_originals, -1), of])
    columns = {
        "clip_id": pa.array([f"{value:016x}" for value in random.integers(0, 2**63, n_clips)]),
        "source_sha256": pa.array([f"{row:064x}" for row in range(n_clips)]),
        "start_s": pa.array(np.zeros(n_clips)),
        "end_s": pa.array(np.concatenate([steps, copied_steps]) / 100.0),
        "audio_fingerprint": _binary(first * ANCHOR.itemsize, anchors.tobytes()),
        "phash": pa.array(_hex(pictures)),
    }
    rows = pa.table(columns)
    order = np.argsort(rows["clip_id"].to_numpy())
    place = np.argsort(order)
    original = np.where(original >= 0, place[original], -1)[order]
    return rows.take(pa.array(order)), original


def _takes(random: np.random.Generator, n_clips: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors of all clips, (clips + 1,) where each begins, and (clips,) their lengths in steps."""
    steps = random.integers(*CLIP_STEPS, n_clips)
    steps[0] = sum(CLIP_STEPS) // 2  # the one that is posted over and over
    counts = np.maximum(random.poisson(steps * ANCHORS_A_STEP), 3)
    counts = np.minimum(counts, steps // (2 * SWELL_REACH + 2))
    first = np.concatenate([[0], np.cumsum(counts)])
    anchors = np.zeros(first[-1], ANCHOR)
    clip, nth = np.repeat(np.arange(n_clips), counts), np.arange(first[-1]) - np.repeat(first[:-1], counts)
    room = (steps // counts)[clip]
    anchors["step"] = nth * room + random.integers(0, np.maximum(room - SWELL_REACH, 1))
    anchors["bits"] = random.integers(0, 2**64, len(anchors), np.uint64)
    bits, at = anchors["bits"], anchors["step"]
    with_intro = random.random(n_clips) < INTRO
    chosen = with_intro[clip] & (nth < 4)
    jingle = random.integers(0, 2**64, 4, np.uint64)
    bits[chosen] = jingle[nth[chosen]] ^ _turned(random, int(chosen.sum()), SOUND_ERROR[0])
    at[chosen] = nth[chosen] * 25
    in_meme = (np.arange(n_clips) % round(1 / MEME) == 1)[clip]
    meme = random.integers(0, 2**64, int(nth.max()) + 1, np.uint64)
    bits[in_meme] = meme[nth[in_meme]] ^ _turned(random, int(in_meme.sum()), SOUND_ERROR[0])
    at[in_meme] = nth[in_meme] * 30
    steps[clip[in_meme]] = 30 * counts[clip[in_meme]]
    return anchors, first, steps


def _pictures(random: np.random.Generator, n_clips: int) -> np.ndarray:
    """(clips, PICTURES) uint64: each speaker's takes look alike."""
    speakers = random.integers(0, 2**64, max(n_clips // TAKES, 1), np.uint64)
    take = speakers[random.integers(0, len(speakers), n_clips)]
    meme = np.arange(n_clips) % round(1 / MEME) == 1
    take[meme] = random.integers(0, 2**64, int(meme.sum()), np.uint64)
    return take[:, None] ^ _turned(random, (n_clips, PICTURES), LOOKALIKE_BITS)


def _copies(
    random: np.random.Generator, anchors: np.ndarray, first: np.ndarray, steps: np.ndarray, of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The clips `of` again: trimmed, some anchors lost, bits turned over."""
    counts = np.diff(first)[of]
    ends = np.cumsum(counts)
    clip = np.repeat(np.arange(len(of)), counts)
    copied = anchors[np.arange(ends[-1]) + np.repeat(first[of] - (ends - counts), counts)]
    start = random.integers(0, TRIM_STEPS, len(of))
    length = steps[of] - start - random.integers(0, TRIM_STEPS, len(of))
    at = copied["step"].astype(np.int64) - start[clip] + random.integers(-1, 2, len(copied))
    stays = (at >= 0) & (at < length[clip]) & (random.random(len(copied)) > LOST)
    error = random.uniform(*SOUND_ERROR, len(of))[clip]
    copied["step"], copied["bits"] = np.maximum(at, 0), copied["bits"] ^ _turned(random, len(copied), error)
    first = np.concatenate([[0], np.cumsum(np.bincount(clip[stays], minlength=len(of)))])
    return copied[stays], first, length


def _turned(
    random: np.random.Generator, shape: int | tuple[int, ...], share: float | np.ndarray
) -> np.ndarray:
    """uint64 in which each bit is set with probability `share`."""
    turned = np.zeros(shape, np.uint64)
    for bit in range(64):
        turned |= (random.random(shape) < share).astype(np.uint64) << np.uint64(bit)
    return turned


def _binary(offsets: np.ndarray, data: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _hex(pictures: np.ndarray) -> list[str]:
    text = pictures.astype(">u8").tobytes().hex()
    width = 16 * PICTURES
    return [text[start : start + width] for start in range(0, len(text), width)]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
