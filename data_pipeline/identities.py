"""Who is who: clips -> identities, with those of the version before kept as they are.

    rows, those known before -> clips that are known keep their identity
    -> a list's word joins a speaker's clips; likeness joins the new ones (agglomeration.py)
    -> kept clips without a face take the only identity of their source, or one of their own
    -> rows with `identity_id`, and the table IDENTITIES for the next version

An identity holds clips that are, in the root mean square over all pairs, no further apart than two clips
of one person. A named speaker is one identity however far apart the clips are, and two named speakers
are two however near. Embeddings of different backends are never compared. The rows' order changes
nothing. An identity's name comes from its first clips, and stays.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.agglomeration import agglomerate
from data_pipeline.config import IdentitiesConfig
from data_pipeline.near_groups import Groups, concatenated

SAME_PERSON_DISTANCES = {"dlib-face-recognition": 0.45, "insightface": 1.05}
"""How far apart clips of one person may be, by what a face backend's name contains. For dlib see
docs/curation.md; for ArcFace's unit vectors it is a cosine of 0.45, insightface's own for one person."""

IDENTITIES = pa.schema(
    [
        ("identity_id", pa.string()),
        ("face_backend", pa.string()),
        ("centre", pa.list_(pa.float32())),
        ("spread", pa.float64()),
        ("n", pa.int64()),
        ("clips", pa.list_(pa.string())),
        ("faceless", pa.list_(pa.string())),
        ("speakers", pa.list_(pa.string())),
        ("merged", pa.list_(pa.string())),
        ("split", pa.string()),
    ]
)
"""One row an identity, the oldest first. `centre` is the mean embedding of `n` clips, `spread` their mean
squared distance to it, null for an identity that shows no face. `clips` has every clip whose embedding
was ever put here, `faceless` those without one, `merged` the identities that turned out to be this one."""

FACTS = ["clip_id", "source_sha256", "speaker", "face_backend", "status"]
BLOCK = 65_536


class IdentitiesError(Exception):
    """Embeddings that cannot be compared; the message says which, and what to do."""


def same_person_distance(face_backend: str, config: IdentitiesConfig) -> float:
    """Up to where two clips are one person's. Raises IdentitiesError for a backend that is not known."""
    if config.same_person_distance is not None:
        return config.same_person_distance
    for network, distance in SAME_PERSON_DISTANCES.items():
        if network in face_backend:
            return distance
    raise IdentitiesError(
        f"face backend {face_backend!r}: up to which distance its embeddings are one person's is not known; "
        "give identities.same_person_distance"
    )


def identify(
    rows: pa.Table, config: IdentitiesConfig, before: pa.Table | None = None
) -> tuple[pa.Table, pa.Table]:
    """The rows with `identity_id`, and the IDENTITIES that they make with those known before, unsplit.

    `rows` has FACTS and identity_embedding. A row without clip_id, or of a clip that is not kept and shows
    no face, gets no identity. Raises IdentitiesError.
    """
    known = IDENTITIES.empty_table() if before is None else before
    facts = rows.select(FACTS)
    place = pc.sort_indices(facts, [("clip_id", "ascending")]).to_numpy()
    place = place[: rows.num_rows - rows["clip_id"].null_count]  # nulls come last
    clips = facts.take(pa.array(place))
    book = _Book(known, np.full(len(place), -1), np.arange(known.num_rows))
    has_face = (_valid(rows["identity_embedding"]) & _valid(rows["face_backend"]))[place]
    for face_backend in pc.unique(clips["face_backend"].filter(pa.array(has_face))).sort().to_pylist():
        mine = np.flatnonzero(has_face & _is(clips["face_backend"], face_backend))
        distance = same_person_distance(face_backend, config)
        some = clips.take(pa.array(mine))
        _place_faces(book, some, mine, rows["identity_embedding"], place[mine], distance)
    _place_faceless(book, clips, np.flatnonzero(~has_face & _is(clips["status"], "kept")))
    table, row = _table(book, clips, has_face)
    placed = book.home >= 0
    identity = np.full(rows.num_rows, -1)
    identity[place[placed]] = row[book.home[placed]]
    names = table["identity_id"].combine_chunks().take(pa.array(identity, mask=identity < 0))
    return rows.append_column("identity_id", names), table


