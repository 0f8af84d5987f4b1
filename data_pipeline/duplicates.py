"""Duplicates: which clips of a dataset are the same take, by their fingerprints.

    (A,) anchors of all clips -> equal bands -> pairs of clips with an offset in time -> verified pairs
    -> connected groups -> `duplicate_group`

Two clips are one take where both sound and picture say so:
  sound    shifted onto each other they share more than half of the longer one, and of the anchors in
           what they share enough agree;
  picture  the hashes around the face are close: the same words under another face are a dub.
One speaker's takes look alike and sound different; a dub into other words is another sample, too.
Parts of one source that a list let overlap are found by their times.

Candidates come from locality-sensitive hashing: anchors whose bits are equal in one of BANDS bands. In
a band a clip's anchor meets its next WINDOW neighbours only, so all is linear in the number of anchors.
A bucket larger than that (a jingle, a meme's sound) is ordered by picture, in each band by other bits:
copies stand side by side in it, and they meet in the smaller buckets of their own words besides.

Groups are connected: of A~B and B~C, A and C become duplicates too. What keeps such chains short is the
rule of the longer half: a clip has at most one partner in any other source, so a chain never walks along
one. Overlapping parts of one source are each held against the first of their group, not the last.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_pipeline.config import DuplicatesConfig
from data_pipeline.stages.fingerprint import ANCHOR, LAST_STEP, PICTURES, STEP_S

BANDS = 4  # each of 32 bits, 16 further on
WINDOW = 16
TOLERANCE = 2  # steps between the same anchor in two copies
MIN_ANCHORS = 3  # that agree: two may by chance
AT_ONCE = 200_000  # pairs

Pairs = np.ndarray
"""(N, 2) int64 row numbers, the lower first."""


def with_groups(rows: pa.Table, config: DuplicatesConfig) -> pa.Table:
    """The table with `duplicate_group`: the smallest clip_id of a clip's group, null where it is alone.

    Whether a clip is kept does not count: which of a group may stay is the policy's to say."""
    edges = np.concatenate([near_duplicates(rows, config), overlapping_parts(rows, config.min_overlap)])
    column = pa.array(_group_names(rows["clip_id"], edges), pa.string())
    if "duplicate_group" in rows.column_names:
        return rows.set_column(rows.column_names.index("duplicate_group"), "duplicate_group", column)
    return rows.append_column("duplicate_group", column)


def near_duplicates(rows: pa.Table, config: DuplicatesConfig) -> Pairs:
    """Pairs of rows whose fingerprints say that they are one take."""
    prints = _Prints.of(rows)
    if len(prints.row) < 2:
        return np.zeros((0, 2), np.int64)
    pairs, offsets = _candidates(prints, config)
    alike = [
        _sounds_alike(prints, pairs[part], offsets[part], config) for part in _parts(len(pairs), AT_ONCE)
    ]
    return np.sort(prints.row[pairs[np.concatenate(alike)]], axis=1)


@dataclass(frozen=True, slots=True)
class _Prints:
    """The fingerprints of C clips, A anchors in all."""

    row: np.ndarray
    """(C,) int64: where the clip stands in the table."""
    pictures: np.ndarray
    """(C, PICTURES) uint64; a clip with fewer repeats its last."""
    steps: np.ndarray
    """(C,) int64: the clip's length."""
    first: np.ndarray
    """(C + 1,) int64: where its anchors begin."""
    clip: np.ndarray
    """(A,) int32."""
    step: np.ndarray
    """(A,) int32, rising within a clip."""
    bits: np.ndarray
    """(A,) uint64."""
    place: np.ndarray
    """(A,) int64: clip and step in one number, rising."""

    @classmethod
    def of(cls, rows: pa.Table) -> "_Prints":
        """Of the clips that have enough of both."""
        length = _lengths(rows["audio_fingerprint"]) // ANCHOR.itemsize
        n_pictures = _lengths(rows["phash"]) // 16
        row = np.flatnonzero((length >= MIN_ANCHORS) & (n_pictures > 0))
        ids = rows["clip_id"].take(pa.array(row)).to_numpy()
        row = row[np.argsort(ids)]  # the table's own order decides nothing
        chosen = rows.select(["audio_fingerprint", "phash", "start_s", "end_s"]).take(pa.array(row))
        length, n_pictures = length[row], n_pictures[row]
        anchors = np.concatenate(
            [np.frombuffer(data, ANCHOR) for data in _joined(chosen["audio_fingerprint"])]
            or [np.zeros(0, ANCHOR)]
        )
        hashes = np.frombuffer(bytes.fromhex(b"".join(_joined(chosen["phash"])).decode()), ">u8")
        begin = np.concatenate([[0], np.cumsum(n_pictures)])
        nth = np.minimum(np.arange(PICTURES), n_pictures[:, None] - 1)
        clip = np.repeat(np.arange(len(row), dtype=np.int32), length)
        step = anchors["step"].astype(np.int32)
        seconds = chosen["end_s"].to_numpy() - chosen["start_s"].to_numpy()
        return cls(
            row=row,
            pictures=hashes[begin[:-1, None] + nth].astype(np.uint64),
            steps=np.minimum(np.rint(seconds / STEP_S).astype(np.int64), LAST_STEP),
            first=np.concatenate([[0], np.cumsum(length)]),
            clip=clip,
            step=step,
            bits=anchors["bits"].astype(np.uint64),
            place=_place(clip, step),
        )


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    """(rows,) int64: bytes of each value, 0 for null."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)


def _joined(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The values of each chunk, one after the other; no value may be null."""
    for chunk in column.chunks:
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if len(chunk):
            yield chunk.buffers()[2][int(offsets[0]) : int(offsets[-1])].to_pybytes()


