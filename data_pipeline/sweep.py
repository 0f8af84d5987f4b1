"""sweep: delete every byte that tombstones cover, and every byte that no version names.

    report.html -> media that only a doomed version holds are saved -> doomed versions -> measured/
    -> listings -> shards, manifests, identities, labels, features that nothing names any more

What is to go follows from the current version's tombstones alone, so a sweep that was killed is simply
done again. Versions that name anything purged are removed as a whole: rewritten, their number would
stand for other samples than those somebody trained on. Nothing else may write the dataset meanwhile.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.dataset import Dataset, labels_path
from data_pipeline.ledger import Ledger, forget_clips
from data_pipeline.storage import Location, ObjectPath, read_table, remove_tree, replacing
from data_pipeline.stored_media import StoredMedia
from data_pipeline.tombstones import Tombstones

WORKERS = 8
OF_VERSIONS = ["clip_id", "source_sha256", "start_s", "end_s", "source_uris"]


@dataclass(slots=True)
class Swept:
    """What was deleted. A shard or table that was written anew without some of its clips counts whole."""

    files: int = 0
    bytes: int = 0


def doomed_versions(dataset: Dataset, tombstones: Tombstones) -> list[int]:
    """The versions that name anything which tombstones cover."""
    return [x for x in dataset.versions() if _names_covered(Dataset.open(dataset.root, x), tombstones)]


def _names_covered(version: Dataset, tombstones: Tombstones) -> bool:
    rows = version.manifest(OF_VERSIONS)
    names = zip(rows["source_sha256"].to_pylist(), rows["source_uris"].to_pylist(), strict=True)
    if any(
        tombstones.cover_content(sha256) or any(map(tombstones.cover_uri, uris)) for sha256, uris in names
    ):
        return True
    return tombstones.clips_without(rows).num_rows < rows.num_rows


def sweep(dataset: Dataset, ledger: Ledger) -> Swept:
    """Delete what `dataset`, at its current version, has tombstones for, everywhere else in it."""
    root, swept = dataset.root, Swept()
    tombstones = Tombstones(dataset.version.tombstones)
    _delete(root / "report.html", swept)
    doomed = doomed_versions(dataset, tombstones)
    _save_media(dataset, ledger, doomed, tombstones)
    for number in doomed:
        _delete(root / "versions" / f"{number}.json", swept)
    with ThreadPoolExecutor(WORKERS) as pool:
        for part in pool.map(
            lambda folder: _sweep_source(folder, tombstones), list(source_folders(ledger.root))
        ):
            swept.files, swept.bytes = swept.files + part.files, swept.bytes + part.bytes
    _sweep_listings(ledger.root, tombstones, swept)
    _sweep_unnamed(dataset, swept)
    return swept


def _save_media(dataset: Dataset, ledger: Ledger, doomed: list[int], tombstones: Tombstones) -> None:
    """Other people's clips, whose media no version that stays holds, would be lost with a doomed one."""
    held: set[str] = set()
    for number in set(dataset.versions()) - set(doomed):
        held |= Dataset.open(dataset.root, number).places().keys()
    media = StoredMedia(ledger, [dataset])
    for number in doomed:
        rows = Dataset.open(dataset.root, number).manifest([*OF_VERSIONS, "shard"])
        rows = tombstones.clips_without(rows.filter(pc.is_valid(rows["shard"])))
        for row in rows.to_pylist():
            if row["clip_id"] not in held and ledger.holds(row["source_sha256"]):
                media.bring_home(row)


def source_folders(measured: Location) -> Iterator[Location]:
    """The folder of every content in `measured/`."""
    if not measured.exists():
        return
    for prefix in measured.iterdir():
        if len(prefix.name) == 2 and prefix.is_dir():
            yield from prefix.iterdir()


def _sweep_source(folder: Location, tombstones: Tombstones) -> Swept:
    swept = Swept()
    if not tombstones.touch_content(folder.name):
        return swept
    before = _size_of(folder)
    whole = tombstones.cover_content(folder.name)
    if whole or not forget_clips(folder, lambda *clip: tombstones.cover_clip(folder.name, *clip)):
        remove_tree(folder)
    after = _size_of(folder)
    return Swept(before.files - after.files, before.bytes - after.bytes)


def _sweep_listings(measured: Location, tombstones: Tombstones, swept: Swept) -> None:
    listings: list[Location] = list(measured.glob("*.parquet"))
    for path in listings:
        rows = read_table(path)
        left = tombstones.listing_without(rows)
        if left.num_rows < rows.num_rows:
            swept.files, swept.bytes = swept.files + 1, swept.bytes + path.stat().st_size
            with replacing(path) as temporary:
                pq.write_table(left, temporary)


def _sweep_unnamed(dataset: Dataset, swept: Swept) -> None:
    """What a version that was removed named, and what a command that died left behind."""
    root = dataset.root
    versions = [Dataset.open(root, number).version for number in dataset.versions()]
    shards = {name for version in versions for name in version.shards}
    parts = {root / part for version in versions for part in version.manifest_sha256}
    numbers = {str(version.version) for version in versions}
    labels = {labels_path(root, version.labels_sha256) for version in versions if version.labels_sha256}
    stems = {name.removesuffix(".tar") for name in shards}
    named: dict[str, Callable[[Location], bool]] = {
        "shards": lambda path: path.name in shards,
        "manifest": lambda path: path in parts,
        "identities": lambda path: path.stem in numbers,
        "labels": lambda path: path in labels,
        # Parallel to the shards, and computed again from them where they are gone.
        "features": lambda path: path.name.split(".")[0] in stems,
    }
    for folder, is_named in named.items():
        for path in list(files_under(root / folder)):
            if not is_named(path):
                _delete(path, swept)
    for parent in (root, root / "versions", root / "measured", root / "audit"):
        for path in [path for path in parent.glob(".*") if path.is_file()]:
            _delete(path, swept)


def files_under(folder: Location) -> Iterator[Location]:
    """Every file in a folder and below it; none where there is no folder."""
    return (path for path in folder.glob("**/*") if isinstance(path, ObjectPath) or path.is_file())


def _size_of(folder: Location) -> Swept:
    sizes = [path.stat().st_size for path in files_under(folder)]
    return Swept(len(sizes), sum(sizes))


def _delete(path: Location, swept: Swept) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)
    swept.files, swept.bytes = swept.files + 1, swept.bytes + size