def nearest(identities: pa.Table, embedding: np.ndarray, face_backend: str) -> list[tuple[str, float]]:
    """Identities of one backend with their distance to a face (D,), nearest first.

    The distance is what joins clips: the root mean square to the clips of the identity."""
    rows, looks = groups_of(identities, face_backend)
    squared = ((looks.centres - embedding) ** 2).sum(axis=1, dtype=np.float64) + looks.spreads
    names = identities["identity_id"].take(pa.array(rows)).to_pylist()
    order = np.argsort(squared, kind="stable").tolist()
    return [(names[i], float(np.sqrt(squared[i]))) for i in order]


def groups_of(identities: pa.Table, face_backend: str) -> tuple[np.ndarray, Groups]:
    """The rows of IDENTITIES that show a face known by one backend, and what they look like."""
    rows = np.flatnonzero(_is(identities["face_backend"], face_backend))
    some = identities.take(pa.array(rows))
    spreads = some["spread"].to_numpy().copy()
    return rows, Groups(some["n"].to_numpy().astype(float), matrix(some["centre"]), spreads)


def only_with(identities: pa.Table, rows: pa.Table) -> pa.Table:
    """What is known without any clip that `rows` lacks: nothing that was purged is remembered.

    A place in `clips` or `faceless` goes with its clip, an identity with its last one."""
    lists = {}
    for name in ("clips", "faceless"):
        had = identities[name].combine_chunks()
        stays = pc.is_in(had.flatten(), value_set=rows["clip_id"].combine_chunks())
        owners = pc.list_parent_indices(had).filter(stays).to_numpy()
        lists[name] = _lists(identities.num_rows, owners, had.flatten().filter(stays))
        place = identities.schema.get_field_index(name)
        identities = identities.set_column(place, name, lists[name])
    held = [pc.list_value_length(column).to_numpy() > 0 for column in lists.values()]
    return identities.filter(pa.array(held[0] | held[1]))


def matrix(lists: pa.ChunkedArray, places: np.ndarray | None = None) -> np.ndarray:
    """(N, D) float32 from a column of lists, or from what it has at `places`; there are no nulls.

    Raises IdentitiesError if the lists differ in length."""
    places = np.arange(len(lists)) if places is None else places
    width = len(lists[int(places[0])]) if len(places) else 0
    vectors = np.empty((len(places), width), np.float32)
    for start in range(0, len(places), BLOCK):
        some = lists.take(pa.array(places[start : start + BLOCK])).combine_chunks()
        lengths = pc.unique(pc.list_value_length(some)).to_pylist()
        if lengths != [width]:
            raise IdentitiesError(
                f"embeddings of one face backend have {sorted({width, *lengths})} values; they must have the "
                "same number: measure the sources again under one configuration"
            )
        vectors[start : start + BLOCK] = some.flatten().to_numpy().reshape(len(some), width)
    return vectors


@dataclass(slots=True)
class _Book:
    """Where every clip lives. Identities are numbers: those known before, then new ones."""

    known: pa.Table
    home: np.ndarray
    """(clips,) int64: a clip's identity, -1 while it has none."""
    root: np.ndarray
    """(known,) int64: the identity that a known one has become, itself but for merges."""
    names: list[str] = field(default_factory=list)
    """Of the new ones."""
    faces: list[tuple[str, np.ndarray, Groups]] = field(default_factory=list)
    """Of one backend each: identities, and what they look like."""

    def add(self, name: str) -> int:
        """The number of a new identity."""
        self.names.append(name)
        return len(self.root) + len(self.names) - 1


