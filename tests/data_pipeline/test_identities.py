"""Identities: who is who, the same whatever the order, and kept when data is added."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import FacesConfig, IdentitiesConfig
from data_pipeline.identities import IDENTITIES, IdentitiesError, identify, nearest, only_with
from tests.data_pipeline.face_media import clip_of, portrait, real_clip
from tests.data_pipeline.people import BACKEND, clips_of, embeddings, purity_and_completeness

CONFIG = IdentitiesConfig()


def ids(rows: pa.Table) -> list[str | None]:
    return rows["identity_id"].to_pylist()


def scored(rows: pa.Table, person: np.ndarray) -> tuple[float, float]:
    return purity_and_completeness(np.unique(np.array(ids(rows)), return_inverse=True)[1], person)


def at(*places: float) -> np.ndarray:
    """Embeddings on a line; dlib's distance of one person is 0.45."""
    return np.array([[place, 0.0, 0.0] for place in places], np.float32)


def test_people_are_told_apart_and_found_again_in_other_sessions():
    vectors, person, session = embeddings(300, sessions=3, clips=3)
    rows, identities = identify(clips_of(vectors, session), CONFIG)
    purity, completeness = scored(rows, person)
    assert purity > 0.999
    assert completeness > 0.98
    assert identities.schema == IDENTITIES


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), split=st.floats(0.1, 0.9))
def test_the_order_of_rows_changes_nothing(seed, split):
    vectors, _, session = embeddings(12, sessions=2, clips=3, seed=seed)
    clips = clips_of(vectors, session)
    order = pa.array(np.random.default_rng(seed).permutation(clips.num_rows))
    rows, identities = identify(clips, CONFIG)
    shuffled, same = identify(clips.take(order), CONFIG)
    assert same.equals(identities)
    assert ids(shuffled) == ids(rows.take(order))
    half = int(len(vectors) * split)
    _, first = identify(clips.slice(0, half), CONFIG)
    later, both = identify(clips, CONFIG, first)
    shuffled, same = identify(clips.take(order), CONFIG, first)
    assert same.equals(both)
    assert ids(shuffled) == ids(later.take(order))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), split=st.floats(0.05, 0.95))
def test_added_data_changes_no_identity_but_by_a_recorded_merge(seed, split):
    vectors, person, session = embeddings(15, sessions=2, clips=3, seed=seed)
    clips = clips_of(vectors, session)
    half = max(1, int(len(vectors) * split))
    before, known = identify(clips.slice(0, half), CONFIG)
    rows, identities = identify(clips, CONFIG, known)
    became = {old: new for new, merged in zip(*pairs(identities, "merged"), strict=True) for old in merged}
    assert ids(rows)[:half] == [became.get(name, name) for name in ids(before)]
    assert scored(rows, person)[0] > 0.98
    again, same = identify(clips, CONFIG, identities)
    assert same.equals(identities)
    assert ids(again) == ids(rows)


def pairs(identities: pa.Table, column: str) -> tuple[list, list]:
    return identities["identity_id"].to_pylist(), identities[column].to_pylist()


def test_a_source_that_is_away_for_a_while_comes_back_to_its_identities():
    vectors, _, session = embeddings(10, sessions=1, clips=4)
    clips = clips_of(vectors, session)
    rows, known = identify(clips, CONFIG)
    _, without = identify(clips.slice(20), CONFIG, known)
    assert without["identity_id"].to_pylist() == known["identity_id"].to_pylist()
    back, _ = identify(clips, CONFIG, without)
    assert ids(back) == ids(rows)


def test_new_clips_join_an_identity_none_of_whose_clips_is_here():
    rows, known = identify(clips_of(at(0.0, 0.1), "ab"), CONFIG)
    later, _ = identify(clips_of(at(0.2), "c", first=2), CONFIG, known)
    assert ids(later) == ids(rows)[:1]


def test_two_identities_that_later_data_joins_are_one_under_the_older_name():
    _, known = identify(clips_of(at(0.0, 0.5), "ab"), CONFIG)
    assert known.num_rows == 2
    vectors = at(0.0, 0.5, 0.2, 0.25, 0.3, 0.25, 0.2, 0.3)
    rows, identities = identify(clips_of(vectors, "abcdefgh"), CONFIG, known)
    older, younger = known["identity_id"].to_pylist()
    assert set(ids(rows)) == {older}
    assert identities["merged"].to_pylist() == [[younger]]


def test_a_speaker_is_one_identity_and_two_speakers_are_two():
    clips = clips_of(at(0.0, 5.0, 0.01), "abc", ["ann", "ann", "bea"])
    rows, _ = identify(clips, CONFIG)
    ann, also_ann, bea = ids(rows)
    assert ann == also_ann != bea


def test_a_speaker_keeps_the_identity_when_only_new_clips_are_here():
    rows, known = identify(clips_of(at(0.0), "a", ["ann"]), CONFIG)
    later, _ = identify(clips_of(at(9.0), "b", ["ann"], first=1), CONFIG, known)
    assert ids(later) == ids(rows)


