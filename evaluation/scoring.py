"""Many videos over scorers: Ray actors that hold the networks each, and are replaced when they are lost.

shots -> scorers, two each: one is read while Ray brings the next -> (number, Scored), as they come
  a scorer is lost -> another one takes its shots; a shot that loses TRIES scorers gets the words
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.config import ClipConfig, EvaluationRayConfig, MetricsConfig
from evaluation.found_store import Scored
from evaluation.scorer import MetricUnusable, Scorer, Shot

TRIES = 3
AHEAD = 2
"""Shots that a scorer has."""
SHARE_OF_A_GPU = 0.5
"""Of a scorer, unless told: one decodes while the other computes."""
MOST_SCORERS = 8
"""Without GPUs, unless more are asked for."""

log = logging.getLogger(__name__)


class ScorersLost(RuntimeError):
    """Scorers die before they have their networks."""


def score_all(
    shots: Sequence[Shot],
    metrics: MetricsConfig,
    clip: ClipConfig,
    agreed: Mapping[str, Mapping[str, object]],
    ray_config: EvaluationRayConfig,
) -> Iterator[tuple[int, Scored]]:
    """Score videos on the Ray that is connected; the number of each as it is done.

    Args:
        agreed: every metric's protocol, by its name.

    Raises:
        MetricUnusable: a metric's weights are not here, say.
        ScorersLost: no scorer lives long enough.
    """
    pool = _Pool(shots, (metrics, clip, agreed), ray_config)
    try:
        while pool.works:
            yield from pool.hear()
    finally:
        pool.end()


@dataclass
class _Job:
    number: int
    shot: Shot
    tries: int = 0


@dataclass
class _Member:
    """A scorer as the driver sees it."""

    actor: Any
    ready: Any
    loaded: bool = False
    jobs: dict[Any, _Job] = field(default_factory=dict)
    """By the ref of their outcome, the first one is in hand."""


class _Pool:
    def __init__(self, shots: Sequence[Shot], given: tuple[Any, ...], config: EvaluationRayConfig) -> None:
        """`given`: what a scorer is made of."""
        self._given = given
        self._config = config
        self._waiting = deque(_Job(number, shot) for number, shot in enumerate(shots))
        self._members: list[_Member] = []
        self._most, self._gpus = scorers_of(config), gpus_of(config)
        self._lost_at_start = 0

    @property
    def works(self) -> bool:
        return bool(self._waiting) or any(member.jobs for member in self._members)

    def hear(self) -> Iterator[tuple[int, Scored]]:
        """Waits for the next that happens."""
        import ray

        self._give_work()
        owner = {ref: member for member in self._members for ref in self._refs(member)}
        ref: Any = ray.wait([*owner], num_returns=1)[0][0]
        yield from self._heard(owner[ref], ref)

    def end(self) -> None:
        import ray

        for member in self._members:
            ray.kill(member.actor)

    def _refs(self, member: _Member) -> list[Any]:
        return [*member.jobs] if member.loaded else [member.ready]

    def _heard(self, member: _Member, ref: Any) -> Iterator[tuple[int, Scored]]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, MetricUnusable):
                raise error.cause from None
            if not member.loaded:
                raise
            job = member.jobs.pop(ref)  # its store cannot be written, say
            yield job.number, Scored("", error=str(error.cause))
        except RayError as error:
            yield from self._lost(member, error)
        else:
            if not member.loaded:
                member.loaded, self._lost_at_start = True, 0
            else:
                yield member.jobs.pop(ref).number, answer

    def _lost(self, member: _Member, error: Exception) -> Iterator[tuple[int, Scored]]:
        import ray

        self._members.remove(member)
        ray.kill(member.actor)
        if not member.loaded:
            self._lost_at_start += 1
            if self._lost_at_start == TRIES:
                raise ScorersLost(
                    f"scorers were lost {TRIES} times while they loaded the networks, as for want of "
                    "memory; give ray.scorers=1, or fewer metrics"
                ) from error
        if not member.jobs:
            return
        first, *others = member.jobs.values()
        self._waiting.extendleft(others)
        first.tries += 1  # the others were not begun
        if first.tries == TRIES:
            words = f"{first.shot.look.video}: its scorer was lost {TRIES} times, as for want of memory"
            yield first.number, Scored("", error=words)
            return
        log.warning("%s: its scorer was lost; another one takes it", first.shot.look.video)
        self._waiting.appendleft(first)

    def _give_work(self) -> None:
        import ray

        jobs = len(self._waiting) + sum(len(member.jobs) for member in self._members)
        start: Any = ray.remote(Scorer).options(num_cpus=self._config.scorer_cpus, num_gpus=self._gpus)
        while len(self._members) < min(self._most, jobs):
            actor = start.remote(*self._given)
            self._members.append(_Member(actor, actor.prepare.remote()))
        for _ in range(AHEAD):
            for member in self._members:
                if member.loaded and self._waiting and len(member.jobs) < AHEAD:
                    job = self._waiting.popleft()
                    member.jobs[member.actor.score.remote(job.shot)] = job


def scorers_of(config: EvaluationRayConfig) -> int:
    """How many there are at most, on the Ray that is connected."""
    import ray

    if config.scorers is not None:
        return config.scorers
    there, gpus = ray.cluster_resources(), gpus_of(config)
    if gpus:
        return max(1, int(there.get("GPU", 0) / gpus))
    return max(1, min(MOST_SCORERS, int(there.get("CPU", 1) / config.scorer_cpus)))


def gpus_of(config: EvaluationRayConfig) -> float:
    """What a scorer has of a GPU, on the Ray that is connected."""
    import ray

    if config.scorer_gpus is not None:
        return config.scorer_gpus
    return SHARE_OF_A_GPU if ray.cluster_resources().get("GPU", 0) else 0.0
