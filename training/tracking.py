"""MLflow gets what a run has to say, whether or not it can be reached while the run trains.

    the driver trains -> RUN/metrics.jsonl
      a thread beside it -> mlflow_run.py -> MLflow; again and again where it does not answer
    the run ends -> what is left, for a bounded time -> what was not sent, in words

Training never waits for MLflow. What could not be sent is sent when it answers again, by the next start of
the run, or by `python -m training.tracking RUN`. Nothing of MLflow is imported before there is something to
send, and none of its global settings is touched.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.mlflow_run import MlflowRun
from training.run_folder import METRICS, RunFolderError, alone, saved_config

DATABASE = "mlflow.db"
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the thread tries again itself, and the end is not held up
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Where the environment has nothing of its own; as before when the run has ended."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    every_s: float = 5.0
    """Between two sendings."""
    retry_s: float = 30.0
    """After one that failed."""
    end_s: float = 20.0
    """For what is left at the run's end."""
    new_database_s: float = 60.0
    """The same, without a server: making a database's tables takes its time on a busy machine."""


@dataclass
class Ending:
    """What the driver knows of the run's end and no exception says."""

    killed: bool = False
    """It was asked to stop."""


@contextmanager
def tracked(config: TrainConfig, tell: Tell, patience: Patience = Patience()) -> Iterator[Ending]:
    """Send a run's metrics for as long as the context lasts; then what is left, for a bounded time.

    In one process of a run. MLflow raises nothing through it.

    Args:
        config: of the run, with its datasets' versions.
        tell: is given {"event": words} when MLflow cannot be used, when it can again, and what was not sent;
            from another thread.
    """
    ending = Ending()
    if not config.tracking.enabled:
        yield ending
        return
    with environment(ENVIRONMENT):
        run = MlflowRun(config, tracking_uri(config))
        run.note(status="RUNNING", ended_s=None)
        thread = _Thread(run, tell, patience)
        thread.start()
        status = "FAILED"
        try:
            yield ending
            status = "KILLED" if ending.killed else "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            thread.end(status)


def tracking_uri(config: TrainConfig) -> str:
    """Where a run is tracked: as configured, as the environment says, or in a database beside the run."""
    beside = Path(config.output).absolute().parent / DATABASE
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside}"


def send(config: TrainConfig) -> None:
    """Send what MLflow lacks of a run that nobody trains now. Raises whatever MLflow does, MetricsError."""
    with environment(ENVIRONMENT):
        run = MlflowRun(config, tracking_uri(config))
        if run.sent.ended_s is None:  # its driver was killed
            last = run.folder / METRICS
            run.note(status="KILLED", ended_s=last.stat().st_mtime if last.exists() else time.time())
        run.send(ended=True)


class _Thread(threading.Thread):
    """Sends while the run trains. A daemon: an MLflow that hangs does not keep a process alive."""

    def __init__(self, run: MlflowRun, tell: Tell, patience: Patience) -> None:
        super().__init__(name="mlflow", daemon=True)
        self._run, self._tell, self._patience = run, tell, patience
        self._ending, self._over = threading.Event(), threading.Event()
        self._trouble: str | None = None

    def run(self) -> None:
        """Until the end, and everything is sent, or `end` waits no more."""
        pause_s = self._patience.every_s
        while True:
            ended = self._ending.wait(pause_s)
            try:
                if self._trouble is not None or self._run.has_news(ended):
                    self._run.send(ended)
                self._well()
                if ended:
                    return
                pause_s = self._patience.every_s
            except Exception as error:  # noqa: BLE001 whatever it is, the run goes on
                self._failed(error)
                pause_s = self._patience.retry_s
                if ended and self._over.wait(1.0):
                    return

    def end(self, status: str) -> None:
        """Wait for what is left; say what is not sent by then."""
        try:
            self._run.note(status=status, ended_s=time.time())
        except OSError as error:
            self._failed(error)
        self._ending.set()
        server = self._run.uri.startswith(("http:", "https:"))
        self.join(self._patience.end_s if server else self._patience.new_database_s)
        self._over.set()
        if self.is_alive() or self._trouble:
            sent, reason = self._run.sent, f" ({self._trouble})" if self._trouble else ""
            words = (
                f"MLflow at {sent.uri} has this run up to step {sent.steps.get('train', 0)}{reason}; for the "
                f"rest: python -m training.tracking {self._run.folder}, or start the run again"
            )
            self._tell({"event": words})

    def _failed(self, error: Exception) -> None:
        """Says it once, until MLflow answers again."""
        sent, told = self._run.sent, self._trouble is not None
        self._trouble = reason_of(error).replace(self._run.uri, sent.uri)
        if not told:
            words = (
                f"MLflow at {sent.uri} cannot be used now ({self._trouble}); training goes on, what is to be "
                f"tracked is in {self._run.folder} and is sent when it can"
            )
            self._tell({"event": words})

    def _well(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._tell({"event": f"MLflow at {self._run.sent.uri} answers again and has everything so far"})


def reason_of(error: BaseException) -> str:
    """In short: the system's own word where one of the causes is a system's error, else the first line."""
    seen: list[BaseException] = []
    causes: list[object] = [error]
    while causes:
        cause = causes.pop()
        if not isinstance(cause, BaseException) or cause in seen:
            continue
        seen.append(cause)
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        causes += [cause.__context__, cause.__cause__, getattr(cause, "reason", None), *cause.args]
    first = str(error).strip().partition("\n")[0]
    return first[:200] or type(error).__name__


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables, where the environment has nothing of its own; as before at the end."""
    mine = {name: value for name, value in values.items() if name not in os.environ}
    os.environ |= mine
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


def main() -> int:
    """Send what MLflow lacks of a run that is over; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.tracking", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--uri", help="another MLflow than the run's: it gets all of it, as a new run")
    options = parser.parse_args()
    try:
        config = saved_config(options.run)
        if config is None:
            raise RunFolderError(f"{options.run} is no run's folder: it has no config.yaml")
        given = config.tracking.model_copy(update={"uri": options.uri or config.tracking.uri})
        with alone(options.run):
            send(config.model_copy(update={"tracking": given}))
    except RunFolderError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 MLflow's are of many kinds
        print(f"training: not sent: {reason_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
