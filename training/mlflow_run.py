"""A run's counterpart in MLflow: made once, found again, and given what it lacks.

    RUN/mlflow.json  which MLflow run it is, the last step of each kind that it has, its files' states
    metrics.jsonl -> train/..., held_out/..., many rows at a time; null is NaN
    config        -> params; what was changed later: tags `changed.KEY`, as MLflow's params are for good
    config.yaml, report.html, samples/ ... -> artifacts, again when they have changed

A step is sent once. Rows go by their step, not by their place in the file, which a run that goes on writes
anew; and a row that is sent again, as its answer was lost, is the same row for MLflow.
"""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import BaseModel

from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.storage import replacing
from training.config import TrainConfig
from training.metrics import MetricsError
from training.run_folder import CONFIG, ERROR, METRICS

if TYPE_CHECKING:
    from mlflow import MlflowClient

SENT = "mlflow.json"
SENT_KINDS = ("train", "held_out")
NO_METRICS = ("step", "kind", "time_s", "not_finite")
METRICS_AT_ONCE = 1000
PARAMS_AT_ONCE = 100
LONGEST_VALUE = 6000
"""These three are MLflow's limits."""
RUN_KEY = "hallo3.run"
"""A tag, by which a run is found that was made, and whose answer was lost."""
FILES = (CONFIG, "deepspeed.json", "report.html", "export/README.md", "export/config.json")
LAST_FILES = (METRICS, ERROR)
"""At the end alone: the first of them grows with every step."""


@dataclass(frozen=True)
class Sent:
    """RUN/mlflow.json"""

    uri: str
    """Without its password."""
    key: str
    run_id: str | None = None
    steps: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    """Size and time of change, by name."""
    status: str = "RUNNING"
    """MLflow's word for it: FINISHED, FAILED, KILLED."""
    status_sent: str = ""
    ended_s: float | None = None

    @classmethod
    def of(cls, run: Path, uri: str) -> "Sent":
        """What is noted in a run's folder; nothing yet, if it is of another MLflow."""
        try:
            found = cls(**json.loads((run / SENT).read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls(without_password(uri), uuid4().hex)
        return found if found.uri == without_password(uri) else cls(without_password(uri), uuid4().hex)


class MlflowRun:
    """What one process sends of one run. Whatever MLflow raises comes out of `send`; then call it again."""

    def __init__(self, config: TrainConfig, uri: str) -> None:
        self.uri = uri
        self.folder = Path(config.output)
        self._config = config
        self.sent = Sent.of(self.folder, uri)
        self._lock = Lock()
        self._rows = GrowingRows(self.folder / METRICS)
        self._client: MlflowClient | None = None

    def has_news(self, ended: bool) -> bool:
        """Whether there is something for `send`. Nothing of MLflow is imported for it.

        Raises MetricsError.
        """
        known = self._client is not None or (ended and self.sent.run_id is not None)
        return known or bool(self._rows.batch(self.sent.steps, 1))

    def send(self, ended: bool) -> None:
        """All that there is now: rows, then how the run stands, then files."""
        client = self._client or self._connect()
        self._client, run_id = None, str(self.sent.run_id)
        while rows := self._rows.batch(self.sent.steps, METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=_metrics(rows))
            self.note(steps=self.sent.steps | {row["kind"]: row["step"] for row in rows})
            self._rows.done()
        self._rows.done()
        self._send_status(client, run_id)
        for name, path in self._new_files(ended):
            about = path.stat()
            client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)
            self.note(files=self.sent.files | {name: [about.st_size, about.st_mtime_ns]})
        self._client = client  # as it answers

    def note(self, **changes: Any) -> None:
        """Write down what has changed of `sent`. For any thread. Raises OSError."""
        with self._lock:
            self.sent = replace(self.sent, **changes)
            with replacing(self.folder / SENT) as temporary, temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(self.sent), file, indent=1)
                file.flush()
                os.fsync(file.fileno())

    def _send_status(self, client: "MlflowClient", run_id: str) -> None:
        status, ended_s = self.sent.status, self.sent.ended_s
        if status == self.sent.status_sent:
            return
        if ended_s is None:
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status, end_time=round(ended_s * 1000))
        self.note(status_sent=status)

    def _new_files(self, ended: bool) -> Iterator[tuple[str, Path]]:
        """What is new, or has changed since it was sent."""
        named = [self.folder / name for name in (*FILES, *(LAST_FILES if ended else ()))]
        for path in (*named, *sorted((self.folder / "samples").glob("step-*/[!.]*"))):
            if not path.is_file():
                continue
            name, about = path.relative_to(self.folder).as_posix(), path.stat()
            if self.sent.files.get(name) != [about.st_size, about.st_mtime_ns]:
                yield name, path

    def _connect(self) -> "MlflowClient":
        """The run in MLflow: the one that is noted, or a new one, with its params."""
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)  # of a new database
        client = MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment(client)
        if self.sent.run_id is None or not is_there(client, self.sent.run_id):
            run_id = self._find(client, experiment) or self._make(client, experiment)
            self.note(run_id=run_id, steps={}, files={}, status_sent="RUNNING")
            self._rows = GrowingRows(self.folder / METRICS)
        send_params(client, str(self.sent.run_id), parameters(self._config))
        return client

    def _experiment(self, client: "MlflowClient") -> str:
        name = self._config.tracking.experiment
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A server has its own place for artifacts; without one MLflow would take the current folder.
        of_server = self.uri.startswith(("http:", "https:", "databricks"))
        beside = (self.folder.absolute().parent / "mlartifacts").as_uri()
        return str(client.create_experiment(name, artifact_location=None if of_server else beside))

    def _find(self, client: "MlflowClient", experiment: str) -> str | None:
        found = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{self.sent.key}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _make(self, client: "MlflowClient", experiment: str) -> str:
        self.note()  # its key, before MLflow has it
        first = self._rows.batch({}, 1)
        made = client.create_run(
            experiment,
            start_time=round(1000 * (first[0]["time_s"] if first else time.time())),
            run_name=self._config.tracking.run_name or self.folder.name,
            tags=_tags(self._config) | {RUN_KEY: self.sent.key},
        )
        return str(made.info.run_id)


