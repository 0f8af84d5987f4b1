"""`hallo3 train`: everything is looked at, then Ray starts, then the run; and what came of it, in words."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.launch import LaunchError, ray_session
from data_pipeline.dataset import DatasetError

if TYPE_CHECKING:
    from training.config import TrainConfig

PROBLEM, WRONG_INPUT = 1, 2
RAYS_OWN_WORDS = "A worker died or was killed|The node with node id"
"""What Ray prints of losses: ten lines of each, and we say it in one."""


def run(config: "TrainConfig", allowed: list[str]) -> int:
    """Train, or go on with training; the exit status."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", RAYS_OWN_WORDS)  # read when Ray is imported
    try:
        from training.launch import StopWish, TrainingEnded, listening, train_on_ray
        from training.prepare import PrepareError, prepare, ready
        from training.progress import Progress
        from training.run_folder import RunFolderError, RunInUse, alone, save, settle
        from training.tracking import tracked
    except ModuleNotFoundError as error:
        return _fail(f"training needs {error.name}; pip install 'hallo3[train]'", PROBLEM)

    wish = StopWish()
    try:
        with listening(wish), alone(Path(config.output)):
            config = settle(config, allowed)
            prepare(config, on_a_cluster=bool(os.environ.get("RAY_ADDRESS")))
            save(config)
            config = ready(config)
            with (
                Progress() as progress,
                tracked(config, progress) as ending,
                ray_session(config.ray),
                listening(wish),  # again: Ray takes SIGTERM for itself
            ):
                train_on_ray(config, wish, progress)
                ending.killed = wish.signum is not None
    except KeyboardInterrupt:
        wish.signum = wish.signum or signal.SIGINT
    except RunInUse as error:
        return _fail(error, PROBLEM)
    except (DatasetError, PrepareError, RunFolderError) as error:
        return _fail(error, WRONG_INPUT)
    except (LaunchError, TrainingEnded) as error:
        return _fail(error, PROBLEM)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}", PROBLEM)
    if wish.signum is not None:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return wish.status
    return 0


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
