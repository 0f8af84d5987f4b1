"""May it be released? Changes against a baseline on common clips, and rules over them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.comparison import Change, changes
from evaluation.config import MetricsConfig
from evaluation.found_store import FoundStore, Scored
from evaluation.gate import GateError, check_rules, judged, parse_rule
from evaluation.protocol import ProtocolsDiffer, check_same
from evaluation.results import BenchmarkResult, Beside, Evaluation
from tests.evaluation.benchmark_makers import METRICS


def evaluation(folder: Path, values: Mapping[str, float], seed: int = 0) -> Evaluation:
    """As if its clips had been measured to be so bright."""
    store = FoundStore(folder / "found")
    for name, value in values.items():
        arrays = {METRICS[1]: {"means": np.float32([value])}}
        store.write(name, Scored("", {METRICS[0]: {"luminance": value}, METRICS[1]: {}}), arrays)
    real = FoundStore(folder / "real")
    for name in "abcdef":
        real.write(name, Scored("", {METRICS[1]: {}}), {METRICS[1]: {"means": np.float32([100])}})
    protocol = {"benchmark": {"sha256": "1"}, "seed": seed}
    result = BenchmarkResult(
        "hdtf", protocol, "", {}, len(values), len(values), {}, Beside([], []), {}, "found", "real"
    )
    rows = [
        {"benchmark": "hdtf", "name": name, "generated.luminance": value} for name, value in values.items()
    ]
    return Evaluation({}, list(METRICS), [result], rows)


def changed(tmp_path: Path, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Change]:
    old, new = evaluation(tmp_path / "old", before), evaluation(tmp_path / "new", after)
    return {one.figure: one for one in changes(new, tmp_path / "new", old, tmp_path / "old", MetricsConfig())}


def test_a_change_is_that_of_the_clips_that_both_could_score(tmp_path) -> None:
    found = changed(tmp_path, {"a": 100, "b": 120, "c": 200}, {"a": 104, "b": 128, "d": 10})
    luminance = found["luminance"]
    assert (luminance.baseline, luminance.candidate, luminance.n) == (110, 116, 2)
    assert (luminance.low, luminance.high, luminance.paired) == (4, 8, True)
    assert luminance.percent == pytest.approx(100 * 6 / 110)
    distance = found["luminance_distance"]
    assert (distance.baseline, distance.candidate, distance.n) == (10, 16, 2)
    assert not distance.paired


def test_a_paired_interval_is_narrow_where_clips_differ_more_than_models(tmp_path) -> None:
    clips = {name: 40.0 * place for place, name in enumerate("abcdef")}
    found = changed(tmp_path, clips, {name: value + 1 for name, value in clips.items()})
    assert (found["luminance"].low, found["luminance"].high) == (1, 1)


def test_evaluations_of_two_protocols_are_not_compared_and_the_fields_are_named(tmp_path) -> None:
    old, new = evaluation(tmp_path / "old", {"a": 1}), evaluation(tmp_path / "new", {"a": 1}, seed=5)
    with pytest.raises(ProtocolsDiffer, match=r"seed: 0 \(baseline\), 5 \(candidate\)") as caught:
        changes(new, tmp_path / "new", old, tmp_path / "old", MetricsConfig())
    assert "benchmark" not in str(caught.value)
    with pytest.raises(ProtocolsDiffer, match=r"metrics.fid.sha256: nothing \(a\), 12 \(b\)"):
        check_same({}, {"metrics": {"fid": {"sha256": "12"}}}, ("a", "b"))


def test_a_benchmark_that_the_baseline_has_not_is_no_change(tmp_path) -> None:
    old, new = evaluation(tmp_path / "old", {"a": 1}), evaluation(tmp_path / "new", {"a": 1})
    other = replace(new, benchmarks=[replace(new.benchmarks[0], name="wild")])
    assert changes(other, tmp_path / "new", old, tmp_path / "old", MetricsConfig()) == []


def change(baseline: float, candidate: float, figure: str = "fvd", benchmark: str = "hdtf") -> Change:
    return Change(benchmark, figure, baseline, candidate, math.nan, math.nan, 9, True)


@pytest.mark.parametrize(
    ("rule", "baseline", "candidate", "fails"),
    [
        ("fvd > +5%", 100, 106, True),
        ("fvd > +5%", 100, 105, False),
        ("fvd > 5 %", 100, 50, False),
        ("fvd < -0.3", 6, 5.6, True),
        ("fvd < -0.3", 6, 5.8, False),
        ("hdtf/fvd>+1", 10, 12, True),
        ("wild/fvd > +1", 10, 12, True),  # there is no such change: nothing speaks for it
        ("fvd > +5%", -10, -9, True),  # of the baseline's size, whatever its sign
        ("fvd > +5%", 0, 1, True),
        ("fvd > +5%", 100, math.nan, True),
    ],
)
def test_rules(rule: str, baseline: float, candidate: float, fails: bool) -> None:
    assert bool(judged([parse_rule(rule)], [change(baseline, candidate)])) is fails


def test_the_rule_that_failed_is_said_with_what_it_found() -> None:
    rules = [parse_rule("fvd > +5%"), parse_rule("sync_c < -0.3")]
    (broken,) = judged(rules, [change(100, 120), change(6, 6, "sync_c")])
    assert str(broken) == "fvd > +5%: hdtf/fvd went from 100 to 120: +20, +20.0%, on 9 clips"
    (unmeasured,) = judged(rules[:1], [change(100, math.nan)])
    assert "could not be measured on both" in str(unmeasured)


@pytest.mark.parametrize("text", ["fvd", "fvd > five", "fvd = 3", "> 5%", "fvd > +5 % of it", ""])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(GateError, match="not a rule; write FIGURE > "):
        parse_rule(text)


def test_a_rule_names_a_figure_and_a_benchmark_that_there_are() -> None:
    check_rules([parse_rule("hdtf/fvd > +1")], ["fvd"], ["hdtf"])
    with pytest.raises(GateError, match="there is no figure fdv; there are fvd, fid"):
        check_rules([parse_rule("fdv > +1")], ["fvd", "fid"], ["hdtf"])
    with pytest.raises(GateError, match="there is no benchmark htdf; there are hdtf"):
        check_rules([parse_rule("htdf/fvd > +1")], ["fvd"], ["hdtf"])
