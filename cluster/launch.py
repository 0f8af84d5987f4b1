"""Where a command runs: Ray on this machine for as long as the command, or a job on a cluster."""

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.config import RayConfig

if TYPE_CHECKING:
    from training.config import TrainRayConfig

GB = 10**9
LISTENS_WITHIN_S = 60.0
STARTS = 3  # of a cluster of our own: Ray gives its node 30 s, which a machine short of memory may exceed
PACKAGES = ("data_pipeline", "training", "evaluation", "cluster")


log = logging.getLogger(__name__)


class LaunchError(Exception):
    """A cluster that does not start, cannot be reached, or refused the job."""


@contextmanager
def ray_session(config: "RayConfig | TrainRayConfig") -> Iterator[None]:
    """Ray, connected: the cluster whose job this process is, else one of this machine's own.

    Inside a job Ray sets RAY_ADDRESS. A cluster of this machine's own ends with the session. Raises
    LaunchError where it does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's core reports as errors, on stderr, what is none: that restarted actors will need their arguments.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    else:
        _start_here(config)
    try:
        yield
    finally:
        ray.shutdown()


def _start_here(config: "RayConfig | TrainRayConfig") -> None:
    """A cluster of this machine's own."""
    import ray

    for _ in range(STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=max(2, os.cpu_count() or 2),
                object_store_memory=int(config.object_store_gb * GB),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:
            if "timed out during startup" not in str(error):  # Ray has no class for it
                raise
            log.warning("Ray did not start within its 30 s; it is started again")
        else:
            return
    raise LaunchError(
        f"Ray did not start on this machine, {STARTS} times over: it has too much to do, or too little "
        "memory. The same command goes on from here"
    )


def submit(address: str, arguments: list[str]) -> int:
    """Run `hallo3 arguments` (without `--on`) as a job on the cluster at `address`; its exit status.

    The project's own packages travel with the job; its libraries must be installed on the cluster.
    Paths in the arguments are the cluster's. Raises LaunchError.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobStatus, JobSubmissionClient

    command = shlex.join(["python", "-m", "cluster.cli", *_without_on(arguments)])
    installed = Path(__file__).resolve().parents[1]
    try:
        client = JobSubmissionClient(address)
        packages = {"py_modules": [str(installed / package) for package in PACKAGES]}
        job = _once_it_listens(lambda: client.submit_job(entrypoint=command, runtime_env=packages))
    except (ConnectionError, RuntimeError, RayError) as error:
        raise LaunchError(f"--on {address}: the job could not be submitted: {error}") from error
    print(f"job {job} on {address}", file=sys.stderr)
    _follow(client, job)
    status = client.get_job_info(job)
    if status.status == JobStatus.SUCCEEDED:
        return 0
    return status.driver_exit_code or 1


def _once_it_listens(submit_job: Callable[[], str]) -> str:
    """The job's number. A cluster that has just begun has a head that answers before it takes jobs."""
    deadline = time.monotonic() + LISTENS_WITHIN_S
    while True:
        try:
            return submit_job()
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def _follow(client: object, job: str) -> None:
    import asyncio

    async def copy_logs() -> None:
        async for lines in client.tail_job_logs(job):  # type: ignore[attr-defined]
            sys.stdout.write(lines)
            sys.stdout.flush()

    asyncio.run(copy_logs())


def _without_on(arguments: list[str]) -> list[str]:
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument == "--on":
            next(given, None)
        elif not argument.startswith("--on="):
            rest.append(argument)
    return rest
