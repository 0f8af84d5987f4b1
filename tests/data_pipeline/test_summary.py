"""The numbers that a person decides by."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.clip import Reason
from data_pipeline.config import FiltersConfig
from data_pipeline.policy import Threshold, thresholds
from data_pipeline.summary import Summary
from tests.data_pipeline.manifests import FAILURES, manifest

SNR = Threshold("snr_db", "speech to noise", "dB", "min", 8.0, "noisy")
YAW = Threshold("yaw_deg_p95", "yaw", "°", "max", 40.0, "profile")


def rows(*clips: dict) -> Summary:
    """Ten-second clips that are kept, but for what is said of each."""
    good = {"start_s": 0.0, "end_s": 10.0, "status": "kept", "reason": None, "reasons": [], "snr_db": 20.0}
    return Summary(
        pa.Table.from_pylist([good | {"clip_id": f"{i:016x}"} | clip for i, clip in enumerate(clips)])
    )


def rejected(*reasons: str, **values: object) -> dict:
    return {"status": "rejected", "reason": reasons[0], "reasons": list(reasons), **values}


@pytest.fixture(scope="module")
def wild() -> Summary:
    return Summary(manifest(2000))


def test_the_funnel_starts_with_all_seconds_and_ends_with_the_kept_ones(wild: Summary) -> None:
    funnel = wild.funnel()
    assert funnel[0].left_s + funnel[0].lost_s == pytest.approx(wild.total_s)
    assert funnel[-1].left_s == pytest.approx(wild.kept_s)
    for before, after in pairwise(funnel):
        assert after.left_s + after.lost_s == pytest.approx(before.left_s)


def test_every_row_is_kept_or_lost_once(wild: Summary) -> None:
    lost = sum(step.n_clips + step.n_sources for step in wild.funnel())
    assert wild.kept.sum() + lost == wild.clips.num_rows


def test_the_funnel_is_in_the_order_of_reasons(wild: Summary) -> None:
    order = [str(reason) for reason in Reason]
    places = [order.index(step.reason) for step in wild.funnel()]
    assert places == sorted(places)
    assert len(places) > len(FAILURES)


def test_a_clip_leaves_at_its_first_reason_and_only_a_single_reason_counts_as_only() -> None:
    funnel = rows({}, rejected("noisy"), rejected("noisy", "profile"), rejected("profile")).funnel()
    assert [(step.reason, step.n_clips, step.n_only, step.left_s) for step in funnel] == [
        ("noisy", 2, 1, 20.0),
        ("profile", 1, 1, 10.0),
    ]


def test_a_source_without_clips_counts_as_a_source_and_takes_no_seconds() -> None:
    (step,) = rows({}, rejected("no_video", clip_id=None, start_s=None, end_s=None)).funnel()
    assert (step.n_clips, step.n_sources, step.lost_s) == (0, 1, 0.0)


def test_sources_are_told_apart_by_content_and_else_by_name() -> None:
    summary = rows(
        {"source_sha256": "a", "source_uris": ["/1.mp4", "/copy of 1.mp4"]},
        {"source_sha256": "a", "source_uris": ["/1.mp4", "/copy of 1.mp4"]},
        rejected("missing", clip_id=None, source_sha256=None, source_uris=["/gone 1.mp4"]),
        rejected("missing", clip_id=None, source_sha256=None, source_uris=["/gone 2.mp4"]),
    )
    assert summary.n_sources() == 3
    assert summary.n_sources(summary.kept) == 1


@pytest.mark.parametrize("threshold", thresholds(FiltersConfig()), ids=lambda t: f"{t.bound} {t.column}")
def test_a_histogram_counts_every_measured_clip_and_has_an_edge_on_its_threshold(
    wild: Summary, threshold: Threshold
) -> None:
    values = wild.floats(threshold.column)
    histogram = wild.histogram(values, [threshold])
    assert histogram.n_measured == np.isfinite(values).sum()
    assert histogram.n_measured + histogram.n_missing == wild.n_clips
    assert (np.diff(histogram.edges) > 0).all()
    if threshold.value is not None:
        assert threshold.value in histogram.edges[1:-1]


@pytest.mark.parametrize("threshold", [SNR, YAW])
def test_the_bars_on_the_failing_side_hold_exactly_the_clips_that_fail(
    wild: Summary, threshold: Threshold
) -> None:
    values = wild.floats(threshold.column)
    histogram = wild.histogram(values, [threshold])
    both = histogram.kept + histogram.other
    edge = histogram.edges.tolist().index(threshold.value)
    failing = both[:edge] if threshold.bound == "min" else both[edge:]
    assert failing.sum() == wild.fails(threshold, values).sum()


@pytest.mark.parametrize(("threshold", "key"), [(SNR, "min_snr_db"), (YAW, "max_yaw_deg")])
def test_what_moving_a_threshold_would_change_is_what_the_policy_then_decides(
    wild: Summary, threshold: Threshold, key: str
) -> None:
    values = wild.floats(threshold.column)
    edges = wild.histogram(values, [threshold]).edges
    change = wild.what_if(values, edges, threshold, thresholds(FiltersConfig()))
    assert edges[change.index] == threshold.value
    assert change.lost[change.index] == change.gained[change.index] == 0
    for edge in range(1, len(edges) - 1, 3):
        moved = Summary(manifest(2000, filters=FiltersConfig(**{key: edges[edge]})))
        assert change.lost[edge] == (wild.kept & ~moved.kept).sum()
        assert change.gained[edge] == (~wild.kept & moved.kept).sum()
        assert change.gained_s[edge] - change.lost_s[edge] == pytest.approx(moved.kept_s - wild.kept_s)


def test_a_clip_that_two_thresholds_of_one_reason_hold_back_is_no_gain_of_either() -> None:
    pitch = Threshold("pitch_deg_p95", "pitch", "°", "max", 35.0, "profile")
    angles = [(50.0, 5.0), (50.0, 45.0), (20.0, 45.0), (20.0, 5.0)]
    summary = rows(*(rejected("profile", yaw_deg_p95=yaw, pitch_deg_p95=pitch) for yaw, pitch in angles))
    values = summary.floats("yaw_deg_p95")
    change = summary.what_if(values, summary.histogram(values, [YAW]).edges, YAW, [YAW, pitch])
    assert change.gained[-1] == 1


def test_the_nearest_clips_are_the_nearest_on_their_side_and_ties_go_by_clip_id() -> None:
    summary = rows(*({"snr_db": snr} for snr in (7.5, 30.0, 8.0, 7.9, 7.9, 9.0, None, 1.0)))
    failing, passing = summary.nearest(SNR, summary.floats("snr_db"), 3)
    assert failing.tolist() == [3, 4, 0]
    assert passing.tolist() == [2, 5, 1]


def test_shares_of_a_column_add_up_with_the_unknown_last(wild: Summary) -> None:
    shares = wild.shares("source_licence")
    assert shares[-1].value is None
    assert sum(share.kept_s for share in shares) == pytest.approx(wild.kept_s)
    assert sum(share.n_clips for share in shares) == wild.n_clips


def test_a_sample_does_not_depend_on_the_order_of_rows() -> None:
    table = manifest(100)
    forward, backward = Summary(table), Summary(table.take(pa.array(range(table.num_rows))[::-1]))
    chosen = [
        summary.clips["clip_id"].take(pa.array(summary.first(summary.kept, 9))).to_pylist()
        for summary in (forward, backward)
    ]
    assert chosen[0] == chosen[1]


numbers = st.one_of(
    st.none(), st.floats(-1e15, 1e15), st.sampled_from([np.nan, np.inf]), st.integers(-5, 5).map(float)
)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(numbers, max_size=30),
    limits=st.lists(st.floats(-1e6, 1e6), max_size=2),
    bound=st.sampled_from(["min", "max"]),
)
def test_a_histogram_exists_for_any_numbers(
    values: list[float | None], limits: list[float], bound: str
) -> None:
    rules = [Threshold("snr_db", "", "", bound, limit, "noisy") for limit in limits]  # type: ignore[arg-type]
    schema = pa.schema([("clip_id", pa.string()), ("status", pa.string()), ("snr_db", pa.float64())])
    clips = [{"clip_id": str(i), "status": "kept", "snr_db": value} for i, value in enumerate(values)]
    summary = Summary(pa.Table.from_pylist(clips, schema))
    column = summary.floats("snr_db")
    histogram = summary.histogram(column, rules)
    assert histogram.n_measured + histogram.n_missing == len(values)
    assert (np.diff(histogram.edges) > 0).all()
    assert len(histogram.edges) < 200
    for rule in rules:
        summary.what_if(column, histogram.edges, rule, rules)