def _place(clip: np.ndarray, step: np.ndarray) -> np.ndarray:
    """One number that orders by clip, then by step; steps before a clip's start stay beside it."""
    return (clip.astype(np.int64) << 20) + step + (1 << 18)


def _candidates(prints: _Prints, config: DuplicatesConfig) -> tuple[Pairs, np.ndarray]:
    """(N, 2) pairs of clips that look alike and have an anchor in common, and (N,) the steps by which the
    second begins later than the first."""
    found = []
    for band in range(BANDS):
        anchors = _meetings(prints, band, config.max_sound_bits)
        for part in _parts(len(anchors), AT_ONCE):
            near = _picture_distance(prints, prints.clip[anchors[part]]) <= config.max_picture_bits
            found.append(anchors[part][near])
    if not sum(map(len, found)):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    a, b = np.concatenate(found).T
    a, b = np.where(prints.clip[a] < prints.clip[b], (a, b), (b, a))
    offset = prints.step[a].astype(np.int64) - prints.step[b]
    meeting = np.stack([prints.clip[a], prints.clip[b], offset], axis=1)
    return _most_frequent(meeting[np.lexsort(meeting.T[::-1])])


def _most_frequent(meetings: np.ndarray) -> tuple[Pairs, np.ndarray]:
    """(N, 3) sorted rows of clip, clip, offset -> each pair once, with the offset that most agree on."""
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(meetings, axis=0) != 0).any(axis=1)]))
    counts = np.diff(np.append(starts, len(meetings)))
    different = meetings[starts]
    order = np.lexsort((different[:, 2], -counts, different[:, 1], different[:, 0]))
    pairs, offsets = different[order, :2], different[order, 2]
    new = np.concatenate([[True], (np.diff(pairs, axis=0) != 0).any(axis=1)])
    return pairs[new].astype(np.int64), offsets[new]


def _meetings(prints: _Prints, band: int, max_bits: int) -> Pairs:
    """(N, 2) anchors of different clips that are equal in one band and close in all bits."""
    order = _by_picture(prints, band)
    shift = np.uint64(16 * band)
    turned = (prints.bits >> shift) | (prints.bits << (np.uint64(64) - shift) if band else np.uint64(0))
    # The band above, the place in the order below: one sort of plain numbers.
    keyed = (turned[order] << np.uint64(32)) | np.arange(len(order), dtype=np.uint64)
    keyed.sort()
    key, anchor = keyed >> np.uint64(32), order[(keyed & np.uint64(0xFFFFFFFF)).astype(np.int64)]
    found = []
    for ahead in range(1, WINDOW + 1):
        at = np.flatnonzero(key[ahead:] == key[:-ahead])
        if not len(at):
            break
        a, b = anchor[at], anchor[at + ahead]
        close = np.bitwise_count(prints.bits[a] ^ prints.bits[b]) <= max_bits
        found.append(np.stack([a, b], axis=1)[close & (prints.clip[a] != prints.clip[b])])
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _by_picture(prints: _Prints, band: int) -> np.ndarray:
    """(A,) int64: all anchors, those of clips that look alike together."""
    shift = np.uint64(16 * band)
    picture = prints.pictures[:, band % PICTURES]
    turned = (picture >> shift) | (picture << (np.uint64(64) - shift) if band else np.uint64(0))
    return _expanded(prints.first, np.argsort(turned, kind="stable"))[1]


def _picture_distance(prints: _Prints, pairs: Pairs) -> np.ndarray:
    """(N,) bits: from each hash of one clip to the closest of the other, the mean over both clips'."""
    a, b = (prints.pictures[side] for side in pairs.T)
    bits = np.bitwise_count(a[:, :, None] ^ b[:, None, :])
    return (bits.min(axis=2).mean(axis=1) + bits.min(axis=1).mean(axis=1)) / 2


