"""What sync scores decide, for either backend's scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import policy
from data_pipeline.clip import Clip
from data_pipeline.config import FiltersConfig
from data_pipeline.policy import decide, reasons_of
from data_pipeline.sync_rules import COLUMNS
from tests.data_pipeline.rows import measurements

FILTERS = FiltersConfig()
LIPS = {
    "sync_backend": "lip_correlation",
    "sync_offset_frames": 0.0,
    "sync_confidence": 4.5,
    "sync_distance": 0.5,
    "sync_margin": 2.0,
}
SYNCNET = LIPS | {"sync_backend": "syncnet_v2", "sync_confidence": 6.0, "sync_distance": 7.5}


def reasons(row: dict, **filters) -> list[str]:
    return decide(measurements(row), FiltersConfig(**filters))["reasons"].to_pylist()[0]


@pytest.mark.parametrize("good", [LIPS, SYNCNET])
def test_a_clip_in_sync_is_kept(good) -> None:
    assert reasons(good) == []


@pytest.mark.parametrize("good", [LIPS, SYNCNET])
@pytest.mark.parametrize("offset", [-8.0, 5.5])
def test_an_offset_that_is_believed_and_too_large_is_off_sync(good, offset) -> None:
    assert reasons(good | {"sync_offset_frames": offset}) == ["off_sync"]


def test_an_offset_that_other_speech_gives_as_well_is_not_believed() -> None:
    doubtful = {"sync_offset_frames": 8.0, "sync_margin": 0.1}
    assert reasons(LIPS | doubtful) == []
    assert reasons(SYNCNET | doubtful) == ["sync_unmeasured"]


def test_a_doubtful_clip_is_kept_by_lip_correlation_and_rejected_by_syncnet() -> None:
    doubtful = {"sync_offset_frames": 8.0, "sync_confidence": 2.0}
    assert reasons(LIPS | doubtful) == []
    assert reasons(SYNCNET | doubtful) == ["sync_unmeasured"]


def test_lips_that_fit_the_sound_at_no_offset_are_off_sync() -> None:
    assert reasons(LIPS | {"sync_confidence": 1.8, "sync_distance": 0.85}) == ["off_sync"]


def test_the_distance_of_syncnet_is_of_another_scale_and_has_no_limit_by_itself() -> None:
    assert reasons(SYNCNET | {"sync_distance": 14.0}) == []
    assert reasons(SYNCNET | {"sync_distance": 14.0}, max_sync_distance=9) == ["off_sync"]


@pytest.mark.parametrize("good", [LIPS, SYNCNET])
def test_a_confidence_that_is_asked_for_is_asked_of_every_clip(good) -> None:
    assert reasons(good | {"sync_confidence": 3.5}) == []
    assert reasons(good | {"sync_confidence": 3.5}, min_sync_confidence=4) == ["sync_unmeasured"]


@pytest.mark.parametrize("good", [LIPS, SYNCNET])
def test_no_clip_is_unmeasured_where_no_confidence_is_asked_for(good) -> None:
    assert reasons(good | {"sync_confidence": 0.1}, min_sync_confidence=None) == []


def test_a_clip_that_could_not_be_compared_is_unmeasured() -> None:
    nothing = {"sync_backend": None} | dict.fromkeys(COLUMNS[1:])
    assert reasons(nothing | {"sync_backend": "syncnet_v2"}) == ["sync_unmeasured"]
    assert reasons(nothing | {"sync_backend": "lip_correlation"}) == []


def test_a_clip_that_did_not_come_as_far_as_sync_has_no_reason_from_it() -> None:
    assert reasons({"sync_backend": None}, min_sync_confidence=9.0) == []


scores = st.one_of(st.none(), st.floats(-20, 20))
limits = st.one_of(st.none(), st.just("auto"), st.floats(0, 8))


@given(
    backend=st.sampled_from([None, "lip_correlation", "syncnet_v2"]),
    values=st.tuples(scores, scores, scores, scores),
    confidence=limits,
    distance=limits,
    margin=st.one_of(st.none(), st.floats(0, 3)),
)
def test_one_clip_and_a_table_are_judged_alike(backend, values, confidence, distance, margin) -> None:
    filters = FiltersConfig(
        min_sync_confidence=confidence, max_sync_distance=distance, min_sync_margin=margin
    )
    row = dict(zip(COLUMNS, (backend, *values), strict=True))
    told = decide(measurements(row), filters)["reasons"].to_pylist()[0]
    assert told == reasons_of(Clip("a.mp4", **row), filters)


@given(values=st.tuples(scores, scores, scores, scores), looser=st.floats(3, 9), more=st.floats(0, 5))
def test_asking_for_more_confidence_never_keeps_more(values, looser, more) -> None:
    row = dict(zip(COLUMNS, ("lip_correlation", *values), strict=True))
    if not reasons(row, min_sync_confidence=looser + more):
        assert not reasons(row, min_sync_confidence=looser)


def test_the_report_shows_the_limits_of_the_backend() -> None:
    found = {(t.column, t.bound): t.value for t in policy.thresholds(FILTERS)}
    assert found["sync_distance", "max"] == 0.78
    assert found["sync_confidence", "min"] is None
    assert (found["sync_offset_frames", "min"], found["sync_offset_frames", "max"]) == (-5.0, 5.0)
    found = {(t.column, t.bound): t.value for t in policy.thresholds(FILTERS, "syncnet")}
    assert (found["sync_distance", "max"], found["sync_confidence", "min"]) == (None, 3.0)


def test_a_table_without_rows_has_no_reasons() -> None:
    assert policy.reasons_of_table(measurements(), FILTERS).shape == (0, len(policy.REASONS))
    assert np.dtype(bool) == policy.reasons_of_table(measurements(), FILTERS).dtype
