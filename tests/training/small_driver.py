"""`python -m tests.training.small_driver RUN STEPS`: a driver of small_run in a process of its own."""

import sys
from pathlib import Path

from cluster.launch import ray_session
from tests.training import small_run
from tests.training.test_launch import config
from training.launch import StopWish, listening, train_on_ray
from training.run_folder import alone

if __name__ == "__main__":
    given = config(Path(sys.argv[1]), max_steps=int(sys.argv[2]))
    wish = StopWish()
    with listening(wish), alone(Path(given.output)), ray_session(given.ray), listening(wish):
        train_on_ray(given, wish, lambda report: print(report, flush=True), work=small_run.train)
    sys.exit(wish.status if wish.signum else 0)
