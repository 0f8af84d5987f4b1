"""MLflow gets an evaluation: figures, tables, the report, and where all of it comes from.

    OUTPUT/mlflow.json   which MLflow run it is, and of which figures.json MLflow has all
    params, metrics (BENCHMARK/FIGURE, .../low, .../high, .../n), tags of lineage
    figures.json, clips.parquet, report/ with its sample clips -> artifacts
    the checkpoint -> a version of the registered model; the gate passed -> the alias `champion` is its

What cannot be sent stays where it is, and the same command sends it. From a figure one walks to its clips:
run -> clips.parquet -> source_sha256; to its training: tags checkpoint_sha256, training_run, trained_on.
"""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from data_pipeline.storage import replacing
from evaluation.config import EvaluationConfig
from evaluation.report import FOLDER as REPORT
from evaluation.report import Compared
from evaluation.results import CLIPS, FIGURES, Beside, Evaluation
from training.mlflow_run import (
    LONGEST_VALUE,
    METRICS_AT_ONCE,
    RUN_KEY,
    SENT,
    is_there,
    parameters,
    send_params,
    without_password,
)
from training.tracking import DATABASE, ENVIRONMENT, environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
ARTIFACTS = "mlartifacts"
NOT_IN_A_NAME = re.compile(r"[^\w./ -]+")
CHECKPOINT = "checkpoint_sha256"
"""A tag of runs and of the model's versions."""


@dataclass(frozen=True)
class Sent:
    """OUTPUT/mlflow.json"""

    uri: str
    """Without its password."""
    key: str
    """A tag, by which a run is found that was made, and whose answer was lost."""
    figures_sha256: str
    run_id: str | None = None
    whole: bool = False
    """MLflow has all of it."""


def tracking_uri(config: EvaluationConfig, home: Path | None = None) -> str:
    """Where it is tracked: as configured, as the environment says, or a database in `home` (the output)."""
    database = (home or Path(config.output)).absolute() / DATABASE
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"


def send(
    evaluation: Evaluation,
    config: EvaluationConfig,
    compared: Compared | None,
    home: Path | None = None,
) -> str | None:
    """Send what MLflow lacks of an evaluation whose results are on the disk; the id of its run.

    None: tracking is off. Raises whatever MLflow does.

    Args:
        home: where the default database and its artifacts are; None: the output.
    """
    if not config.tracking.enabled:
        return None
    with environment(ENVIRONMENT):
        return _Sender(evaluation, config, compared, home or Path(config.output)).send()


def send_trend(evaluation: Evaluation, config: EvaluationConfig, watched: Path, home: Path) -> None:
    """Its figures at its step, into one run for all checkpoints of a training run. Raises as `send`."""
    if not config.tracking.enabled:
        return
    with environment(ENVIRONMENT):
        from mlflow import MlflowClient

        uri = tracking_uri(config, home)
        client = MlflowClient(tracking_uri=uri)
        experiment = experiment_of(client, config.tracking.experiment, uri, home)
        key = f"trend of {watched.absolute()}"
        found = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{key}'", max_results=1)
        tags = {RUN_KEY: key, "training_run": str(watched.absolute())}
        run = (
            found[0] if found else client.create_run(experiment, run_name=f"{watched.name}, trend", tags=tags)
        )
        log_metrics(client, run.info.run_id, metrics_of(evaluation), evaluation.checkpoint.get("step"))


