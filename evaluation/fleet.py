"""Many videos over workers that hold the model each: Ray actors, one a GPU.

    takes -> teams, each one take at a time: a worker, or several that share a video (together.py)
      a worker is lost -> its team is replaced, and the take goes on from its last window (parts.py)
      a take cannot be made -> the words why; the others go on
      its video is there, made of the same by the same -> it stays as it is

Ray is connected already (cluster/launch.py). Nothing but words and counts goes through it.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evaluation.animator import Take
from evaluation.crew import Crew
from evaluation.worker import Failed, Happened, Load, Progress, Worker, may_go_well, words_of

TRIES = 3
"""How often a take is begun by teams that are lost before they have made a window more."""

log = logging.getLogger(__name__)


class FleetLost(RuntimeError):
    """Workers die before they have the model."""


def animate_all(takes: Sequence[Take], load: Load, crew: Crew) -> Iterator[tuple[int, Happened]]:
    """Make videos; as it happens, the number of a take and what happened to it.

    Of every take the last is Made, There or Failed.

    Raises:
        FleetLost: no worker lives long enough to have the model.
        AnimateError and all else that `load` raises: the model cannot be used.
    """
    fleet = _Fleet(takes, load, crew)
    try:
        while fleet.works:
            if heard := fleet.hear():
                yield heard
    finally:
        fleet.end()


@dataclass
class _Job:
    """A take that is to be made."""

    number: int
    take: Take
    tries: int = 0
    """Since the last window."""


class _Fleet:
    """The teams, and what they are to do."""

    def __init__(self, takes: Sequence[Take], load: Load, crew: Crew) -> None:
        self._load, self._crew = load, crew
        self._waiting = deque(_Job(number, take) for number, take in enumerate(takes))
        self._teams: list[_Team] = []
        self._lost_at_start = 0

    @property
    def works(self) -> bool:
        """Whether a take is left to be made."""
        return bool(self._waiting) or any(team.job for team in self._teams)

    def hear(self) -> tuple[int, Happened] | None:
        """Waits for the next that happens; None: it concerns no take."""
        self._give_work()
        team, ref = _next(self._teams)
        job, happened = team.job, None
        try:
            happened = team.heard(ref)
            self._lost_at_start = 0
        except _Lost as lost:
            team.end()
            self._teams.remove(team)
            if not team.loaded:
                self._lost_without_model(lost.cause)
            elif job:
                happened = self._lost(job, lost.cause)
        return (job.number, happened) if job and happened else None

    def end(self) -> None:
        """Of all workers, whatever they do."""
        for team in self._teams:
            team.end()

    def _give_work(self) -> None:
        jobs = len(self._waiting) + sum(team.job is not None for team in self._teams)
        while len(self._teams) < min(self._crew.teams, jobs):
            self._teams.append(_Team(self._load, self._crew))
        for team in self._teams:
            if team.idle and self._waiting:
                team.begin(self._waiting.popleft())

    def _lost(self, job: _Job, error: Exception) -> Failed | None:
        """What it means for the take that a team was at."""
        if job.tries == TRIES:
            return Failed(f"its workers were lost {TRIES} times: {_lost_words(error)}")
        log.warning("%s: a worker was lost; another goes on from its last window", job.take.output)
        self._waiting.appendleft(job)
        return None

    def _lost_without_model(self, error: Exception) -> None:
        """Raises what `load` raised, and FleetLost."""
        self._lost_at_start += 1
        if not _of_ray(error) and not may_go_well(error):
            raise error
        if self._lost_at_start == TRIES:
            words = f"workers were lost {TRIES} times while they loaded the model: {_lost_words(error)}"
            raise FleetLost(words) from error
        log.warning("a worker was lost while it loaded the model; another takes its place")


class _Lost(Exception):
    """A team of which no more is to be had."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class _Team:
    """The workers of one video, as the driver sees them. It begins with loading."""

    def __init__(self, load: Load, crew: Crew) -> None:
        import ray
        from ray.util import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        asked: dict[str, float] = {"CPU": 1, "GPU": 1} if crew.device == "cuda" else {"CPU": 1}
        self._place = placement_group([asked] * crew.a_video, strategy="PACK")
        start: Any = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=asked.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._place),
        )
        threads = max(1, torch.get_num_threads() // crew.workers)
        self._members = [start.remote(load, crew.device, threads) for _ in range(crew.a_video)]
        self._first, *others = self._members
        meeting = self._first.open_meeting.remote() if others else None
        self._others = [
            other.follow.remote(meeting, rank, crew.a_video) for rank, other in enumerate(others, start=1)
        ]
        self._at = self._first.prepare.remote(crew.a_video)
        self.loaded = False
        self.job: _Job | None = None
        self._begun = False

    @property
    def idle(self) -> bool:
        """Whether it waits for a take."""
        return self.loaded and self._at is None

    @property
    def refs(self) -> list[Any]:
        """What is heard of next."""
        return self._others if self._at is None else [*self._others, self._at]

    def begin(self, job: _Job) -> None:
        """Make a take's video."""
        job.tries += 1
        self.job, self._begun = job, False
        self._at = self._first.animate.options(num_returns="streaming").remote(job.take)

    def heard(self, ref: Any) -> Happened | None:
        """What happened to the take, now that one of `refs` is ready. Raises _Lost."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if ref in self._others or not self.loaded:
                ray.get(ref)
                self.loaded, self._at = True, None
                return None
            happened: Happened = ray.get(next(ref))
        except StopIteration:
            self._at = None
            return None
        except RayTaskError as error:
            raise _Lost(error.cause) from error
        except RayError as error:
            raise _Lost(error) from error
        if not isinstance(happened, Progress):
            self.job = None
        elif self.job and self._begun:  # a window more than there was
            self.job.tries = 1
        self._begun = True
        return happened

    def end(self) -> None:
        """Whatever its workers do."""
        import ray
        from ray.util import remove_placement_group

        for member in self._members:
            ray.kill(member)
        remove_placement_group(self._place)


def _next(teams: Sequence[_Team]) -> tuple[_Team, Any]:
    """Waits for the team of which something is heard, and by which of its refs."""
    import ray

    team_of = {ref: team for team in teams for ref in team.refs}
    ref: Any = ray.wait([*team_of], num_returns=1, fetch_local=False)[0][0]
    return team_of[ref], ref


def _of_ray(error: Exception) -> bool:
    from training.failures import of_ray

    return of_ray(error)


def _lost_words(error: Exception) -> str:
    """Why there is no worker any more."""
    if _of_ray(error):
        return "they die, as for want of memory"
    return words_of(error)
