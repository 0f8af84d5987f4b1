"""Before a video: does making it fit on this GPU, and with which of `hallo3 animate`'s flags would it?

    model, encoders, flags -> memory by moment and part (sampling_memory.py) against the GPU's
      -> the cheapest flags with which it fits, where it does not

No GPU and no weights are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from training.config import EncodersConfig
from training.frame_size import Size, for_frames, trained_size
from training.model.config import ModelConfig
from training.plan import Gpu
from training.sampling_memory import Beside, Moments, Ways, is_fitted, moments, weights_bytes

COARSE, FINE = (256, 384), (128, 192)
"""Tiles that are proposed."""


@dataclass(frozen=True)
class SamplingPlan:
    gpu: Gpu
    size: Size
    """Of the frames."""
    ways: Ways
    moments: Moments
    """Bytes on the GPU."""
    host_bytes: int
    """Of weights that are offloaded."""
    change: Ways | None
    """With which it fits: the given ones where it does, None where nothing makes it."""

    @property
    def largest(self) -> str:
        """The moment in which the GPU holds the most."""
        return _largest(self.moments)

    @property
    def gpu_bytes(self) -> float:
        return sum(self.moments[self.largest].values())

    @property
    def fits(self) -> bool:
        return self.change == self.ways


def sampling_plan(
    config: ModelConfig,
    encoders: EncodersConfig,
    gpu: Gpu,
    ways: Ways,
    size: Size | None = None,
) -> SamplingPlan:
    """What making videos takes, with guidance. (Without it: as much as in two passes.)

    Raises ValueError for a model that hears nothing, for frames that it cannot make, and for tiles of an
    autoencoder that knows none."""
    if config.audio is None:
        raise ValueError("the model has no audio part (phase identity): it animates nothing")
    if ways.tile is not None and is_fitted(encoders):
        raise ValueError("a fitted autoencoder knows no tiles; give none (--tile)")
    given, config = size or trained_size(config), for_frames(config, size)

    def fits(how: Ways) -> bool:
        found = moments(config, encoders, how, given)
        return sum(found[_largest(found)].values()) <= gpu.gb * 1e9

    beside = Beside.of(encoders)
    host = weights_bytes(config) + beside.speech + beside.autoencoder if ways.offload else 0
    change = next(filter(fits, from_cheapest(ways, is_fitted(encoders))), None)
    return SamplingPlan(gpu, given, ways, moments(config, encoders, ways, given), host, change)


def from_cheapest(ways: Ways, fitted: bool) -> Iterator[Ways]:
    """The given ways, then those that take less memory: in more time, with seams, in much more time."""
    tiles = [ways.tile, *(each for each in (COARSE, FINE) if not fitted and _smaller(each, ways.tile))]
    for offload, tile, two_passes in product((False, True), tiles, (False, True)):
        if offload >= ways.offload and two_passes >= ways.two_passes:
            yield Ways(two_passes, tile, offload)


def _smaller(tile: Size, than: Size | None) -> bool:
    return than is None or tile[0] * tile[1] < than[0] * than[1]


def _largest(found: Moments) -> str:
    return max(found, key=lambda name: sum(found[name].values()))
