import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import policy
from data_pipeline.clip import ERROR_REASONS, Clip, Reason
from data_pipeline.config import FiltersConfig
from data_pipeline.policy import RULES, decide, needs_measuring, reasons_of
from tests.data_pipeline.rows import GOOD, measurements

FILTERS = FiltersConfig()


def reasons(**difference) -> list[str]:
    return decide(measurements(difference), FILTERS)["reasons"].to_pylist()[0]


def test_a_good_clip_is_kept_for_training() -> None:
    row = decide(measurements({}), FILTERS).to_pylist()[0]
    assert (row["status"], row["reason"], row["reasons"]) == ("kept", None, [])


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ({"source_height": 240}, "low_resolution"),
        ({"source_fps": 12.0}, "low_frame_rate"),
        ({"loudness_dbfs": -91.0}, "silent"),
        ({"speech_ratio": 0.1}, "no_speech"),
        ({"singing_ratio": 0.9}, "singing"),
        ({"snr_db": 2.0}, "noisy"),
        ({"luminance": 4.0}, "dark"),
        ({"motion": 0.0}, "low_motion"),
        ({"motion": 90.0}, "high_motion"),
        ({"face_detected_ratio": 0.5}, "no_face"),
        ({"face_gap_s": 2.0}, "no_face"),
        ({"other_face_ratio": 0.8}, "multi_face"),
        ({"face_fraction": 0.05}, "face_too_small"),
        ({"face_height_px": 40.0}, "face_too_small"),
        ({"yaw_deg_p95": 60.0}, "profile"),
        ({"face_confidence": 0.7}, "occluded"),
        ({"identity_consistency": 0.5}, "unstable_identity"),
        ({"sharpness": 0.5}, "blurry"),
        ({"stage_reasons": ["no_audio"]}, "no_audio"),
    ],
)
def test_each_defect_has_its_reason(difference, reason) -> None:
    row = decide(measurements(difference), FILTERS).to_pylist()[0]
    assert (row["status"], row["reason"], row["reasons"]) == ("rejected", reason, [reason])


def test_every_reason_is_told_and_the_first_one_leads() -> None:
    assert reasons(snr_db=1.0, yaw_deg_p95=80.0, source_width=100) == ["low_resolution", "noisy", "profile"]


@pytest.mark.parametrize("reason", sorted(ERROR_REASONS))
def test_what_could_not_be_measured_is_an_error_and_not_a_bad_clip(reason) -> None:
    row = decide(measurements({"stage_reasons": [reason], "clip_id": None}), FILTERS).to_pylist()[0]
    assert (row["status"], row["reason"]) == ("error", reason)


def test_what_was_not_measured_rejects_nothing() -> None:
    unmeasured = {rule.column: None for rule in RULES}
    assert reasons(**unmeasured) == []


def test_a_limit_itself_is_allowed() -> None:
    assert reasons(snr_db=FILTERS.min_snr_db, yaw_deg_p95=FILTERS.max_yaw_deg) == []


def test_an_unknown_language_never_rejects_and_a_wrong_one_does() -> None:
    filters = FILTERS.model_copy(update={"languages": ["en", "de"]})
    rows = measurements({"language": None}, {"language": "de"}, {"language": "fr"})
    assert decide(rows, filters)["reason"].to_pylist() == [None, None, "wrong_language"]


def test_a_rule_that_is_off_rejects_nothing() -> None:
    off = FiltersConfig(**{rule.filter_key: None for rule in RULES})
    worst = {
        rule.column: 1e9 if rule.bound == "max" else -1e9 for rule in RULES if "source" not in rule.column
    }
    assert decide(measurements(worst), off)["status"].to_pylist() == ["kept"]


def test_a_clip_that_a_looser_rule_lets_pass_needs_measuring_and_is_not_kept_without_media() -> None:
    rows = measurements({"snr_db": 5.0, "has_media": False, "complete": False}, {})
    assert needs_measuring(rows, FILTERS).tolist() == [False, False]
    looser = FILTERS.model_copy(update={"min_snr_db": 3.0})
    assert needs_measuring(rows, looser).tolist() == [True, False]
    assert decide(rows, looser)["reason"].to_pylist() == ["missing", None]


def test_measure_all_asks_for_what_was_stopped() -> None:
    rows = measurements({"snr_db": 1.0, "has_media": False, "complete": False})
    assert needs_measuring(rows, FILTERS, measure_all=True).tolist() == [True]


values = st.one_of(st.none(), st.floats(-200, 9000, allow_nan=False))


@given(
    st.fixed_dictionaries({rule.column: values for rule in RULES if not rule.column.startswith("source_")})
)
def test_a_clip_and_its_row_get_the_same_reasons(values) -> None:
    clip = Clip("a.mp4", **{name: GOOD[name] for name in ("source_width", "source_height", "source_fps")})
    for name, value in values.items():
        setattr(clip, name, value)
    assert [reason.value for reason in reasons_of(clip, FILTERS)] == reasons(**values)


@given(
    st.sampled_from([r for r in RULES if r.column != "source_width"]), st.floats(0, 200), st.floats(0, 200)
)
def test_a_looser_limit_never_rejects_more(rule, value, limit) -> None:
    looser = limit - 1 if rule.bound == "min" else limit + 1
    rows = measurements({rule.column: int(value) if "source_h" in rule.column else value})
    off = {r.filter_key: None for r in RULES}
    strict = FiltersConfig.model_construct(**off | {rule.filter_key: limit, "languages": []})
    loose = FiltersConfig.model_construct(**off | {rule.filter_key: looser, "languages": []})
    kept = [decide(rows, filters)["status"].to_pylist() == ["kept"] for filters in (strict, loose)]
    assert kept[1] or not kept[0]


def test_thresholds_name_every_rule_with_its_limit() -> None:
    found = {(t.column, t.bound): t.value for t in policy.thresholds(FILTERS)}
    assert found[("snr_db", "min")] == FILTERS.min_snr_db
    assert {(rule.column, rule.bound) for rule in RULES} <= set(found)


def test_reasons_stand_in_the_order_of_the_graph() -> None:
    assert list(Reason).index(Reason.NO_AUDIO) < list(Reason).index(Reason.NO_SPEECH)
    assert list(Reason).index(Reason.NO_SPEECH) < list(Reason).index(Reason.NO_FACE)
