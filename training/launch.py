"""A run's workers under Ray Train: placed, watched, started again, stopped, and heard of.

    configuration -> a group of workers, one a GPU, each `training.worker.train_worker`
      rank 0's reports -> a queue -> the driver's terminal
      a worker or its node is lost -> the whole group starts again, from RUN/checkpoints/latest
      what no second try would mend -> the run ends with that error's own sentence; the rest is in error.txt
      Ctrl-C or SIGTERM here -> RUN/stop, which the workers look for at every step -> a checkpoint, the end

Ray keeps nothing of a run: state lies in RUN/checkpoints, Ray's own notes in RUN/.ray for as long as it runs.
"""

import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import TrainConfig
from training.failures import Failures, TrainingEnded, note, sentence
from training.prepare import device_of, gpus_each
from training.run_folder import ERROR, STOP, alone

if TYPE_CHECKING:
    from ray.util.queue import Queue

RAY_NOTES = ".ray"
HEALTH_CHECK_S = 0.5
POLL_S = 0.2
NOTICED_WITHIN_S = 60.0
"""How long the workers of a driver that was killed may go on before Ray ends them."""

Report = dict[str, Any]


@dataclass
class StopWish:
    """That somebody wants this run to end, and with which signal.

    Before there are workers a signal ends what is being done at once (KeyboardInterrupt). Then the first one
    asks the workers to save and end, and a second one does not wait for them.
    """

    signum: int | None = None
    since_s: float = 0.0
    at_once: bool = False
    folder: Path | None = None
    """Where the workers look for it, once there are any."""

    @property
    def status(self) -> int:
        """The process's exit status after this signal."""
        return 128 + (self.signum or 0)

    def __call__(self, signum: int, _: object = None) -> None:
        self.at_once = self.signum is not None
        self.signum, self.since_s = self.signum or signum, self.since_s or time.monotonic()
        if self.folder is None:
            raise KeyboardInterrupt
        (self.folder / STOP).touch()


@contextmanager
def listening(wish: StopWish) -> Iterator[None]:
    """Let SIGINT and SIGTERM come to `wish` instead of ending the process. In the main thread."""
    before = {number: signal.signal(number, wish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_on_ray(
    config: TrainConfig,
    wish: StopWish,
    tell: Callable[[Report], None],
    work: Callable[..., Any] | None = None,
) -> Any:
    """Train with Ray, which is connected; what rank 0 returned, None if it was not waited for.

    Args:
        wish: looked at all the time; after `checkpoints.grace_s` the workers are not waited for any more.
        tell: is given rank 0's reports, and {"event": words} when the group starts again.
        work: instead of `train_worker`, with its arguments.

    Raises:
        TrainingEnded: in words.
    """
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    _quiet(config)
    gpus = ray.cluster_resources().get("GPU", 0)
    config = config.model_copy(update={"device": device_of(config, gpus)})
    root = Path(config.output)
    for name in (STOP, ERROR):
        (root / name).unlink(missing_ok=True)
    shutil.rmtree(root / RAY_NOTES, ignore_errors=True)  # of a driver that was killed
    wish.folder = root
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    given = {"config": config.model_dump(mode="json"), "reports": reports, "work": work}
    ended = _Fit(_trainer(config, given, gpus_each(config, gpus), reports))
    ended.start()
    while ended.is_alive():
        _tell_all(reports, tell)
        ended.join(POLL_S)
        grace_over = wish.signum and time.monotonic() - wish.since_s > config.checkpoints.grace_s
        if wish.at_once or grace_over:
            tell({"event": "the workers are not waited for; the run goes on from its last checkpoint"})
            return None  # the session's end ends them
    _tell_all(reports, tell)
    (root / STOP).unlink(missing_ok=True)
    shutil.rmtree(root / RAY_NOTES, ignore_errors=True)
    if ended.error is not None:
        raise TrainingEnded(sentence(ended.error, config)) from ended.error
    return ended.result


class _Fit(threading.Thread):
    """`trainer.fit()`: beside the main thread, as it would take Ctrl-C for itself and abort."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._trainer = trainer
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._trainer.fit().return_value
        except Exception as error:  # noqa: BLE001 whatever it is, the driver says it
            self.error = error


def _trainer(config: TrainConfig, given: dict[str, Any], gpus: float, reports: "Queue") -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": config.ray.cpus} | ({"GPU": gpus} if gpus else {})
    return TorchTrainer(
        _work,
        train_loop_config=given,
        torch_config=TorchConfig(backend="nccl" if config.device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=gpus > 0,
            resources_per_worker=resources,
            placement_strategy=config.ray.placement,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # of Train v2; the stubs show the first
            name="train",
            storage_path=str(Path(config.output) / RAY_NOTES),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=config.ray.max_failures, controller_failure_limit=0
            ),
            callbacks=[Failures(config.output, reports)],  # type: ignore[list-item]
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, int(config.ray.cpus)))}},
        ),
    )


def _work(given: dict[str, Any]) -> Any:
    """What Ray runs in every worker."""
    import ray.train

    config = TrainConfig.model_validate(given["config"])
    rank = ray.train.get_context().get_world_rank()
    try:
        work = given["work"] or _train_worker()
        if rank:
            return work(config, None)
        with alone(Path(config.output), "worker", NOTICED_WITHIN_S):
            return work(config, given["reports"].put_nowait)
    except Exception:
        note(config.output, f"worker {rank}: {traceback.format_exc()}")
        raise


def _train_worker() -> Callable[..., Any]:
    from training.worker import train_worker

    return train_worker


def _tell_all(reports: "Queue", tell: Callable[[Report], None]) -> None:
    from ray.util.queue import Empty

    try:
        while True:
            tell(reports.get_nowait())
    except Empty:
        return


def _quiet(config: TrainConfig) -> None:
    """Ray Train's settings that have no other place than the driver's environment."""
    os.environ |= {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(HEALTH_CHECK_S),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(config.ray.start_timeout_s),
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
