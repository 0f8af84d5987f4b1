"""A network at work: arrays in, features out, wherever it lies and without what makes devices differ."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class Extractor:
    """Calls a network on batches.

    network: goes to `device`, the GPU where None and there is one. features: the method of it that gives the
    features; its `forward` where None.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | None = None,
        features: Callable[[Tensor], Tensor] | None = None,
    ):
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network.eval().to(self._device)
        self._features = features or network

    def __call__(self, batch: np.ndarray | Tensor) -> np.ndarray:
        """(B, ...) as the network wants it -> (B, D) float32."""
        given = torch.as_tensor(np.ascontiguousarray(batch) if isinstance(batch, np.ndarray) else batch)
        # TF32, which cuDNN takes by itself, moves features by 1e-3.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._features(given.to(self._device)).float().cpu().numpy()
