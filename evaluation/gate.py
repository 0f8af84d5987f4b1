"""May this model be released? Rules over how figures changed against a baseline.

    'fvd > +5%'        fails where FVD rose by more than five in a hundred
    'sync_c < -0.3'    fails where Sync-C fell by more than 0.3
    'hdtf/fid > +2'    of one benchmark alone

A figure that a rule names and that could not be measured fails it: nothing is known that speaks for release.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.comparison import Change

RULE = re.compile(r"\s*(?:([\w.-]+)/)?([\w.@-]+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*(%?)\s*")


class GateError(ValueError):
    """A rule that is none, or that names what is not there; the message says what is."""


@dataclass(frozen=True)
class Rule:
    """One rule: it says when to fail."""

    text: str
    benchmark: str | None
    """None: any."""
    figure: str
    sign: Literal["<", ">"]
    limit: float
    relative: bool
    """In % of the baseline."""

    def breaks(self, change: Change) -> bool:
        """Whether a change of this rule's figure is one that fails."""
        by = change.percent if self.relative else change.absolute
        if math.isnan(by):
            return True
        return by > self.limit if self.sign == ">" else by < self.limit


@dataclass(frozen=True)
class Broken:
    """A rule that failed, and by what."""

    rule: Rule
    change: Change | None
    """None: the figure is in no benchmark that both have."""

    def __str__(self) -> str:
        change = self.change
        if change is None:
            return f"{self.rule.text}: no benchmark of both has this figure"
        if math.isnan(change.absolute):
            return f"{self.rule.text}: {change.benchmark}/{change.figure} could not be measured on both"
        return f"{self.rule.text}: {change_text(change)}"


def change_text(change: Change) -> str:
    """A change in words."""
    interval = "" if math.isnan(change.low) else f" [{change.low:+.4g}, {change.high:+.4g}]"
    return (
        f"{change.benchmark}/{change.figure} went from {change.baseline:.4g} to {change.candidate:.4g}: "
        f"{change.absolute:+.4g}{interval}, {change.percent:+.1f}%, on {change.n} clips"
    )


def parse_rule(text: str) -> Rule:
    """Raises GateError."""
    found = RULE.fullmatch(text)
    if not found:
        raise GateError(
            f"--fail-if {text!r}: not a rule; write FIGURE > +5% or FIGURE < -0.3, as in 'fvd > +5%'"
        )
    benchmark, figure, sign, limit, percent = found.groups()
    return Rule(text.strip(), benchmark, figure, "<" if sign == "<" else ">", float(limit), bool(percent))


def check_rules(rules: Iterable[Rule], figures: Sequence[str], benchmarks: Sequence[str]) -> None:
    """Raises GateError: a rule names a figure or a benchmark that there will not be."""
    for rule in rules:
        if rule.figure not in figures:
            raise GateError(
                f"--fail-if {rule.text!r}: there is no figure {rule.figure}; there are {', '.join(figures)}"
            )
        if rule.benchmark is not None and rule.benchmark not in benchmarks:
            raise GateError(
                f"--fail-if {rule.text!r}: there is no benchmark {rule.benchmark}; there are "
                f"{', '.join(benchmarks)}"
            )


def judged(rules: Iterable[Rule], changes: Sequence[Change]) -> list[Broken]:
    """The rules that fail, once for each benchmark; none: the gate is passed."""
    broken: list[Broken] = []
    for rule in rules:
        concerned = [
            change
            for change in changes
            if change.figure == rule.figure and rule.benchmark in (None, change.benchmark)
        ]
        if not concerned:
            broken.append(Broken(rule, None))
        broken += [Broken(rule, change) for change in concerned if rule.breaks(change)]
    return broken
