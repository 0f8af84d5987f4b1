"""A run's progress says how far it is and how long it takes, whatever happens on the way."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from training.progress import LINE_EVERY_S, Pace, Progress, hours_text


def pace_of(steps: list[tuple[int, float, float]]) -> Pace:
    """Of (step, its seconds, seconds between it and the one before)."""
    pace, now_s = Pace(), 0.0
    for step, step_s, between_s in steps:
        now_s += step_s + between_s
        pace.add(step, step_s, now_s)
    return pace


def test_nothing_is_foretold_from_the_first_step() -> None:
    assert pace_of([(1, 2.0, 0.0)]).left_s(100) is None


def test_a_slow_first_step_does_not_count() -> None:
    pace = pace_of([(1, 60.0, 0.0), *((step, 2.0, 0.0) for step in range(2, 11))])
    assert pace.left_s(100) == pytest.approx(90 * 2.0)


def test_one_slow_step_among_many_hardly_counts() -> None:
    pace = pace_of([(step, 40.0 if step == 15 else 2.0, 0.0) for step in range(1, 31)])
    assert pace.left_s(130) == pytest.approx(200.0)


def test_what_lies_between_steps_is_spread_over_them() -> None:
    """Every tenth step 5 s of held-out losses."""
    pace = pace_of([(step, 1.0, 5.0 if step % 10 == 1 and step > 1 else 0.0) for step in range(1, 102)])
    assert pace.left_s(201) == pytest.approx(100 * (1.0 + 0.5))


def test_a_run_that_goes_on_forgets_how_long_it_stood_still() -> None:
    before = [(step, 2.0, 0.0) for step in range(1, 21)]
    again = [(step, 2.0, 600.0 if step == 11 else 0.0) for step in range(11, 31)]
    assert pace_of(before + again).left_s(130) == pytest.approx(200.0)


def test_a_run_that_begins_late_counts_from_there() -> None:
    pace = pace_of([(step, 3.0, 0.0) for step in range(5001, 5011)])
    assert pace.left_s(5110) == pytest.approx(300.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "0:01"), (60, "0:01"), (3661, "1:02"), (360_000, "100:00")]
)
def test_time_left_is_in_hours_and_minutes(seconds, text) -> None:
    assert hours_text(seconds) == text


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def row(step: int, **others: object) -> dict:
    return {"step": step, "kind": "train", "max_steps": 100, "loss": 0.5, "step_s": 2.0} | others


def lines_of(reports: list[dict], capsys, seconds_each: float = 2.0) -> list[str]:
    clock = Clock()
    with Progress(clock) as progress:
        for report in reports:
            clock.now_s += seconds_each
            progress(report)
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_a_last_one(capsys) -> None:
    lines = lines_of([row(step, samples_per_s=4.0) for step in range(1, 13)], capsys)
    every = int(LINE_EVERY_S / 2.0)
    assert [line.split(":")[0] for line in lines] == [
        f"step {n}/100" for n in (1, 1 + every, 1 + 2 * every, 12)
    ]
    assert lines[-1] == "step 12/100: loss 0.5000, 4 samples/s, 0:03 left"


def test_a_run_that_is_done_says_its_last_step_once(capsys) -> None:
    lines = lines_of([row(step) for step in (98, 99, 100)], capsys)
    assert lines[-1] == "step 100/100: loss 0.5000"
    assert len(lines) == 2


def test_events_are_told_at_once_as_they_are(capsys) -> None:
    lines = lines_of([row(1), {"event": "worker 1 was lost [bold]"}, {"step": 4, "event": "begins"}], capsys)
    assert lines[1:] == ["worker 1 was lost [bold]", "begins"]


def test_what_went_wrong_is_in_the_line(capsys) -> None:
    held_out = {"step": 50, "kind": "held_out", "max_steps": 100, "loss": 0.61, "loss_0.1": 0.3}
    lines = lines_of([held_out, row(100, loss=None, bad_samples=2, skipped_steps=1)], capsys)
    assert lines == [
        "step 50: held-out loss 0.6100",
        "step 100/100: loss not finite, held out 0.6100, broken samples: 2, left out steps: 1",
    ]


def test_on_a_terminal_one_line_is_kept_up_to_date_with_events_above_it() -> None:
    code = (
        "from training.progress import Progress\n"
        "with Progress() as progress:\n"
        "    progress({'event': 'begins'})\n"
        "    for step in range(1, 4):\n"
        "        progress({'step': step, 'kind': 'train', 'max_steps': 3, 'loss': 0.25, 'step_s': 0.1})\n"
    )
    here, there = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], stderr=there, env=environment)
    os.close(there)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side is closed
        while read := os.read(here, 65536):
            shown += read
    assert child.wait(timeout=60) == 0
    text = shown.decode()
    assert "begins" in text
    assert "3/3" in text
    assert "loss 0.2500" in text
    assert text.count("begins") == 1
