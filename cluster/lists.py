"""`hallo3 sources`: a published list becomes a list of sources, and what is missing is named."""

import sys
from pathlib import Path

from data_pipeline.published_lists import import_list, write_list
from data_pipeline.sources import SourcesError

WRONG_INPUT = 2
SHOWN = 10


def run(name: str, annotations: Path, videos: str, output: Path) -> int:
    """Write the list; exit status 2 where the annotations are not of that format."""
    try:
        imported = import_list(name, annotations, videos)
    except SourcesError as error:
        print(f"hallo3: {error}", file=sys.stderr)
        return WRONG_INPUT
    missing = write_list(imported, output)
    print(f"{output}: {len(imported.sources)} clips of {len({s.uri for s in imported.sources})} videos")
    if missing:
        names = list(imported.missing)
        print(f"missing: {imported.n_missing_clips} clips of {len(names)} videos: {_some(names)}")
        print(f"  all of them, with their links: {missing}")
    for what, found in imported.refused.items():
        print(f"refused: {what}: {found}")
    return 0


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
