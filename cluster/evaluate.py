"""`hallo3 evaluate`: everything is looked at, then Ray starts, then videos, figures, and the gate.

Exit status: 0 done; 1 nothing could be scored, or something is kept and not sent yet; 2 the input is wrong;
3 the gate: a rule of --fail-if failed.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.launch import LaunchError, ray_session

if TYPE_CHECKING:
    from evaluation.comparison import Change
    from evaluation.config import EvaluationConfig
    from evaluation.gate import Rule
    from evaluation.report import Compared
    from evaluation.results import Evaluation, Figure
    from evaluation.runner import Plan
    from evaluation.watch import Outcome

PROBLEM, WRONG_INPUT, GATE = 1, 2, 3
LINE_EVERY_S = 10.0
NAMED = 5
"""Clips that failed, on the terminal; all are in clips.parquet."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`evaluate` and its options."""
    command = commands.add_parser(
        "evaluate",
        help="model + benchmark -> figures, a report, and whether to release it",
        description="Generate a benchmark's videos, score them beside the real ones, compare, and report.",
    )
    command.add_argument(
        "config", metavar="CONFIG", help="a preset (default, hdtf, celebv, wild) or a YAML file"
    )
    command.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. checkpoint=run benchmark=data output=out"
    )
    command.add_argument(
        "--baseline", type=Path, metavar="RUN", help="output of an evaluation to compare with"
    )
    command.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="RULE",
        help="'fvd > +5%%' or 'sync_c < -0.3'; repeat",
    )
    command.add_argument(
        "--watch", type=Path, metavar="RUN", help="score every new checkpoint of a training run"
    )
    command.add_argument(
        "--on", metavar="ADDRESS", help="run as a job on a Ray cluster, e.g. http://head:8265"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate; the exit status."""
    from data_pipeline.config_file import ConfigError
    from evaluation.config import load_config

    try:
        config = load_config(options.config, options.overrides)
    except ConfigError as error:
        return _fail(error, WRONG_INPUT)
    if options.watch is not None and (config.checkpoint or config.videos):
        return _fail("--watch RUN says what is scored: leave out checkpoint and videos", WRONG_INPUT)
    if config.checkpoint is None and config.videos is None and options.watch is None:
        return _fail(
            "give checkpoint=RUN to make videos with, or videos=FOLDER of those there are", WRONG_INPUT
        )
    if options.fail_if and options.baseline is None:
        return _fail("--fail-if says how figures may change against --baseline: give one", WRONG_INPUT)
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|The node with node id")
    try:
        from data_pipeline.weights import WeightsUnavailable
        from evaluation.animator import WRONG_INPUTS
        from evaluation.benchmarks import BenchmarkError
        from evaluation.crew import CrewError
        from evaluation.fleet import FleetLost
        from evaluation.gate import GateError
        from evaluation.protocol import ProtocolsDiffer
        from evaluation.registry import MetricsError
        from evaluation.results import ResultsError
        from evaluation.scorer import MetricUnusable
        from evaluation.scoring import ScorersLost
        from training.run_folder import RunFolderError, RunInUse
    except ModuleNotFoundError as error:
        return _fail(f"evaluating needs {error.name}; pip install 'hallo3[train,eval]'", PROBLEM)

    try:
        if options.watch is not None:
            return watch_run(options.watch, config, options.baseline, options.fail_if)
        return evaluate(config, options.baseline, options.fail_if).status
    except (*WRONG_INPUTS, BenchmarkError, CrewError, GateError, ProtocolsDiffer, ResultsError) as error:
        return _fail(error, WRONG_INPUT)
    except (MetricUnusable, MetricsError, WeightsUnavailable) as error:
        return _fail(error, WRONG_INPUT)
    except (FleetLost, LaunchError, RunInUse, ScorersLost) as error:
        return _fail(error, PROBLEM)
    except RunFolderError as error:
        return _fail(error, WRONG_INPUT)
    except OSError as error:
        return _fail(f"{error.filename or config.output}: {error.strerror or error}", PROBLEM)


def watch_run(run: Path, config: "EvaluationConfig", baseline: Path | None, fail_if: list[str]) -> int:
    """Every checkpoint of a training run, each into a folder of its own; the last one's exit status."""
    from evaluation.watch import Outcome, watch

    output = Path(config.output)

    def score(checkpoint: Path, place: Path, step: int) -> Outcome:
        print(f"{run}, step {step}:", flush=True)
        given = {
            "checkpoint": str(checkpoint),
            "output": str(place),
            "cache": config.cache or f"{output}/real",
        }
        return evaluate(config.model_copy(update=given), baseline, fail_if, run)

    return watch(run, output, score, config.watch_every_s)


def evaluate(
    config: "EvaluationConfig", baseline: Path | None, fail_if: list[str], watched: Path | None = None
) -> "Outcome":
    """One evaluation, from its inputs to the gate.

    Args:
        baseline: the output of another one.
        watched: the training run that the checkpoint is of, where each of them is scored.
    """
    from evaluation.gate import check_rules, parse_rule
    from evaluation.lineage import about_checkpoint
    from evaluation.report import write_report
    from evaluation.results import read_results
    from evaluation.runner import evaluate as evaluate_plan
    from evaluation.runner import plan
    from evaluation.watch import Outcome
    from training.config import TrainRayConfig
    from training.run_folder import alone

    rules = [parse_rule(text) for text in fail_if]
    compared = None if baseline is None else read_results(baseline)
    planned = plan(config)
    names = [one.benchmark.name for one in planned.benchmarks]
    check_rules(rules, planned.figure_names, names)
    if compared is not None:
        _check_comparable(planned, compared)
    about = {"videos": config.videos}
    if config.checkpoint is not None:
        about = about_checkpoint(Path(config.checkpoint), watched)
    for one in planned.benchmarks:
        _say_missing(one.benchmark.name, one.benchmark.missing)
    ray_config = TrainRayConfig(object_store_gb=config.ray.object_store_gb)
    with alone(Path(config.output)), ray_session(ray_config):
        evaluation = evaluate_plan(planned, about, Told())
    _say(evaluation)
    found = None if compared is None else _compared(evaluation, config, compared, baseline, rules)
    print(write_report(evaluation, Path(config.output), config.shown, found))
    sent = _send(evaluation, config, found, watched)
    if not any(one.scored for one in evaluation.benchmarks):
        why = f"no video could be scored; why is in {config.output}/clips.parquet"
        return Outcome(_fail(why, PROBLEM), done=False)
    if found is not None and not found.passed:
        return Outcome(GATE, done=sent)
    return Outcome(0 if sent else PROBLEM, done=sent)


def _send(
    evaluation: "Evaluation", config: "EvaluationConfig", compared: "Compared | None", watched: Path | None
) -> bool:
    """To MLflow; whether it has everything. What it raises is of many kinds."""
    from evaluation.tracking import send, send_trend, tracking_uri
    from training.mlflow_run import without_password
    from training.tracking import reason_of

    output = Path(config.output)
    home = output if watched is None else output.parent
    where = without_password(tracking_uri(config, home))
    try:
        run_id = send(evaluation, config, compared, home)
        if watched is not None:
            send_trend(evaluation, config, watched, home)
    except Exception as error:  # noqa: BLE001
        print(
            f"hallo3: MLflow at {where} cannot be used now ({reason_of(error)}); everything is in {output}, "
            "and the same command sends it",
            file=sys.stderr,
        )
        return False
    if run_id is not None:
        print(f"MLflow: run {run_id} at {where}")
    return True


def _check_comparable(planned: "Plan", compared: "Evaluation") -> None:
    """Before anything is made. Raises ProtocolsDiffer."""
    from evaluation.protocol import check_same

    for one in planned.benchmarks:
        theirs = compared.of(one.benchmark.name)
        if theirs is not None:
            check_same(theirs.protocol, one.protocol.fields, ("baseline", "this one"))


def _compared(
    evaluation: "Evaluation",
    config: "EvaluationConfig",
    compared: "Evaluation",
    baseline: Path | None,
    rules: "list[Rule]",
) -> "Compared":
    """What changed, and whether that will do; said, too."""
    from evaluation.comparison import changes
    from evaluation.gate import judged
    from evaluation.report import Compared

    found = changes(evaluation, Path(config.output), compared, Path(str(baseline)), config.metrics)
    _say_changes(found)
    broken = judged(rules, found)
    for one in broken:
        print(f"hallo3: gate: {one}", file=sys.stderr)
    if rules and not broken:
        print(f"gate: passed, {len(rules)} rules")
    return Compared(str(baseline), found, rules, broken)


def _say_missing(name: str, missing: dict[str, str]) -> None:
    if missing:
        print(f"hallo3: {name}: {len(missing)} items are not here:", file=sys.stderr)
    for item, words in list(missing.items())[:NAMED]:
        print(f"  {item}: {words}", file=sys.stderr)
    if len(missing) > NAMED:
        print(f"  and {len(missing) - NAMED} more, all of them in figures.json", file=sys.stderr)


def _say(evaluation: "Evaluation") -> None:
    """Figures, and clips that failed."""
    for one in evaluation.benchmarks:
        print(
            f"{one.name}: {one.scored} of {one.attempted} clips scored, protocol {one.protocol_sha256[:12]}"
        )
        for figure in one.figures.generated:
            real = one.figures.real_figure(figure.name)
            beside = "" if real is None else f"   real {_text(real)}"
            print(f"  {figure.name:<24} {_text(figure):<36}{beside}".rstrip())
        failed = [row for row in evaluation.rows_of(one.name) if row["error"]]
        if failed:
            print(f"hallo3: {one.name}: {len(failed)} clips are not, or not wholly, scored:", file=sys.stderr)
        for row in failed[:NAMED]:
            print(f"  {row['name']}: {row['error']}", file=sys.stderr)
        if len(failed) > NAMED:
            print(f"  and {len(failed) - NAMED} more, all of them in clips.parquet", file=sys.stderr)


def _say_changes(found: "list[Change]") -> None:
    from evaluation.gate import change_text

    for change in found:
        print(f"  {change_text(change)}")


def _text(figure: "Figure") -> str:
    interval = "" if math.isnan(figure.low) else f" [{figure.low:.4g}, {figure.high:.4g}]"
    return f"{figure.value:.4g}{interval} (n={figure.n})"


class Told:
    """Says on stderr how far each step is: at its beginning and end, and every ten seconds."""

    def __init__(self) -> None:
        self._step = ""
        self._said = 0.0

    def __call__(self, step: str, done: int, of: int) -> None:
        now = time.monotonic()
        if step != self._step or done == of or now - self._said > LINE_EVERY_S:
            self._step, self._said = step, now
            print(f"evaluate: {step} {done}/{of}", file=sys.stderr, flush=True)


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
