"""Where a clip's media lie: beside its measurements, in a shard of any version, or in another dataset.

A clip is encoded once and stored once. What a version keeps moves into its shards and leaves measured/;
what a later version needs again is read from the older one's shards. A merge reads from the datasets it
is made of; only what no shard of its own will hold is copied into measured/.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.dataset import Dataset
from data_pipeline.ledger import MEDIA, Ledger
from data_pipeline.shards import Place, read_sample
from data_pipeline.storage import Location, replacing


class MediaLost(Exception):
    """A clip whose media are nowhere; the message names it and says what to do."""


class StoredMedia:
    """The media of a ledger's clips, from `datasets`: the ledger's own and those that lend theirs."""

    def __init__(self, ledger: Ledger, datasets: Sequence[Dataset]) -> None:
        self.ledger = ledger
        measured = [Ledger(dataset.root, ledger.measure_sha256) for dataset in datasets]
        self._ledgers = [ledger, *(other for other in measured if other.root != ledger.root)]
        self._places: dict[str, tuple[Location, Place]] = {}
        for dataset in datasets:
            for number in dataset.versions():
                held = Dataset.open(dataset.root, number).places()
                self._places |= {clip_id: (dataset.root / "shards", place) for clip_id, place in held.items()}

    def read(self, sample: Mapping[str, Any]) -> dict[str, bytes]:
        """A clip's media by suffix. Raises MediaLost, and ShardError for a shard that cannot be read."""
        for ledger in self._ledgers:
            try:
                found = [path.read_bytes() for path in _paths(ledger, sample)]
            except FileNotFoundError:
                continue
            return dict(zip(MEDIA, found, strict=True))
        members = read_sample(*self._place(sample))
        return {suffix: members[sample["clip_id"] + suffix] for suffix in MEDIA}

    def bring_home(self, sample: Mapping[str, Any]) -> None:
        """Have a clip's media beside its measurements, wherever they lie now."""
        paths = _paths(self.ledger, sample)
        if all(path.exists() for path in paths):
            return
        for path, data in zip(paths, self.read(sample).values(), strict=True):
            with replacing(path) as temporary:
                temporary.write_bytes(data)

    def _place(self, sample: Mapping[str, Any]) -> tuple[Location, Place]:
        place = self._places.get(sample["clip_id"])
        if place is None:
            folder = self.ledger.folder(sample["source_sha256"])
            raise MediaLost(
                f"clip {sample['clip_id']} of {folder}: its media are neither in measured/ nor in a shard; "
                f"delete {folder} and run `hallo3 curate` again"
            )
        return place


def _paths(ledger: Ledger, sample: Mapping[str, Any]) -> list[Location]:
    return [ledger.folder(sample["source_sha256"]) / (sample["clip_id"] + suffix) for suffix in MEDIA]
