"""`hallo3 animate` over several workers: Ray for as long as it lasts, and how far all its videos are."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.launch import ray_session

if TYPE_CHECKING:
    from evaluation.animator import Made, Take
    from evaluation.worker import Happened, Load

PROBLEM = 1
LINE_EVERY_S = 10.0
OBJECTS_GB = 0.1
"""Of Ray's store, through which go words and counts."""


def run(takes: Sequence["Take"], load: "Load", options: argparse.Namespace) -> int:
    """Make the videos; the exit status: 1 where one of them could not be made.

    Raises CrewError, FleetLost, LaunchError, and what is wrong with the model (evaluation/fleet.py)."""
    from cluster.training import RAYS_OWN_WORDS

    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", RAYS_OWN_WORDS)  # read when Ray is imported
    from evaluation.crew import check_sharing, crew_of
    from evaluation.fleet import animate_all
    from evaluation.items import seconds_of
    from training.config import TrainRayConfig

    check_sharing(options.checkpoint, options.workers_a_video)
    told = _Told([take.output for take in takes], [seconds_of(take) for take in takes], options.fps)
    with ray_session(TrainRayConfig(object_store_gb=OBJECTS_GB)):
        crew = crew_of(options.device, options.workers, options.workers_a_video)
        told.begin(crew.workers)
        for number, happened in animate_all(takes, load, crew):
            told(number, happened)
    return told.end()


class _Told:
    """Says what becomes of each video, and on stderr every ten seconds how far all of them are.

    Args:
        outputs: the videos.
        seconds: about how long each will be.
        fps: frames of a second.
    """

    def __init__(self, outputs: Sequence[Path], seconds: Sequence[float], fps: int) -> None:
        self._outputs, self._seconds, self._fps = outputs, seconds, fps
        self._done: dict[int, float] = {}
        """Seconds of each video that need not be made any more."""
        self._for_nothing = 0.0
        """Of them, seconds that nobody has made since the command began."""
        self._there = 0
        self._failed: dict[int, str] = {}
        self._ended = 0
        self._began = self._said = 0.0

    def begin(self, workers: int) -> None:
        """Says what there is to do, and who does it."""
        print(f"animate: {self._how_far(0.0)}; workers: {workers}", file=sys.stderr, flush=True)

    def __call__(self, number: int, happened: "Happened") -> None:
        from evaluation.animator import Made
        from evaluation.worker import Failed, Progress, There

        now = time.monotonic()
        self._began, self._said = self._began or now, self._said or now
        before = self._done.get(number)
        share = happened.made / happened.of if isinstance(happened, Progress) else 1.0
        self._done[number] = share * self._seconds[number]
        if before is None or isinstance(happened, Failed):
            self._for_nothing += self._done[number] - (before or 0.0)
        if not isinstance(happened, Progress):
            self._ended += 1
        if isinstance(happened, Made):
            self._say_made(self._outputs[number], happened)
        elif isinstance(happened, Failed):
            self._failed[number] = happened.words
        elif isinstance(happened, There):
            self._there += 1
        if now - self._said > LINE_EVERY_S:
            self._said = now
            print(f"animate: {self._how_far(now)}", file=sys.stderr, flush=True)

    def end(self) -> int:
        """Says what was there and what could not be made; the exit status."""
        if self._there:
            print(f"{self._there} of {len(self._outputs)} videos were there, of the same inputs")
        if not self._failed:
            return 0
        print(
            f"hallo3: {len(self._failed)} of {len(self._outputs)} videos could not be made; "
            "the same command makes what is missing",
            file=sys.stderr,
        )
        for number, words in sorted(self._failed.items()):
            print(f"  {self._outputs[number]}: {words}", file=sys.stderr)
        return PROBLEM

    def _say_made(self, output: Path, made: "Made") -> None:
        for warning in made.warnings:
            print(f"hallo3: {warning}", file=sys.stderr)
        print(f"{output}: {made.frames} frames, {made.frames / self._fps:.2f} s", flush=True)

    def _how_far(self, now: float) -> str:
        done, whole = sum(self._done.values()), sum(self._seconds)
        far = f"{self._ended}/{len(self._outputs)} videos, {done:.0f}/{whole:.0f} s"
        made = done - self._for_nothing
        if made <= 0:
            return far
        return f"{far}, about {(now - self._began) / made * (whole - done):.0f} s left"
