"""RUN/: what drives a run, whoever starts it again, and that one at a time writes it.

    first start   what is given -> datasets' versions and folders' whole names written down -> RUN/config.yaml
    any other     RUN/config.yaml, held against what is given -> RUN/config.yaml

So a dataset that gets a new version, or a preset that gets another value, does not change a run in its midst.
What is given otherwise is an error, unless its key is among those that may change: then it is written down,
and what was there before stays beside it as `config.before-{n}.yaml`.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from data_pipeline import config_file
from data_pipeline.config_file import ConfigError
from data_pipeline.dataset import Dataset
from data_pipeline.storage import replacing
from training.config import PRESETS, TrainConfig

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
STOP = "stop"
"""A file in RUN that asks the workers to save and end."""
ERROR = "error.txt"
"""A file in RUN: all that is known of what ended the run."""
PATHS = (
    ("encoders", "autoencoder"),
    ("encoders", "text"),
    ("encoders", "speech_weights"),
    ("start_from",),
)
"""Settings that may name something on this machine's disk."""


class RunFolderError(Exception):
    """A run that cannot be written or gone on with like this; the message says why and what to do."""


class RunInUse(RunFolderError):
    """Somebody else writes this run."""


@dataclass(frozen=True)
class Difference:
    """A setting that is given otherwise than the run has it."""

    key: str
    saved: Any
    given: Any


@contextmanager
def alone(root: Path, who: str = "driver", wait_s: float = 0.0) -> Iterator[None]:
    """Be the only `who` of a run, for as long as the context lasts; the system lets go if the process dies.

    Raises RunInUse after `wait_s`, OSError where the folder cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    holder = root / f".{who}"
    lock = FileLock(root / f".{who}.lock")
    try:
        lock.acquire(timeout=wait_s, poll_interval=0.2)
    except Timeout:
        by = holder.read_text("utf-8") if holder.exists() else "another process"
        raise RunInUse(
            f"{root} is being written by {by}; wait for it, stop it, or give another output"
        ) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        yield
    finally:
        lock.release()


def settle(given: TrainConfig, allowed: Sequence[str] = ()) -> TrainConfig:
    """The configuration that the run goes by. Nothing is written.

    Args:
        allowed: keys (or sections) that may differ from the saved configuration.

    Raises:
        RunFolderError: other values than saved, or a saved file that cannot be read.
        DatasetError: on a first start, a dataset that cannot be opened.
    """
    saved = saved_config(Path(given.output))
    if saved is None:
        return pinned(given)
    unknown = [key for key in allowed if _at(saved.model_dump(), key) is _NOTHING]
    if unknown:
        raise RunFolderError(f"--allow-change {unknown[0]}: there is no such key in a training configuration")
    found = differences(saved, given)
    refused = [one for one in found if not any(_within(one.key, key) for key in allowed)]
    if refused:
        lines = [f"  {one.key}: saved {one.saved!r}, given {one.given!r}" for one in refused]
        keys = " ".join(one.key for one in refused)
        raise RunFolderError(
            f"{given.output} is a run with other settings:\n" + "\n".join(lines) + "\n"
            f"Give the saved ones, give another output, or go on with the new ones: --allow-change {keys}"
        )
    changed = saved.model_dump(mode="json") | {"output": given.output}
    for one in found:
        _put(changed, one.key, one.given)
    try:
        return pinned(config_file.checked(TrainConfig, changed, [], str(Path(given.output) / CONFIG)))
    except ConfigError as error:
        raise RunFolderError(f"{given.output}: with what was changed: {error}") from None


def pinned(config: TrainConfig) -> TrainConfig:
    """The configuration with every dataset's version, and names that hold from any folder.

    Raises DatasetError.
    """
    values = config.model_dump(mode="json")
    values["dataset"] = []
    for share in config.datasets:
        dataset = Dataset.open(share.uri, share.version)
        version = dataset.version.version
        values["dataset"].append({"uri": _whole_name(share.uri), "weight": share.weight, "version": version})
    return TrainConfig.model_validate(_with_whole_names(values))


def save(config: TrainConfig) -> None:
    """Write RUN/config.yaml, if it says something else than what is there; what was there is kept."""
    path = Path(config.output) / CONFIG
    text = yaml.safe_dump(config.model_dump(mode="json", exclude={"output"}), sort_keys=False)
    if path.exists():
        if path.read_text("utf-8") == text:
            return
        number = len([*path.parent.glob("config.before-*.yaml")]) + 1
        os.replace(path, path.with_name(f"config.before-{number}.yaml"))
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def saved_config(root: Path) -> TrainConfig | None:
    """The configuration of the run in a folder, wherever that lies now; None where there is none.

    Raises RunFolderError.
    """
    path = root / CONFIG
    if not path.exists():
        return None
    try:
        values = config_file.read_values(PRESETS, str(path))
        return config_file.checked(TrainConfig, values | {"output": str(root)}, [], str(path))
    except ConfigError as error:
        raise RunFolderError(f"the saved configuration cannot be used: {error}") from None


def differences(saved: TrainConfig, given: TrainConfig) -> list[Difference]:
    """What is given, in a preset, a file or on the command line, and is otherwise in the run.

    Defaults that nobody gave are not compared, nor is where the run lies.
    """
    asked = _as_the_run_has_it(given, saved)
    values = saved.model_dump(mode="json")
    return [
        Difference(key, _at(values, key), value)
        for key, value in _leaves(asked)
        if key != "output" and _at(values, key) != value
    ]


def _as_the_run_has_it(given: TrainConfig, saved: TrainConfig) -> dict[str, Any]:
    """What was given and no defaults, with whole names, and the run's versions where none was given."""
    values = given.model_dump(mode="json", exclude_unset=True)
    versions = [share.version for share in saved.datasets]
    values["dataset"] = [
        {
            "uri": _whole_name(share.uri),
            "weight": share.weight,
            "version": share.version or (versions[number] if number < len(versions) else None),
        }
        for number, share in enumerate(given.datasets)
    ]
    return _with_whole_names(values)


def _with_whole_names(values: dict[str, Any]) -> dict[str, Any]:
    """In place: names of what lies on this machine's disk hold from any folder."""
    values["output"] = _whole_name(values["output"])
    for *sections, last in PATHS:
        section = values.get(sections[0], {}) if sections else values
        name = section.get(last)
        if name and name != "none" and Path(name).expanduser().exists():
            section[last] = _whole_name(name)
    return values


def _whole_name(name: str) -> str:
    """A local path from the root on; names in object stores and on hubs as they are."""
    return name if "://" in name else str(Path(name).expanduser().absolute())


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _at(values: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(values, Mapping) or name not in values:
            return _NOTHING
        values = values[name]
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for name in sections:
        if not isinstance(values.get(name), dict):
            values[name] = {}
        values = values[name]
    values[last] = value


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