class _Sender:
    def __init__(
        self, evaluation: Evaluation, config: EvaluationConfig, compared: Compared | None, home: Path
    ) -> None:
        self._evaluation, self._config, self._compared = evaluation, config, compared
        self._output, self._home = Path(config.output), home
        self._uri = tracking_uri(config, home)
        self._sent = self._noted()

    def send(self) -> str:
        from mlflow import MlflowClient

        if self._sent.whole and self._sent.run_id is not None:
            return self._sent.run_id
        client = MlflowClient(tracking_uri=self._uri)
        run_id = self._run(client)
        send_params(client, run_id, parameters(self._config))
        self._send_metrics(client, run_id)
        for key, value in self._tags().items():
            client.set_tag(run_id, key, value[:LONGEST_VALUE])
        for name in (FIGURES, CLIPS):
            client.log_artifact(run_id, str(self._output / name))
        client.log_artifacts(run_id, str(self._output / REPORT), REPORT)
        self._register(client, run_id)
        client.set_terminated(run_id)
        self._note(run_id=run_id, whole=True)
        return run_id

    def _noted(self) -> Sent:
        """What is noted, if it is of these figures and of this MLflow."""
        figures = hashlib.sha256((self._output / FIGURES).read_bytes() + self._verdict().encode()).hexdigest()
        uri = without_password(self._uri)
        try:
            found = Sent(**json.loads((self._output / SENT).read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return Sent(uri, uuid4().hex, figures)
        return (
            found if (found.uri, found.figures_sha256) == (uri, figures) else Sent(uri, uuid4().hex, figures)
        )

    def _note(self, **changes: Any) -> None:
        self._sent = Sent(**asdict(self._sent) | changes)
        with replacing(self._output / SENT) as temporary:
            temporary.write_text(json.dumps(asdict(self._sent), indent=1), "utf-8")

    def _run(self, client: "MlflowClient") -> str:
        if self._sent.run_id is not None and is_there(client, self._sent.run_id):
            return self._sent.run_id
        experiment = experiment_of(client, self._config.tracking.experiment, self._uri, self._home)
        self._note()  # its key, before MLflow has it
        found = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{self._sent.key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        name = self._config.tracking.run_name or self._output.name
        made = client.create_run(experiment, run_name=name, tags={RUN_KEY: self._sent.key})
        self._note(run_id=made.info.run_id)
        return str(made.info.run_id)

    def _send_metrics(self, client: "MlflowClient", run_id: str) -> None:
        log_metrics(client, run_id, metrics_of(self._evaluation), self._evaluation.checkpoint.get("step"))

    def _verdict(self) -> str:
        if self._compared is None or not self._compared.rules:
            return "none"
        return "passed" if self._compared.passed else "failed"

    def _tags(self) -> dict[str, str]:
        """Where figures come from, and what became of them."""
        about = self._evaluation.checkpoint
        tags = {"output": str(self._output.absolute()), "gate": self._verdict()}
        for key, name in (("sha256", CHECKPOINT), ("path", "checkpoint"), ("run", "training_run")):
            if about.get(key):
                tags[name] = str(about[key])
        for key in ("mlflow_run", "mlflow_uri"):
            if about.get(key):
                tags[f"training_{key}"] = str(about[key])
        if trained_on := about.get("datasets"):
            tags["trained_on"] = "; ".join(
                f"{data['name']}, version {data['version']} ({data['digest']})" for data in trained_on
            )
        for one in self._evaluation.benchmarks:
            tags[f"protocol.{one.name}"] = one.protocol_sha256
            tags[f"benchmark.{one.name}"] = one.protocol["benchmark"]["sha256"]
            if "dataset" in one.about:
                tags[f"dataset.{one.name}"] = f"{one.about['dataset']}, version {one.about['version']}"
                tags[f"dataset_digest.{one.name}"] = str(one.about["digest"])
        if self._compared is not None:
            tags["baseline"] = self._compared.baseline
            tags["broken_rules"] = "; ".join(str(one) for one in self._compared.broken)
        return tags

    def _register(self, client: "MlflowClient", run_id: str) -> None:
        """The checkpoint as a version of the model, once; and the alias, where the gate is passed."""
        about, model = self._evaluation.checkpoint, self._config.tracking.model
        if "sha256" not in about:
            return
        self._send_model(client, run_id, Path(about["path"]))
        version = self._version(client, run_id, about)
        if self._verdict() == "passed":
            client.set_registered_model_alias(model, CHAMPION, version)

    def _send_model(self, client: "MlflowClient", run_id: str, checkpoint: Path) -> None:
        """What describes the weights, and if asked for, they."""
        from evaluation.animator import weights_of

        weights = weights_of(checkpoint)
        if self._config.tracking.weights:
            send_files = client.log_artifacts if weights.is_dir() else client.log_artifact
            send_files(run_id, str(weights), "model")
            return
        for name in ("config.json", "README.md"):
            if (weights / name).is_file():
                client.log_artifact(run_id, str(weights / name), "model")

    def _version(self, client: "MlflowClient", run_id: str, about: Mapping[str, Any]) -> str:
        from mlflow.exceptions import MlflowException

        model = self._config.tracking.model
        try:
            client.get_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            client.create_registered_model(model)
        for one in client.search_model_versions(f"name='{model}'"):
            if one.tags.get(CHECKPOINT) == about["sha256"]:
                return str(one.version)
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        tags = {CHECKPOINT: about["sha256"], "checkpoint": str(about["path"]), "step": str(about.get("step"))}
        return str(client.create_model_version(model, source, run_id, tags=tags).version)


def experiment_of(client: "MlflowClient", name: str, uri: str, home: Path) -> str:
    """The experiment of this name; made where there is none."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A server has its own place for artifacts; without one MLflow would take the current folder.
    of_server = uri.startswith(("http:", "https:", "databricks"))
    beside = (home.absolute() / ARTIFACTS).as_uri()
    return str(client.create_experiment(name, artifact_location=None if of_server else beside))


def log_metrics(client: "MlflowClient", run_id: str, values: Mapping[str, float], step: int | None) -> None:
    """At a step, many at a time."""
    from mlflow.entities import Metric

    now_ms = round(time.time() * 1000)
    metrics = [Metric(name, value, now_ms, step or 0) for name, value in values.items()]
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[first : first + METRICS_AT_ONCE])


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """By MLflow's names; what is not known is left out."""
    found: dict[str, float] = {}
    for one in evaluation.benchmarks:
        found |= {f"{one.name}/attempted": one.attempted, f"{one.name}/scored": one.scored}
        found |= dict(_of(one.name, one.figures))
        for kind, bins in one.subgroups.items():
            for name, beside in bins.items():
                found |= dict(_of(f"{one.name}/{kind}/{name}", beside))
    return {NOT_IN_A_NAME.sub("", name): value for name, value in found.items()}


def _of(name: str, beside: Beside) -> Iterator[tuple[str, float]]:
    """Figures with intervals and counts, generated and real."""
    for side, figures in (("", beside.generated), ("/real", beside.real)):
        for figure in figures:
            place = f"{name}{side}/{figure.name}"
            values = {
                place: figure.value,
                f"{place}/low": figure.low,
                f"{place}/high": figure.high,
                f"{place}/n": float(figure.n),
            }
            yield from ((key, value) for key, value in values.items() if math.isfinite(value))