class GrowingRows:
    """The rows of a file that another process writes: whole ones, each once, also when it is written anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._at = self._next = 0

    def batch(self, steps: Mapping[str, int], n_metrics: int) -> list[dict[str, Any]]:
        """The next rows of SENT_KINDS beyond `steps`: as many as hold `n_metrics` values, or one. The same
        ones again until `done`. Empty: there are no more at present.

        Raises MetricsError.
        """
        file = self._opened()
        if file is None:
            return []
        rows: list[dict[str, Any]] = []
        file.seek(self._at)
        self._next, left = self._at, n_metrics
        for line in file:
            if not line.endswith(b"\n"):  # it is being written
                break
            row = self._row(line)
            if row["kind"] in SENT_KINDS and row["step"] > steps.get(row["kind"], 0):
                left -= len(row)
                if left < 0 and rows:
                    break
                rows.append(row)
            self._next += len(line)
        return rows

    def done(self) -> None:
        """The last batch is sent."""
        self._at = self._next

    def _opened(self) -> BinaryIO | None:
        """The file, from its start if another one has its name by now. It is kept open, so that the system
        cannot give its number to the next."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return None
        if self._file is not None:
            mine = os.fstat(self._file.fileno())
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) and there.st_size >= self._at:
                return self._file
            self._file.close()
        self._file, self._at = self._path.open("rb"), 0
        return self._file

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            return row | {"step": int(row["step"]), "kind": str(row["kind"]), "time_s": float(row["time_s"])}
        except (ValueError, TypeError, KeyError) as error:
            raise MetricsError(f"{self._path}: not a row of metrics: {line[:80]!r}: {error!r}") from None


def parameters(config: BaseModel) -> dict[str, str]:
    """A configuration as MLflow's params: `optimizer.learning_rate`, `dataset.0.uri`."""
    return {key: text[:LONGEST_VALUE] for key, text in _flat(config.model_dump(mode="json"))}


def without_password(uri: str) -> str:
    """As it may be shown and written down."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def send_params(client: "MlflowClient", run_id: str, given: Mapping[str, str]) -> None:
    """A run's params; where it has other ones already, tags say what has changed."""
    from mlflow.entities import Param, RunTag

    data = client.get_run(run_id).data
    new = [Param(key, value) for key, value in given.items() if key not in data.params]
    for first in range(0, len(new), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=new[first : first + PARAMS_AT_ONCE])
    changed = [
        RunTag(f"changed.{key}", value)
        for key, value in given.items()
        if data.params.get(key, value) != value or f"changed.{key}" in data.tags
    ]
    if changed:
        client.log_batch(run_id, tags=changed)


def _metrics(rows: list[dict[str, Any]]) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(
            f"{row['kind']}/{name}",
            float("nan") if value is None else float(value),
            round(row["time_s"] * 1000),
            row["step"],
        )
        for row in rows
        for name, value in row.items()
        if name not in NO_METRICS and (value is None or isinstance(value, int | float))
    ]


def is_there(client: "MlflowClient", run_id: str) -> bool:
    """Whether MLflow has the run, and nobody has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _tags(config: TrainConfig) -> dict[str, str]:
    opened = [_about_dataset(share.uri, share.version) for share in config.datasets]
    tags = {
        "phase": config.phase,
        "run_folder": str(Path(config.output).absolute()),
        "dataset": ", ".join(name for name, _ in opened),
        "dataset_digest": ", ".join(digest for _, digest in opened),
    }
    commit = _commit()
    return tags | ({"git_commit": commit} if commit else {})


def _about_dataset(uri: str, version: int | None) -> tuple[str, str]:
    """Its name with the version, and the digest that checkpoints and the model's card have."""
    from training.model.digest import digest_of

    try:
        dataset = Dataset.open(uri, version)
    except DatasetError:  # it may be gone when an old run is sent
        return f"{uri}, version {version}", "unknown"
    found = dataset.version
    digest = digest_of({}, shards=found.shards, manifest=found.manifest_sha256)
    return f"{dataset.name}, version {found.version}", digest


def _commit() -> str | None:
    """Of the checkout that this runs in, `-dirty` if something is changed there; None if there is none."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield from _flat({str(number): inner for number, inner in enumerate(value)}, name)
    else:
        yield name, str(value)
