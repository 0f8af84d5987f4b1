"""FVD: does the video move like a real one? Windows of 16 frames, of generated clips against real ones.

    frames (F, H, W, 3) -> windows (W, 16, ...) at a stride -> I3D -> (W, 400) -> Fréchet distance         fvd
                        -> without its weights: EfficientNet-Lite0 of every frame -> (W, 16, 320)
                        -> mean, and mean change from frame to frame, over a window -> (W, 640)
                                                                              fd-efficientnet-lite0-motion

Unterthiner et al., "Towards Accurate Generative Models of Video", 2018. The stand-in sees what pictures show
and how fast that changes, but not which way: played backwards a video gives the same. It takes the bottleneck
of the network (320), as benchmarks have hundreds of windows and not ten thousands.
"""

import numpy as np

from data_pipeline import weights
from evaluation.metrics.feature_network import Choice, protocol_of, takes_published
from evaluation.metrics.frechet_metric import FEATURES, FrechetMetric
from evaluation.metrics.metric import CannotScore, Found, SeenClip

PUBLISHED, PUBLISHED_SIZE = "i3d-kinetics-400", 400
STAND_IN, STAND_IN_SIZE = "efficientnet-lite0", 640
WINDOW = 16
"""Frames."""


class Fvd(FrechetMetric):
    """Of windows of 16 frames, at the clip's own rate; what is left at its end is not looked at.

    network: which one looks. stride: frames from one window to the next. eps: of I3D's batch norms, of which
    two circulate: 1e-3 and, in common FVD code, 1e-5. device: where torch has the network; the GPU where None
    and there is one.
    """

    def __init__(
        self, network: Choice = "auto", stride: int = WINDOW, eps: float = 1e-3, device: str | None = None
    ):
        if stride < 1:
            raise ValueError(f"a stride is 1 frame or more, not {stride}")
        self._published = takes_published(network, PUBLISHED)
        self._stride, self._eps, self._device = stride, eps, device
        windows = {"window_frames": WINDOW, "stride_frames": stride}
        if self._published:
            sized = "shorter side to 224, bilinear without antialiasing, centre crop, -1..1"
            looked = {**protocol_of(PUBLISHED), "batch_norm_eps": eps, "preprocessing": sized}
            super().__init__("fvd", PUBLISHED_SIZE, {**looked, **windows})
        else:
            sized = "antialiased to 224 x 224, (x - 127) / 128"
            looked = {**protocol_of(STAND_IN), "layer": "bottleneck", "preprocessing": sized}
            super().__init__(f"fd-{STAND_IN}-motion", STAND_IN_SIZE, {**looked, **windows})

    def setup(self) -> None:
        """Raises WeightsUnavailable."""
        from evaluation.networks import Extractor, efficientnet_lite0, i3d

        if self._published:
            path = weights.fetch(PUBLISHED) / i3d.WEIGHTS_FILE
            self._features = Extractor(i3d.I3D.load(path, self._eps), self._device)
        else:
            path = weights.fetch(STAND_IN) / efficientnet_lite0.WEIGHTS_FILE
            network = efficientnet_lite0.EfficientNetLite0.load(path)
            self._features = Extractor(network, self._device, network.bottleneck)

    def measure(self, clip: SeenClip) -> Found:
        """Raises CannotScore for a clip of fewer frames than a window."""
        if len(clip.frames) < WINDOW:
            raise CannotScore(f"{len(clip.frames)} frames; a window has {WINDOW}")
        features = self._of_windows(clip.frames) if self._published else self._of_pictures(clip.frames)
        return Found(arrays={FEATURES: features})

    def _of_windows(self, frames: np.ndarray) -> np.ndarray:
        import torch

        from evaluation.networks.i3d import prepare

        found = []
        for start in range(0, len(frames) - WINDOW + 1, self._stride):
            window = frames[start : start + WINDOW].transpose(3, 0, 1, 2)
            found.append(self._features(prepare(torch.tensor(window))[None]))
        return np.concatenate(found)

    def _of_pictures(self, frames: np.ndarray) -> np.ndarray:
        pictures = frames.transpose(0, 3, 1, 2)
        batches = range(0, len(pictures), WINDOW)
        features = np.concatenate([self._features(pictures[at : at + WINDOW]) for at in batches])
        return appearance_and_motion(features, self._stride)


def appearance_and_motion(features: np.ndarray, stride: int) -> np.ndarray:
    """(F, D) of frames -> (W, 2 D) of windows: their mean, then the mean absolute change a frame."""
    windows = np.lib.stride_tricks.sliding_window_view(features, WINDOW, axis=0)[::stride]  # (W, D, 16)
    change = np.abs(np.diff(windows, axis=2)).mean(axis=2)
    return np.concatenate([windows.mean(axis=2), change], axis=1)
