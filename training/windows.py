"""Which windows of a dataset are trained on, and which are held out to judge by.

    manifest -> kept clips of the split, long enough for a window, in their shards' order
      -> windows, `stride` frames apart, numbered shard after shard

Held out are the clips of the validation split. Where no dataset has one that is long enough, the training
split's last clips are (in order of clip_id, a digest), a tenth of them at most, and are not trained on.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.shards import Place
from training.config import TrainConfig
from training.features import FPS

NUMBERS = ["n_frames", "width", "height", "byte_offset", "byte_size"]
COLUMNS = ["clip_id", "split", "fps", "shard", *NUMBERS]
MOST_HELD_OUT = 10
"""One clip of so many, where the dataset itself has none for validation."""


class SamplesError(Exception):
    """A run that cannot have its samples; the message names the dataset or key, and the way out."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip in its shard."""

    clip_id: str
    place: Place
    n_frames: int
    height: int
    """Of its pictures, as the next."""
    width: int


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a clip: at `start`, or anywhere from there to before the next one's start."""

    clip: Clip
    start: int
    starts: int
    """How many frames a window may begin at, from `start` on."""


class Windows:
    """The windows of some clips of one dataset, numbered shard after shard.

    A clip's k-th window may begin at frames k * stride ... (k + 1) * stride - 1, as far as it has room.
    Nothing is made for a window before it is asked for: a dataset may have millions.
    """

    def __init__(self, clips: pa.Table, frames: int, stride: int) -> None:
        """`clips`: rows of COLUMNS, each at least `frames` long."""
        self.frames = frames
        self.stride = stride
        self._clips = clips.sort_by([("shard", "ascending"), ("byte_offset", "ascending")]).combine_chunks()
        self._numbers = {name: self._clips[name].to_numpy() for name in NUMBERS}
        """By clip: arrow makes a row of Python objects twenty times as slowly."""
        lengths = self._numbers["n_frames"]
        self._firsts = np.cumsum([0, *((lengths - frames) // stride + 1)])
        """The number of each clip's first window, and of all windows."""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, number: int) -> Window:
        """The window of a number (0 ... len - 1)."""
        at = int(np.searchsorted(self._firsts, number, side="right")) - 1
        clip = self.clip(at)
        start = (number - int(self._firsts[at])) * self.stride
        return Window(clip, start, min(self.stride, clip.n_frames - self.frames + 1 - start))

    def clip(self, at: int) -> Clip:
        """The clip at a place in the shards' order."""
        clip_id, shard = (self._clips[name][at].as_py() for name in ("clip_id", "shard"))
        place = Place(shard, int(self._numbers["byte_offset"][at]), int(self._numbers["byte_size"][at]))
        n_frames, height, width = (int(self._numbers[name][at]) for name in ("n_frames", "height", "width"))
        return Clip(clip_id, place, n_frames, height, width)

    @property
    def clips(self) -> int:
        return self._clips.num_rows

    @property
    def n_frames(self) -> int:
        """Of all clips."""
        return int(pc.sum(self._clips["n_frames"]).as_py() or 0)

    @cached_property
    def clip_ids(self) -> list[str]:
        """In the shards' order."""
        return self._clips["clip_id"].to_pylist()

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Windows of each shard, in their order."""
        begins = np.unique(self._clips["shard"].to_pylist(), return_index=True)[1]
        return tuple(int(size) for size in np.diff(self._firsts[[*begins, self.clips]]))


@dataclass(frozen=True)
class Selection:
    """One dataset of a run."""

    dataset: Dataset
    weight: float
    trained: Windows
    held_out: Windows


def select(config: TrainConfig) -> list[Selection]:
    """What each of the run's datasets is trained on and judged by; nothing is read but manifests.

    Raises:
        SamplesError: a dataset cannot be opened, has no clip to train on, or clips at another frame rate.
    """
    opened = [_open(share.uri, share.version) for share in config.datasets]
    tables = [_kept(dataset) for dataset in opened]
    _check_clips_named(config, tables)
    held_out = _held_out(config, tables)
    found = []
    for share, dataset, table, held in zip(config.datasets, opened, tables, held_out, strict=True):
        wanted = _split(table, config.samples.split).filter(~_is_in("clip_id", held))
        if config.samples.clips:
            wanted = wanted.filter(_is_in("clip_id", config.samples.clips))
        _check(config, dataset, table, wanted)
        trained = _windows(config, wanted)
        judged = _windows(config, table.filter(_is_in("clip_id", held)))
        if len(trained):
            found.append(Selection(dataset, share.weight, trained, judged))
    return found


def preview_clips(config: TrainConfig, n: int) -> list[tuple[Dataset, str]]:
    """`n` clips (fewer where there are fewer) to show what the model makes of them, the same ones every time.

    Held-out ones, evenly over all there are; those that are trained on where nothing is held out."""
    selections = select(config)
    for part in ("held_out", "trained"):
        there = [
            (each.dataset, clip_id) for each in selections for clip_id in sorted(getattr(each, part).clip_ids)
        ]
        if there:
            return [there[at] for at in evenly(len(there), n)]
    return []


def evenly(there: int, n: int) -> list[int]:
    """`n` of the numbers 0 ... there - 1 (all, where there are no more), evenly spaced, rising."""
    n = min(there, n)
    return [(2 * at + 1) * there // (2 * n) for at in range(n)]


def _open(uri: str, version: int | None) -> Dataset:
    try:
        return Dataset.open(uri, version)
    except (DatasetError, OSError) as error:
        raise SamplesError(f"dataset: {error}") from error


def _kept(dataset: Dataset) -> pa.Table:
    """The clips that the version holds, as rows of COLUMNS."""
    try:
        table = dataset.manifest(COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise SamplesError(
            f"dataset: {dataset.root}: its manifest cannot be read: {error}; try `hallo3 dataset verify`"
        ) from error
    table = table.filter(pc.is_valid(table["shard"]))
    if not table.num_rows:
        raise SamplesError(
            f"dataset: {dataset.root} keeps no clip; `hallo3 dataset show` says why clips were rejected"
        )
    return table


def _held_out(config: TrainConfig, tables: list[pa.Table]) -> list[set[str]]:
    """The clip_ids of each dataset that are held out; none where the run never validates."""
    if config.validation.every_steps is None:
        return [set() for _ in tables]
    of_the_split = [_long_enough(config, _split(table, config.validation.split)) for table in tables]
    if any(table.num_rows for table in of_the_split) and config.validation.split != config.samples.split:
        return [set(table["clip_id"].to_pylist()) for table in of_the_split]
    return [_last_of(config, _long_enough(config, _split(table, config.samples.split))) for table in tables]


def _last_of(config: TrainConfig, table: pa.Table) -> set[str]:
    """The last clips of a training split: as many as make the validation's windows, but MOST_HELD_OUT.

    Clips that a run is told to train on are left to it."""
    clip_ids = sorted({*table["clip_id"].to_pylist()} - {*config.samples.clips})
    lengths = dict(zip(table["clip_id"].to_pylist(), table["n_frames"].to_pylist(), strict=True))
    trained = table.num_rows - len(clip_ids)
    most = max(1, table.num_rows // MOST_HELD_OUT) if trained or len(clip_ids) > 1 else 0
    held: set[str] = set()
    windows = 0
    for clip_id in reversed(clip_ids):
        if len(held) >= most or windows >= config.validation.windows:
            break
        held.add(clip_id)
        windows += (lengths[clip_id] - config.sizes.num_frames) // config.samples.window_stride + 1
    return held


def _check_clips_named(config: TrainConfig, tables: list[pa.Table]) -> None:
    there = {
        clip_id for table in tables for clip_id in _split(table, config.samples.split)["clip_id"].to_pylist()
    }
    missing = [clip_id for clip_id in config.samples.clips if clip_id not in there]
    if missing:
        uris = ", ".join(share.uri for share in config.datasets)
        raise SamplesError(
            f"samples.clips: {uris} has no clip {', '.join(missing)} in {config.samples.split!r}"
        )


def _check(config: TrainConfig, dataset: Dataset, table: pa.Table, wanted: pa.Table) -> None:
    """Whether there is something to train on; of several datasets one may have none of the named clips."""
    split = config.samples.split
    if not _split(table, split).num_rows:
        there = ", ".join(sorted({*table["split"].to_pylist()} - {None}))
        raise SamplesError(f"samples.split: {dataset.root} has no clip in {split!r}; it has {there}")
    if not wanted.num_rows:
        if config.samples.clips and len(config.datasets) > 1:
            return
        raise SamplesError(f"dataset: {dataset.root}: all clips of {split!r} are held out; add clips")
    rates = {*wanted["fps"].to_pylist()} - {float(FPS)}
    if rates:
        raise SamplesError(
            f"dataset: {dataset.root} has clips of {rates.pop()} frames a second, models are trained on "
            f"{FPS}; curate with encode.fps={FPS}"
        )
    longest = pc.max(wanted["n_frames"]).as_py()
    if longest < config.sizes.num_frames:
        raise SamplesError(
            f"dataset: {dataset.root}: its longest clip in {split!r} has {longest} frames, a window of the "
            f"model {config.sizes.num_frames}; take longer clips, or fewer model.latent_frames"
        )


def _windows(config: TrainConfig, table: pa.Table) -> Windows:
    return Windows(
        _long_enough(config, table).select(COLUMNS), config.sizes.num_frames, config.samples.window_stride
    )


def _split(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.equal(table["split"], split))


def _long_enough(config: TrainConfig, table: pa.Table) -> pa.Table:
    return table.filter(pc.greater_equal(table["n_frames"], config.sizes.num_frames))


def _is_in(column: str, values: Collection[str]) -> pc.Expression:
    return pc.field(column).isin(pa.array(sorted(values), pa.string()))