def test_embeddings_of_different_backends_are_never_compared():
    one = clips_of(at(0.0), "a")
    other = clips_of(np.zeros((1, 5), np.float32), "a", face_backend="insightface-buffalo_l", first=1)
    rows, identities = identify(pa.concat_tables([one, other]), CONFIG)
    assert len(set(ids(rows))) == 2
    later, still = identify(other, CONFIG, identities)
    assert ids(later) == ids(rows)[1:]
    assert still.num_rows == 2


def faceless(clips: pa.Table, *places: int, status: str = "kept") -> pa.Table:
    """The clips with no face at `places`."""
    rows = clips.to_pylist()
    for place in places:
        rows[place] |= {"identity_embedding": None, "face_backend": None, "status": status}
    return pa.Table.from_pylist(rows, clips.schema)


def test_a_clip_without_a_face_belongs_to_the_only_person_of_its_source():
    rows, identities = identify(faceless(clips_of(at(0.0, 0.0), "aa"), 1), CONFIG)
    assert len(set(ids(rows))) == 1
    assert [len(clips) for clips in identities["faceless"].to_pylist()] == [1]


def test_where_a_source_shows_two_people_a_clip_without_a_face_is_neither():
    rows, identities = identify(faceless(clips_of(at(0.0, 3.0, 0.0, 0.0), "aaaa"), 2, 3), CONFIG)
    one, other, unknown, also_unknown = ids(rows)
    assert len({one, other, unknown}) == 3
    assert unknown == also_unknown
    again, same = identify(faceless(clips_of(at(0.0, 3.0, 0.0, 0.0), "aaaa"), 2, 3), CONFIG, identities)
    assert ids(again) == ids(rows)
    assert same.equals(identities)


def test_a_rejected_clip_without_a_face_is_nobody():
    rows, identities = identify(faceless(clips_of(at(0.0), "a"), 0, status="rejected"), CONFIG)
    assert ids(rows) == [None]
    assert identities.num_rows == 0


def test_what_was_purged_is_not_remembered():
    clips = clips_of(at(0.0, 0.1, 3.0), "abc")
    _, known = identify(clips, CONFIG)
    left = only_with(known, clips.slice(1, 1))
    assert left["clips"].to_pylist() == [clips["clip_id"].to_pylist()[1:2]]
    _, identities = identify(clips.slice(1, 1), CONFIG, left)
    assert identities["centre"].to_pylist() == [clips["identity_embedding"][1].as_py()]


def test_the_nearest_identity_of_a_face_is_told_with_its_distance():
    _, identities = identify(clips_of(at(0.0, 0.2, 3.0), "abc"), CONFIG)
    (name, distance), (_, further) = nearest(identities, at(0.1)[0], BACKEND)
    assert name in identities["identity_id"].to_pylist()
    assert distance == pytest.approx(0.1)  # 0.1 from each of the two
    assert further == pytest.approx(2.9)


def test_an_unknown_backend_is_an_error_that_says_what_to_give():
    with pytest.raises(IdentitiesError, match=r"'new-net'.*identities\.same_person_distance"):
        identify(clips_of(at(0.0), "a", face_backend="new-net"), CONFIG)
    rows, _ = identify(
        clips_of(at(0.0, 1.0), "ab", face_backend="new-net"), IdentitiesConfig(same_person_distance=1.5)
    )
    assert len(set(ids(rows))) == 1


def test_embeddings_of_different_lengths_under_one_name_are_an_error():
    mixed = pa.concat_tables([clips_of(at(0.0), "a"), clips_of(np.zeros((1, 4), np.float32), "b", first=1)])
    with pytest.raises(IdentitiesError, match=r"\[3, 4\] values"):
        identify(mixed, CONFIG)


REAL_PEOPLE = {
    "obama": ["portraits/obama.jpg", "livetalking_screen.mp4"],
    "man of face2": ["videoretalking_face2.mp4", "made_06.webm"],
    "man of M030": ["portraits/male_face.png", "dreamtalk_out_english.mp4"],
    "d12": ["liveportrait_d12.mp4"],
    "d13": ["liveportrait_d13.mp4"],
    "lyl": ["aniportrait_lyl.mp4"],
    "grid lbbc": ["grid_lbbc2a.mpg"],
    "grid lwbs": ["grid_lwbsza.mpg"],
}
"""Told by looking at the pictures. d12, d13 and lyl are the nearest different people of them all."""


@pytest.mark.slow
def test_real_people_are_told_apart_and_found_again_in_other_files():
    from data_pipeline.stages.faces import Faces

    stage = Faces(FacesConfig())
    stage.setup()
    rows, person = [], []
    for name, files in REAL_PEOPLE.items():
        for file in files:
            clip = clip_of([portrait(file[10:])] * 3) if file.startswith("portraits/") else real_clip(file)
            clip = stage(clip)
            rows.append((clip.identity_embedding, file, clip.face_backend))
            person.append(name)
    vectors = np.array([row[0] for row in rows], np.float32)
    clips = clips_of(vectors, [row[1] for row in rows], face_backend=rows[0][2])
    found, identities = identify(clips, CONFIG)
    assert scored(found, np.unique(person, return_inverse=True)[1]) == (1.0, 1.0)
    assert identities.num_rows == len(REAL_PEOPLE)