def _expanded(first: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The anchors of each of `clips` in turn: (E,) whose, as a place in `clips`, and (E,) which."""
    lengths = first[clips + 1] - first[clips]
    whose = np.repeat(np.arange(len(clips)), lengths)
    ends = np.cumsum(lengths)
    return whose, np.arange(len(whose)) + np.repeat(first[clips] - (ends - lengths), lengths)


def _sounds_alike(prints: _Prints, pairs: Pairs, offsets: np.ndarray, config: DuplicatesConfig) -> np.ndarray:
    """(N,) bool."""
    a, b = pairs.T
    start, end = np.maximum(0, offsets), np.minimum(prints.steps[a], prints.steps[b] + offsets)
    longer = np.maximum(prints.steps[a], prints.steps[b])
    agree = _agreeing(prints, pairs, offsets, config.max_sound_bits)
    shared = np.maximum(
        _anchors_between(prints, a, start, end), _anchors_between(prints, b, start - offsets, end - offsets)
    )
    return (
        (end - start > config.min_overlap * longer)
        & (agree >= MIN_ANCHORS)
        & (agree >= config.min_sound_share * shared)
    )


def _agreeing(prints: _Prints, pairs: Pairs, offsets: np.ndarray, max_bits: int) -> np.ndarray:
    """(N,): how many anchors of the first clip have their like at the same moment of the second."""
    whose, anchor = _expanded(prints.first, pairs[:, 0])
    wanted = prints.step[anchor] - offsets[whose]
    inside = (wanted >= -TOLERANCE) & (wanted <= prints.steps[pairs[whose, 1]] + TOLERANCE)
    whose, anchor, wanted = whose[inside], anchor[inside], wanted[inside]
    clip = pairs[whose, 1]
    # Anchors of a clip stand further apart than twice the tolerance: there is one at most.
    other = np.minimum(np.searchsorted(prints.place, _place(clip, wanted - TOLERANCE)), len(prints.place) - 1)
    there = (prints.clip[other] == clip) & (np.abs(prints.step[other] - wanted) <= TOLERANCE)
    close = np.bitwise_count(prints.bits[anchor] ^ prints.bits[other]) <= max_bits
    return np.bincount(whose[there & close], minlength=len(pairs))


def _anchors_between(prints: _Prints, clip: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return np.searchsorted(prints.place, _place(clip, end), "right") - np.searchsorted(
        prints.place, _place(clip, start)
    )


def overlapping_parts(rows: pa.Table, min_overlap: float) -> Pairs:
    """Pairs of rows that show the same stretch of one source: the first part, and each that shares more
    than `min_overlap` of the longer with it."""
    order = ("source_sha256", "start_s", "end_s", "clip_id")
    table = rows.select(order).append_column("row", pa.array(np.arange(len(rows))))
    table = table.filter(rows["clip_id"].is_valid()).sort_by([(name, "ascending") for name in order])
    if not len(table):
        return np.zeros((0, 2), np.int64)
    _, source = np.unique(table["source_sha256"].to_numpy(), return_inverse=True)
    start, end, row = (table[name].to_numpy() for name in ("start_s", "end_s", "row"))
    touches = np.flatnonzero((source[1:] == source[:-1]) & (start[1:] < end[:-1]))
    pairs = []
    for stretch in np.split(touches, np.flatnonzero(np.diff(touches) > 1) + 1) if len(touches) else []:
        leaders: list[int] = []
        for part in range(stretch[0], stretch[-1] + 2):
            leaders = [leader for leader in leaders if end[leader] > start[part]]
            leader = next((x for x in leaders if _overlap(start, end, x, part) > min_overlap), None)
            if leader is None:
                leaders.append(part)
            else:
                pairs.append((row[leader], row[part]))
    return np.sort(np.array(pairs, np.int64).reshape(-1, 2), axis=1)


def _overlap(start: np.ndarray, end: np.ndarray, a: int, b: int) -> float:
    """What two parts share, of the longer one."""
    shared = min(end[a], end[b]) - max(start[a], start[b])
    return float(shared / max(end[a] - start[a], end[b] - start[b]))


def _group_names(clip_ids: pa.ChunkedArray, edges: Pairs) -> np.ndarray:
    """(rows,) object: the smallest clip_id of each row's connected group, None where it is alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = np.full(len(clip_ids), None, object)
    if not len(edges):
        return names
    grouped, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(edges.shape)
    ones = np.ones(len(edges), bool)
    n_groups, group = connected_components(
        coo_array((ones, (ends[:, 0], ends[:, 1])), shape=(len(grouped),) * 2), directed=False
    )
    ids = np.array(clip_ids.take(pa.array(grouped)).to_pylist(), object)
    order = np.argsort(ids)
    first = np.full(n_groups, None, object)
    first[group[order[::-1]]] = ids[order[::-1]]  # the last to be written is the smallest
    names[grouped] = first[group]
    return names


def _parts(total: int, size: int) -> Iterator[slice]:
    """At least one, so that its results can be joined."""
    for start in range(0, max(total, 1), size):
        yield slice(start, start + size)
