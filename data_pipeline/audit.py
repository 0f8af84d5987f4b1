"""What is remembered of purges: `audit/purge-{version}.json`, without a name, a face or a source.

Begun before anything changes, finished when all is deleted.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from getpass import getuser
from importlib.metadata import version as package_version

from data_pipeline.dataset import Dataset, write_json
from data_pipeline.purge_plan import Plan
from data_pipeline.storage import Location
from data_pipeline.sweep import Swept


@dataclass(frozen=True, slots=True)
class Audit:
    """One purge."""

    asked: str
    reason: str | None
    by: str
    begun: str
    """UTC."""
    package_version: str
    version: int
    """That it made."""
    clips: int
    sources: int
    """That went as a whole."""
    versions_removed: list[int]
    tombstones: list[str]
    finished: str | None = None
    files_deleted: int | None = None
    """By the run that finished it; shards and tables that were written anew count whole."""
    bytes_deleted: int | None = None


def begin_audit(dataset: Dataset, plan: Plan, reason: str | None) -> Location:
    """Say, before anything changes, what is about to be deleted."""
    number = dataset.version.version + 1
    audit = Audit(
        asked=plan.asked,
        reason=reason,
        by=getuser(),
        begun=_now(),
        package_version=package_version("hallo3"),
        version=number,
        clips=len(plan.clips),
        sources=len(plan.contents),
        versions_removed=plan.versions,
        tombstones=plan.tombstones,
    )
    path = dataset.root / "audit" / f"purge-{number}.json"
    write_json(path, asdict(audit))
    return path


def unfinished_audits(dataset: Dataset) -> Iterator[tuple[Location, Audit]]:
    """Purges that were killed after their version was made, before everything was deleted."""
    paths: list[Location] = list((dataset.root / "audit").glob("purge-*.json"))
    for path in sorted(paths, key=str):
        audit = Audit(**json.loads(path.read_text("utf-8")))
        if audit.finished is None and {*audit.tombstones} <= {*dataset.version.tombstones}:
            yield path, audit


def finish_audits(dataset: Dataset, swept: Swept) -> list[Location]:
    """Say that all is deleted."""
    finished = []
    for path, audit in list(unfinished_audits(dataset)):
        done = {"finished": _now(), "files_deleted": swept.files, "bytes_deleted": swept.bytes}
        write_json(path, asdict(audit) | done)
        finished.append(path)
    return finished


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