def _place_faces(
    book: _Book,
    clips: pa.Table,
    mine: np.ndarray,
    lists: pa.ChunkedArray,
    places: np.ndarray,
    distance: float,
) -> None:
    """Give clips of one backend, in the book at `mine`, their identities; embeddings in `lists` at `places`.

    Inside, groups are numbered anew: known identities of this backend or without a face, then new clips."""
    face_backend = clips["face_backend"][0].as_py()
    backends = book.known["face_backend"]
    members = np.flatnonzero(_is(backends, face_backend) | ~_valid(backends))
    known = book.known.take(pa.array(members))
    start = _owners(clips["clip_id"], known["clips"])
    new = start < 0
    start[new] = len(members) + np.arange(new.sum())
    n_groups = len(members) + int(new.sum())
    unite, speaks = _by_speaker(n_groups, start, clips["speaker"], known["speakers"])
    start = unite[start]
    fresh = np.zeros(n_groups, bool)
    fresh[start[new]] = True
    # The embeddings are read twice: a million of them are not held while the groups are joined.
    here, looks = _looks(matrix(lists, places), start)
    away, remembered = _remembered(known, face_backend, unite[: len(members)], here)
    group = np.concatenate([here, away])
    everyone = looks if len(away) == 0 else concatenated(looks, _as_wide(remembered, looks, face_backend))
    first = agglomerate(everyone, fresh[group], speaks[group], distance)
    joined = np.arange(n_groups)
    joined[group] = _oldest(group, first)
    del looks, everyone
    number = _numbers(book, members, n_groups, joined[start], clips["clip_id"])
    book.home[mine] = number[joined[start]]
    book.root[members] = number[joined[unite[: len(members)]]]
    here, looks = _looks(matrix(lists, places), joined[start])
    alone = ~np.isin(joined[away], here)
    book.faces.append((face_backend, number[here], looks))
    book.faces.append((face_backend, number[joined[away[alone]]], remembered.subset(alone)))


