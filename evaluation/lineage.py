"""Where a checkpoint comes from, as far as its export says: digest, training run, step, datasets.

checkpoint -> sha256 of its weights (as generated videos carry it)
its config.json -> the step, the datasets that it was trained on, with version and digest
RUN/mlflow.json -> the training run in MLflow
"""

import json
from pathlib import Path
from typing import Any

from evaluation.animator import digest_of_files, weights_of
from training.mlflow_run import SENT
from training.run_folder import CONFIG


def about_checkpoint(checkpoint: Path, run: Path | None = None) -> dict[str, Any]:
    """What is known; JSON. Raises AnimateError, OSError.

    Args:
        run: that it is of; None: the folder where its export lies, if that is a run's.
    """
    weights = weights_of(checkpoint)
    about: dict[str, Any] = {"path": str(checkpoint), "sha256": digest_of_files(weights)}
    described = weights / "config.json"
    if described.is_file():
        training = json.loads(described.read_text("utf-8")).get("training", {})
        state = training.get("state", {})
        about |= {
            "step": state.get("step"),
            "phase": training.get("phase"),
            "datasets": [
                {key: data.get(key) for key in ("name", "version", "digest")}
                for data in state.get("samples", {}).get("datasets", [])
            ],
        }
    run = run or weights.parent
    if (run / SENT).is_file():
        sent = json.loads((run / SENT).read_text("utf-8"))
        about |= {"run": str(run), "mlflow_run": sent.get("run_id"), "mlflow_uri": sent.get("uri")}
    elif (run / CONFIG).is_file():
        about["run"] = str(run)
    return about
