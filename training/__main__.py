"""`torchrun --nproc_per_node N -m training CONFIG [key=value ...]`: the same workers, without Ray.

Rank 0 looks at everything that the run needs, as `hallo3 train` does, and gives the others the configuration
that the run goes by. A lost worker ends all; the same command goes on from the last checkpoint.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from typing import Any

from data_pipeline.config_file import ConfigError
from data_pipeline.dataset import DatasetError
from training.config import TrainConfig, load_config

PROBLEM, WRONG_INPUT = 1, 2


def main() -> int:
    """Run one rank; returns the exit status."""
    parser = argparse.ArgumentParser(prog="torchrun ... -m training", description=__doc__)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    parser.add_argument("--allow-change", metavar="KEY", nargs="+", default=[])
    options = parser.parse_args()
    try:
        config = load_config(options.config, options.overrides)
        rank = _rank(config)
    except ConfigError as error:
        return _fail(error, WRONG_INPUT)
    import torch.distributed as dist

    from training.prepare import device_of

    device = device_of(config, _gpus())
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    except dist.DistNetworkError as error:
        return _fail(_about_port(error), PROBLEM)
    with ExitStack() as held:
        decided: list[Any] = [None]
        if rank == 0:
            decided = [_begin(config, options.allow_change, held)]
        dist.broadcast_object_list(decided, device=_device(device))
        status, told = decided[0]
        if status:
            return _fail(told, status) if rank == 0 else status
        return _train(TrainConfig.model_validate(told | {"device": device}), rank)


def _rank(config: TrainConfig) -> int:
    """Which of the run's processes this is, as torchrun says. Raises ConfigError."""
    missing = [
        name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} not set: start with torchrun --nproc_per_node {config.num_workers} "
            "-m training ..., or use `hallo3 train`"
        )
    world = int(os.environ["WORLD_SIZE"])
    if world != config.num_workers:
        raise ConfigError(
            f"num_workers={config.num_workers}, and torchrun started {world} processes; give "
            f"num_workers={world}, or --nproc_per_node {config.num_workers} over all nodes"
        )
    return int(os.environ["RANK"])


def _begin(config: TrainConfig, allowed: list[str], held: ExitStack) -> tuple[int, Any]:
    """Rank 0: the run's configuration as a dictionary with status 0, or what is wrong, with its status."""
    from pathlib import Path

    from training.prepare import PrepareError, prepare, ready
    from training.run_folder import RunFolderError, RunInUse, alone, save, settle

    try:
        held.enter_context(alone(Path(config.output)))
        held.enter_context(alone(Path(config.output), "worker"))
        config = settle(config, allowed)
        prepare(config)
        save(config)
        return 0, ready(config).model_dump(mode="json")
    except RunInUse as error:
        return PROBLEM, str(error)
    except (DatasetError, PrepareError, RunFolderError) as error:
        return WRONG_INPUT, str(error)
    except OSError as error:
        return PROBLEM, f"{error.filename}: {error.strerror}"


def _train(config: TrainConfig, rank: int) -> int:
    """This rank's part of the run."""
    import traceback
    from pathlib import Path

    from training.failures import note, words_of
    from training.launch import StopWish, listening
    from training.progress import Progress
    from training.run_folder import STOP
    from training.tracking import tracked
    from training.worker import train_worker

    wish = StopWish(folder=Path(config.output))
    try:
        with listening(wish), ExitStack() as told:
            progress = ending = None
            if rank == 0:
                (Path(config.output) / STOP).unlink(missing_ok=True)
                progress = told.enter_context(Progress())
                ending = told.enter_context(tracked(config, progress))
            train_worker(config, progress)
            if ending is not None:
                ending.killed = wish.signum is not None
    except Exception as error:  # noqa: BLE001 whatever it is, it is said in words, and kept
        note(config.output, f"rank {rank}: {traceback.format_exc()}")
        return _fail(f"rank {rank}: {words_of(error)}", PROBLEM)
    return wish.status if wish.signum is not None else 0


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _device(name: str) -> Any:
    import torch

    return torch.device(name, int(os.environ.get("LOCAL_RANK", 0))) if name == "cuda" else torch.device(name)


def _about_port(error: Exception) -> str:
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if "EADDRINUSE" in str(error) or "address already in use" in str(error):
        return f"{address} is in use by another process; give another --master-port, or --standalone"
    return f"the workers did not find each other at {address}: {str(error).partition(chr(10))[0]}"


def _fail(error: object, status: int) -> int:
    print(f"training: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    given_status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os._exit(
        given_status
    )  # as the interpreter ends, a thread of gloo may free what is gone already: an abort