def _oldest(group: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of every joined set, given by its first place in `group`, the smallest group: the oldest identity."""
    oldest = np.full(len(group), np.iinfo(np.int64).max)
    np.minimum.at(oldest, first, group)
    return oldest[first]


def _owners(clip_ids: pa.ChunkedArray, lists: pa.ChunkedArray) -> np.ndarray:
    """(clips,) int64: the place of the list that names a clip, -1 where none does."""
    lists = lists.combine_chunks()
    place = pc.index_in(clip_ids, value_set=lists.flatten()).fill_null(-1).to_numpy()
    owner = np.append(pc.list_parent_indices(lists).to_numpy().astype(np.int64), -1)
    return owner[place]


def _by_speaker(
    n_groups: int, start: np.ndarray, speakers: pa.ChunkedArray, known: pa.ChunkedArray
) -> tuple[np.ndarray, np.ndarray]:
    """(n_groups,) the smallest group that shares a speaker, itself if none does; (n_groups,) has one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = known.combine_chunks()
    of_clips = _valid(speakers)
    groups = np.concatenate([start[of_clips], pc.list_parent_indices(known).to_numpy().astype(np.int64)])
    if len(groups) == 0:
        return np.arange(n_groups), np.zeros(n_groups, bool)
    words = pa.concat_arrays([speakers.drop_null().combine_chunks(), known.flatten()])
    code = n_groups + words.dictionary_encode().indices.to_numpy().astype(np.int64)
    size = int(code.max()) + 1
    _, part = connected_components(coo_array((np.ones(len(code)), (groups, code)), (size, size)), False)
    first = np.full(size, size)
    np.minimum.at(first, part, np.arange(size))
    speaks = np.zeros(size, bool)
    speaks[part[code]] = True
    return first[part][:n_groups], speaks[part][:n_groups]


def _looks(embeddings: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, Groups]:
    """The groups that occur, in order, and what they look like."""
    order = np.argsort(group, kind="stable")
    present, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    looks = Groups(
        counts.astype(float),
        np.empty((len(present), embeddings.shape[1]), np.float32),
        np.zeros(len(present)),
    )
    ends = starts + counts
    for i in range(0, len(present), BLOCK):
        some = slice(i, i + BLOCK)
        first, last = starts[i], ends[some][-1]
        points = embeddings[order[first:last]].astype(np.float64)
        centres = np.add.reduceat(points, starts[some] - first, axis=0) / counts[some, None]
        gaps = points - np.repeat(centres, counts[some], axis=0)
        squared = np.einsum("ij,ij->i", gaps, gaps)
        looks.centres[some] = centres
        looks.spreads[some] = np.add.reduceat(squared, starts[some] - first) / counts[some]
    return present, looks


def _remembered(
    known: pa.Table, face_backend: str, unite: np.ndarray, here: np.ndarray
) -> tuple[np.ndarray, Groups]:
    """Known identities with a face of which no clip is here, as the version before describes them."""
    seen, looks = groups_of(known, face_backend)
    missing = np.flatnonzero(~np.isin(unite[seen], here))
    away, place = np.unique(unite[seen[missing]], return_index=True)
    return away, looks.subset(missing[place])


def _as_wide(remembered: Groups, looks: Groups, face_backend: str) -> Groups:
    wide, narrow = looks.centres.shape[1], remembered.centres.shape[1]
    if wide != narrow:
        raise IdentitiesError(
            f"face backend {face_backend!r}: embeddings have {wide} values, those of the version before "
            f"{narrow}; they cannot be compared"
        )
    return remembered


def _numbers(
    book: _Book, members: np.ndarray, n_groups: int, final: np.ndarray, clip_ids: pa.ChunkedArray
) -> np.ndarray:
    """(n_groups,) the identity that a group is: a known one, or a new one named after its first clip."""
    number = np.full(n_groups, -1)
    number[: len(members)] = members
    groups, first = np.unique(final, return_index=True)
    is_new = groups >= len(members)
    names = clip_ids.take(pa.array(first[is_new])).to_pylist()
    for group, clip_id in zip(groups[is_new].tolist(), names, strict=True):
        number[group] = book.add(_name_of(clip_id))
    return number


def _name_of(word: str) -> str:
    return hashlib.sha256(f"identity {word}".encode()).hexdigest()[:16]


def _place_faceless(book: _Book, clips: pa.Table, mine: np.ndarray) -> None:
    """Give clips without a face what they had, their speaker's identity, or the only one of their source."""
    names = book.known["identity_id"].to_pylist()
    numbers = {name: number for number, name in enumerate(names)}
    had = _owners(clips["clip_id"].take(pa.array(mine)), book.known["faceless"])
    spoken: dict[str, int] = {}
    for number, speakers in enumerate(book.known["speakers"].to_pylist()):
        spoken |= dict.fromkeys(speakers, int(book.root[number]))
    in_source: dict[str, set[int]] = {}
    placed = np.flatnonzero(book.home >= 0)
    facts = clips.select(["source_sha256", "speaker"])
    for home, fact in zip(book.home[placed].tolist(), facts.take(pa.array(placed)).to_pylist(), strict=True):
        in_source.setdefault(fact["source_sha256"], set()).add(home)
        if fact["speaker"] is not None:
            spoken[fact["speaker"]] = home
    for row, old, fact in zip(mine, had, facts.take(pa.array(mine)).to_pylist(), strict=True):
        speaker, source = fact["speaker"], fact["source_sha256"]
        name = _name_of(f"source {source}" if speaker is None else f"speaker {speaker}")
        if old >= 0:
            home = int(book.root[old])
        elif speaker is not None and speaker in spoken:
            home = spoken[speaker]
        elif speaker is None and len(in_source.get(source, ())) == 1:
            (home,) = in_source[source]
        elif name in numbers:
            home = int(book.root[numbers[name]]) if numbers[name] < len(names) else numbers[name]
        else:
            home = numbers[name] = book.add(name)
        if speaker is not None:
            spoken[speaker] = home
        book.home[row] = home


def _table(book: _Book, clips: pa.Table, has_face: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """IDENTITIES, and for each number its row; that of what it was merged into, if it was."""
    known, n_known = book.known, len(book.root)
    is_alive = book.root == np.arange(n_known)
    alive = np.concatenate(
        [np.flatnonzero(is_alive), n_known + np.argsort(np.array(book.names, str), kind="stable")]
    ).astype(np.int64)
    row = np.full(n_known + len(book.names), -1)
    row[alive] = np.arange(len(alive))
    row[:n_known] = row[book.root]
    names = pa.array([*known["identity_id"].to_pylist(), *book.names], pa.string())
    placed = book.home >= 0
    home = np.append(row, -1)[book.home]

    def lists(column: str, found: np.ndarray, values: pa.Array) -> pa.ListArray:
        """What the known ones had, and what was found on the clips or identities of `found`."""
        had = known[column].combine_chunks()
        owners = row[pc.list_parent_indices(had).to_numpy()]
        return _lists(len(alive), np.concatenate([owners, found]), pa.concat_arrays([had.flatten(), values]))

    def of_clips(column: str, some: np.ndarray) -> tuple[np.ndarray, pa.Array]:
        return home[placed & some], clips[column].filter(pa.array(placed & some)).combine_chunks()

    gone = np.flatnonzero(~is_alive)
    columns: dict[str, Any] = {
        "identity_id": names.take(pa.array(alive)),
        **_face_columns(book, row, alive, n_known),
        "clips": lists("clips", *of_clips("clip_id", has_face)),
        "faceless": lists("faceless", *of_clips("clip_id", ~has_face)),
        "speakers": lists("speakers", *of_clips("speaker", _valid(clips["speaker"]))),
        "merged": lists("merged", row[gone], names.take(pa.array(gone))),
        "split": pa.nulls(len(alive), pa.string()),
    }
    return pa.table(columns, IDENTITIES), row


def _face_columns(book: _Book, row: np.ndarray, alive: np.ndarray, n_known: int) -> dict[str, Any]:
    """`face_backend`, `centre`, `spread` and `n` in the order of `alive`."""
    faces = list(book.faces)
    here = {face_backend for face_backend, _, _ in faces}
    for face_backend in sorted(set(book.known["face_backend"].drop_null().to_pylist()) - here):
        numbers, looks = groups_of(book.known, face_backend)
        still = book.root[numbers] == numbers
        faces.append((face_backend, numbers[still], looks.subset(still)))
    backend = np.full(len(alive), None, object)
    width = np.zeros(len(alive), np.int64)
    spread, n = np.zeros(len(alive)), np.zeros(len(alive), np.int64)
    for face_backend, numbers, looks in faces:
        rows = row[numbers]
        backend[rows], width[rows] = face_backend, looks.centres.shape[1]
        spread[rows], n[rows] = looks.spreads, looks.counts
    offsets = np.concatenate([[0], np.cumsum(width)])
    values = np.empty(offsets[-1], np.float32)
    for _, numbers, looks in faces:
        columns = np.arange(looks.centres.shape[1])
        for i in range(0, len(numbers), BLOCK):
            some = slice(i, i + BLOCK)
            values[offsets[row[numbers[some]], None] + columns] = looks.centres[some]
    faceless = width == 0
    mask = pa.array(faceless)
    centre = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), mask=mask)
    return {
        "face_backend": pa.array(backend, pa.string()),
        "centre": centre,
        "spread": pa.array(spread, mask=faceless),
        "n": pa.array(n),
    }


def _lists(count: int, owners: np.ndarray, values: pa.Array) -> pa.ListArray:
    """For each of `count` owners its values, sorted, each once."""
    table = pa.table({"owner": owners, "value": values}).group_by(["owner", "value"]).aggregate([])
    table = table.sort_by([("owner", "ascending"), ("value", "ascending")])
    offsets = np.searchsorted(table["owner"].to_numpy(), np.arange(count + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), table["value"].combine_chunks())


def _valid(column: pa.ChunkedArray) -> np.ndarray:
    return pc.is_valid(column).to_numpy(zero_copy_only=False)


def _is(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return pc.equal(column, value).fill_null(False).to_numpy()
