"""A benchmark: items of (reference image, audio, ground-truth video, facts), under a hash of their content.

    where items come from -> entries: a name, what is in it (not where it lies), facts, how it is prepared
      a fixed list of another evaluation -> the same items, or by name what is missing or has changed
      -> sha256 over names and contents
    an entry -> prepared -> files in a folder: a reference picture, sound, a ground-truth video where one is

benchmark_of_dataset.py, benchmark_of_list.py and benchmark_of_published.py know where items come from.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.storage import replacing
from evaluation.config import BenchmarkConfig, ClipConfig

ITEMS = "items.jsonl"
Fact = str | float | None


class BenchmarkError(ValueError):
    """A benchmark that cannot be used; the message names it, and says what to do."""


class ItemError(ValueError):
    """An item that cannot be prepared; the message says why."""


@dataclass(frozen=True)
class BenchmarkItem:
    """One item, whose files are there."""

    name: str
    """Unique in the benchmark, and the name of files."""
    reference: Path
    audio: Path
    truth: Path | None
    """The ground-truth video; None where there is none, as in a wild set."""
    prompt: str = ""


Prepare = Callable[[Path], BenchmarkItem]
"""Puts files into a folder, or finds them where they are; may be sent to another process. Raises ItemError,
MediaError, OSError."""


@dataclass(frozen=True)
class Entry:
    """An item that is known, and not read yet."""

    name: str
    content: Mapping[str, Any]
    """What is in it: digests, times, boxes; JSON."""
    prepare: Prepare
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """For subgroups: yaw_deg_p95, language, face_fraction, and what else is known."""
    lineage: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from: clip_id, source_sha256, source_uris."""

    @property
    def digest(self) -> str:
        """sha256 of its content."""
        return hashlib.sha256(canonical(self.content).encode()).hexdigest()


@dataclass(frozen=True)
class Benchmark:
    """All items, in the order of their names."""

    name: str
    entries: list[Entry]
    missing: dict[str, str]
    """Of items that there should be, by name: the words why they are not here."""
    about: dict[str, Any]
    """Where it comes from, for people: format, version and digest of a dataset."""

    @property
    def sha256(self) -> str:
        """Over the names and contents of its items."""
        lines = [f"{entry.digest}  {entry.name}\n" for entry in self.entries]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def attempted(self) -> int:
        """Items that there are, and those that there should be."""
        return len(self.entries) + len(self.missing)


def open_benchmark(config: BenchmarkConfig, clip: ClipConfig) -> Benchmark:
    """A benchmark, read as far as it must be to know what is in it.

    Raises:
        BenchmarkError: it cannot be read, or has no item.
    """
    entries, missing, about = _read(config, clip)
    if config.items is not None:
        entries, more = _as_fixed(entries, Path(config.items))
        missing = {name: missing.get(name, words) for name, words in more.items()}
    elif config.max_items is not None:
        entries = sorted(entries, key=lambda entry: entry.digest)[: config.max_items]
    entries = sorted(entries, key=lambda entry: entry.name)
    _check_names(entries, config)
    if not entries:
        first = next(iter(missing.items()), None)
        why = f"; {len(missing)} are missing, such as {first[0]}: {first[1]}" if first else ""
        raise BenchmarkError(f"benchmark {config.uri}: there is no item in it{why}")
    return Benchmark(config.title, entries, missing, about)


def write_items(benchmark: Benchmark, path: Path) -> None:
    """Write what is in a benchmark, for `items` of another evaluation."""
    lines = [canonical({"name": entry.name, "sha256": entry.digest}) for entry in benchmark.entries]
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def canonical(value: Any) -> str:
    """JSON that is the same text for the same value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _read(config: BenchmarkConfig, clip: ClipConfig) -> tuple[list[Entry], dict[str, str], dict[str, Any]]:
    from evaluation.benchmark_of_dataset import entries_of_dataset
    from evaluation.benchmark_of_list import entries_of_list
    from evaluation.benchmark_of_published import entries_of_published

    kind = _format(config)
    if kind == "dataset":
        return entries_of_dataset(config)
    if kind == "list":
        return entries_of_list(Path(config.uri))
    return entries_of_published(kind, Path(config.uri), str(config.videos), clip)


def _format(config: BenchmarkConfig) -> str:
    if config.format != "auto":
        return config.format
    return "list" if Path(config.uri).suffix in (".csv", ".jsonl") else "dataset"


def _as_fixed(entries: Iterable[Entry], path: Path) -> tuple[list[Entry], dict[str, str]]:
    """The entries that a fixed list names, as it knows them; of the others the words."""
    known, kept, missing = {entry.name: entry for entry in entries}, [], {}
    for name, digest in _fixed(path).items():
        entry = known.get(name)
        if entry is None:
            missing[name] = "missing: the fixed list has it, the benchmark has not"
        elif entry.digest != digest:
            missing[name] = f"changed: sha256 {digest[:12]} in the fixed list, here {entry.digest[:12]}"
        else:
            kept.append(entry)
    return kept, missing


def _fixed(path: Path) -> dict[str, str]:
    """sha256 by name."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return {str(row["name"]): str(row["sha256"]) for row in rows}
    except OSError as error:
        raise BenchmarkError(f"benchmark.items: {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"benchmark.items: {path}: expected {{name, sha256}} a line, as an evaluation writes: {error!r}"
        ) from None


def _check_names(entries: list[Entry], config: BenchmarkConfig) -> None:
    """They are names of files, on any system."""
    seen: set[str] = set()
    for entry in entries:
        if entry.name.lower() in seen:
            raise BenchmarkError(f"benchmark {config.uri}: two items are called {entry.name}")
        if not entry.name or entry.name.startswith(".") or any(sign in entry.name for sign in '/\\:*?"<>|\0'):
            raise BenchmarkError(
                f"benchmark {config.uri}: {entry.name!r} cannot be a file's name; name items by letters, "
                "digits, dots and dashes"
            )
        seen.add(entry.name.lower())
