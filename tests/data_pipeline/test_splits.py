"""Splits: nobody in two, nobody moved by new data, and nobody of a benchmark in training."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import FacesConfig, IdentitiesConfig, SplitsConfig, load_config
from data_pipeline.config_file import ConfigError
from data_pipeline.excluded_people import excluded_people
from data_pipeline.identities import identify
from data_pipeline.near_groups import Groups
from data_pipeline.splits import (
    BENCHMARK,
    QUARANTINE,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    assign,
    split_of,
    with_splits,
)
from tests.data_pipeline.face_media import astronaut, clip_of, group
from tests.data_pipeline.people import BACKEND, clips_of, embeddings

CONFIG = IdentitiesConfig()
NAMES = [f"{number:016x}" for number in range(4000)]


def split_clips(vectors, sources, config, before=None, was=None, excluded=None, speakers=None, first=0):
    rows, identities = identify(clips_of(vectors, sources, speakers, first=first), CONFIG, before)
    identities = assign(identities, config, before, was, excluded)
    return with_splits(rows, identities), identities


def at(*places: float) -> np.ndarray:
    return np.array([[place, 0.0, 0.0] for place in places], np.float32)


def face(place: float) -> dict[str, Groups]:
    return {BACKEND: Groups(np.ones(1), at(place), np.zeros(1))}


def test_the_shares_are_kept():
    splits = [split_of(name, SplitsConfig(val=0.1, test=0.2)) for name in NAMES]
    shares = [splits.count(split) / len(NAMES) for split in (TRAIN, VAL, TEST)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_all_are_for_training_unless_told():
    assert {split_of(name, SplitsConfig()) for name in NAMES} == {TRAIN}


@settings(max_examples=30, deadline=None)
@given(val=st.floats(0, 0.4), test=st.floats(0, 0.4), more=st.floats(0, 0.2))
def test_a_larger_validation_share_takes_from_training_only(val, test, more):
    before, after = SplitsConfig(val=val, test=test), SplitsConfig(val=val + more, test=test)
    moves = {(split_of(name, before), split_of(name, after)) for name in NAMES[:200]}
    assert {move for move in moves if move[0] != move[1]} <= {(TRAIN, VAL)}


def test_shares_of_more_than_all_are_an_error():
    with pytest.raises(ConfigError, match="more than 1 together"):
        load_config("demo", ["sources=a", "output=b", "splits.val=0.6", "splits.test=0.6"])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), part=st.floats(0.1, 0.9))
def test_no_identity_is_in_two_splits_and_none_moves_when_data_is_added(seed, part):
    config = SplitsConfig(val=0.3, test=0.3)
    vectors, _, session = embeddings(15, sessions=2, clips=2, seed=seed)
    half = max(1, int(len(vectors) * part))
    first, known = split_clips(vectors[:half], session[:half], config)
    rows, _ = split_clips(vectors, session, config, known, config)
    by_identity: dict[str, set[str]] = {}
    for name, split in zip(rows["identity_id"].to_pylist(), rows["split"].to_pylist(), strict=True):
        by_identity.setdefault(name, set()).add(split)
    assert all(len(splits) == 1 for splits in by_identity.values())
    moves = set(zip(first["split"].to_pylist(), rows["split"].to_pylist()[:half], strict=True))
    assert {after for before, after in moves if before != after} <= {QUARANTINE}


def two_people_and_the_bridge(across: bool, config: SplitsConfig) -> tuple[pa.Table, pa.Table]:
    """Two identities, of different splits or of the same; the clips that later make them one."""
    for first in range(0, 4000, 10):
        _, known = split_clips(at(0.0, 0.5), "ab", config, first=first)
        if (len(set(known["split"].to_pylist())) == 2) == across:
            break
    vectors = at(0.0, 0.5, 0.2, 0.25, 0.3, 0.25, 0.2, 0.3)
    return known, clips_of(vectors, "abcdefgh", first=first)


def test_identities_of_two_splits_that_turn_out_to_be_one_are_quarantined():
    config = SplitsConfig(val=0.5)
    known, clips = two_people_and_the_bridge(True, config)
    rows, identities = identify(clips, CONFIG, known)
    identities = assign(identities, config, known, config)
    assert set(with_splits(rows, identities)["split"].to_pylist()) == {QUARANTINE}
    rows, again = identify(clips, CONFIG, identities)
    again = assign(again, config, identities, config)
    assert again["split"].to_pylist() == [QUARANTINE]  # and stay so
    other = assign(again, SplitsConfig(val=0.4), again, config)
    assert other["split"].to_pylist()[0] in (TRAIN, VAL)  # but for new shares


def test_identities_of_one_split_simply_become_one():
    config = SplitsConfig(val=0.5)
    known, clips = two_people_and_the_bridge(False, config)
    _, identities = identify(clips, CONFIG, known)
    identities = assign(identities, config, known, config)
    assert identities["split"].to_pylist() == known["split"].to_pylist()[:1]


def test_who_is_in_a_benchmark_trains_nothing():
    _, identities = split_clips(at(0.0, 0.1, 3.0), "abc", SplitsConfig(), excluded=face(0.3))
    splits = dict(
        zip(map(len, identities["clips"].to_pylist()), identities["split"].to_pylist(), strict=True)
    )
    assert splits == {2: BENCHMARK, 1: TRAIN}


def test_who_was_in_a_benchmark_stays_out_while_it_is_excluded():
    config = SplitsConfig(exclude=["bench"])
    _, known = split_clips(at(0.0), "a", config, excluded=face(0.4))
    vectors = at(0.0, -0.2, -0.2, -0.2)
    _, identities = split_clips(vectors, "abcd", config, known, config, face(0.4))
    assert identities["split"].to_pylist() == [BENCHMARK]
    released = assign(identities, SplitsConfig(), identities, config)
    assert released["split"].to_pylist() == [TRAIN]


def test_who_is_on_a_picture_is_found_among_the_clips(tmp_path):
    import cv2

    from data_pipeline.stages.faces import Faces

    stage = Faces(FacesConfig())
    stage.setup()
    people = [stage(clip_of([image] * 3)) for image in (astronaut()[:, ::-1], group())]
    vectors = np.array([clip.identity_embedding for clip in people], np.float32)
    rows, identities = identify(clips_of(vectors, "ab", face_backend=people[0].face_backend), CONFIG)
    cv2.imwrite(str(tmp_path / "who.png"), cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR))
    excluded = excluded_people([str(tmp_path)], FacesConfig(), [people[0].face_backend])
    rows = with_splits(rows, assign(identities, SplitsConfig(), excluded=excluded))
    assert rows["split"].to_pylist() == [BENCHMARK, TRAIN]


def test_only_kept_clips_have_a_split():
    rows, identities = identify(clips_of(at(0.0, 3.0), "ab"), CONFIG)
    rows = rows.set_column(rows.schema.get_field_index("status"), "status", pa.array(["kept", "rejected"]))
    assert with_splits(rows, assign(identities, SplitsConfig()))["split"].to_pylist() == [TRAIN, None]


def test_the_words_for_splits_are_those_of_the_design():
    assert SPLITS == ("train", "val", "test", "benchmark", "quarantine")
