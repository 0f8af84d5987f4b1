"""`hallo3 dataset diff | merge | purge`: run, and say what came of it."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.config_file import ConfigError
from data_pipeline.dataset import Dataset, DatasetError

if TYPE_CHECKING:
    from data_pipeline.purge_plan import Plan

PROBLEM, WRONG_INPUT = 1, 2
SHOWN = 20


def diff(uri: str, other: str | None, before: int | None, after: int | None, as_json: bool) -> int:
    """What differs between two versions; of one dataset, the last two unless told."""
    from data_pipeline.diff import diff as compare
    from data_pipeline.diff import lines_of_diff

    try:
        new = Dataset.open(uri if other is None else other, after)
        if other is None and before is None:
            earlier = [number for number in new.versions() if number < new.version.version]
            if not earlier:
                raise DatasetError(f"{uri}: version {new.version.version} has no version before it")
            before = earlier[-1]
        found = compare(Dataset.open(uri, before), new)
    except DatasetError as error:
        return _fail(error, PROBLEM)
    print(json.dumps(asdict(found), indent=1) if as_json else "\n".join(lines_of_diff(found)))
    return 0


def merge(uris: Sequence[str], output: str, overrides: Sequence[str]) -> int:
    """Make one dataset of several."""
    from data_pipeline.merge import MergeError
    from data_pipeline.merge import merge as unite
    from data_pipeline.pack import PackError
    from data_pipeline.show import show

    try:
        merged = unite([Dataset.open(uri) for uri in uris], output, overrides)
    except ConfigError as error:
        return _fail(error, WRONG_INPUT)
    except (DatasetError, MergeError, PackError) as error:
        return _fail(error, PROBLEM)
    print("\n".join(show(Dataset.open(output))))
    print(f"  sources in more than one of them: {merged.shared_sources}")
    for rule in merged.other_policies:
        print(f"  the first dataset's rule counts: {rule.key}={rule.before}, not {rule.after}")
    return 0


def purge_source(uri: str, source: str, reason: str | None, delete: bool) -> int:
    """Take a source out."""
    from data_pipeline.purge_plan import plan_of_source

    return _purge(uri, lambda dataset: plan_of_source(dataset, source), reason, delete)


def purge_identity(uri: str, who: str, reason: str | None, delete: bool) -> int:
    """Take a person out, who is told by a picture or by an identity_id."""
    from data_pipeline.config import config_with
    from data_pipeline.purge_plan import plan_of_face, plan_of_identity

    def plan(dataset: Dataset) -> "Plan":
        if not Path(who).suffix:
            return plan_of_identity(dataset, who)
        return plan_of_face(dataset, Path(who), config_with(dataset.version.config, [], uri))

    return _purge(uri, plan, reason, delete)


def _purge(uri: str, find: Callable[[Dataset], "Plan"], reason: str | None, delete: bool) -> int:
    from data_pipeline.audit import unfinished_audits
    from data_pipeline.pack import PackError
    from data_pipeline.purge import purge
    from data_pipeline.purge_plan import NOTHING, PurgeError
    from data_pipeline.weights import WeightsUnavailable

    try:
        dataset = Dataset.open(uri)
        begun = any(unfinished_audits(dataset))
        if begun:
            print("an earlier purge was not finished" + ("; it is now" if delete else ", --yes finishes it"))
        if begun and delete:
            purge(dataset, NOTHING)
            dataset = Dataset.open(uri)
        try:
            plan = find(dataset)
        except PurgeError as error:
            if begun and delete:
                print(error)
                return 0
            raise
        print("\n".join(lines_of_plan(plan)))
        if not plan:
            return 0
        if not delete:
            print("a preview: nothing was deleted; --yes deletes it, for good")
            return 0
        done = purge(dataset, plan, reason)
    except (ConfigError, PurgeError) as error:
        return _fail(error, WRONG_INPUT)
    except (DatasetError, PackError, WeightsUnavailable, OSError) as error:
        return _fail(error, PROBLEM)
    print(f"version {done.version}; deleted {done.swept.files} files, {done.swept.bytes / 1e6:.1f} MB")
    print(f"audit record: {done.audit}")
    return 0


def lines_of_plan(plan: "Plan") -> Iterator[str]:
    """What would go, for a person to check before it does."""
    seconds = sum(clip.end_s - clip.start_s for clip in plan.clips)
    yield f"to purge      {len(plan.clips)} clips, {seconds / 60:.1f} min; {len(plan.contents)} whole sources"
    for clip in plan.clips[:SHOWN]:
        span = f"{clip.start_s:.1f} to {clip.end_s:.1f} s of {clip.source_sha256[:12]}"
        yield f"  {clip.clip_id}  {span}: {clip.why}"
    if len(plan.clips) > SHOWN:
        yield f"  and {len(plan.clips) - SHOWN} more clips"
    for uri in sorted({*plan.uris, *(uri for uris in plan.contents.values() for uri in uris)}):
        yield f"  source {uri} (it lies outside the dataset, and is not deleted)"
    if plan.versions:
        yield f"  versions {', '.join(map(str, plan.versions))} name them, and are removed"
    if plan.unmatched:
        yield f"  {plan.unmatched} clips hold no measured face: a picture cannot be compared with them"


def _fail(error: Exception, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
