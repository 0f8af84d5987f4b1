"""FID: do the pictures look like real ones? All frames of the generated clips against all of the real ones.

    frames (F, H, W, 3) -> Inception -> (F, 2048) -> Fréchet distance                fid
                        -> EfficientNet-Lite0 -> (F, 1280), without its weights      fd-efficientnet-lite0

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule ...", NeurIPS 2017. A distance of few frames is
too large, by how much depends on the features: compare figures of as many frames only.
"""

from typing import TYPE_CHECKING

import numpy as np

from data_pipeline import weights
from evaluation.metrics.feature_network import Choice, protocol_of, takes_published
from evaluation.metrics.frechet_metric import FEATURES, FrechetMetric
from evaluation.metrics.metric import Found, SeenClip

if TYPE_CHECKING:
    from evaluation.networks.inception import Variant

PUBLISHED, PUBLISHED_SIZE = "fid-inception", 2048
STAND_IN, STAND_IN_SIZE = "efficientnet-lite0", 1280
BATCH = 32
"""Frames that go through the network at a time."""


class Fid(FrechetMetric):
    """Of whole frames.

    network: which one looks. variant: whose way of bringing frames to Inception's size. device: where torch
    has the network; the GPU where None and there is one.
    """

    def __init__(
        self, network: Choice = "auto", variant: "Variant" = "pytorch-fid", device: str | None = None
    ):
        self._published = takes_published(network, PUBLISHED)
        self._variant: Variant = variant
        self._device = device
        if self._published:
            name, size, looked = "fid", PUBLISHED_SIZE, {**protocol_of(PUBLISHED), "preprocessing": variant}
        else:
            sized = "antialiased to 224 x 224, (x - 127) / 128"
            name, size = f"fd-{STAND_IN}", STAND_IN_SIZE
            looked = {**protocol_of(STAND_IN), "preprocessing": sized}
        super().__init__(name, size, {**looked, "frames": "all"})

    def setup(self) -> None:
        """Raises WeightsUnavailable."""
        from evaluation.networks import Extractor, efficientnet_lite0, inception

        network: inception.FidInception | efficientnet_lite0.EfficientNetLite0
        if self._published:
            path = weights.fetch(PUBLISHED) / inception.WEIGHTS_FILE
            network = inception.FidInception.load(path, self._variant)
        else:
            path = weights.fetch(STAND_IN) / efficientnet_lite0.WEIGHTS_FILE
            network = efficientnet_lite0.EfficientNetLite0.load(path)
        self._features = Extractor(network, self._device)

    def measure(self, clip: SeenClip) -> Found:
        pictures = clip.frames.transpose(0, 3, 1, 2)
        found = [self._features(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
        return Found(arrays={FEATURES: np.concatenate(found)})
