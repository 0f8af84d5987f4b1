"""A network at work gives what the network gives, in an array."""

import numpy as np
import torch
from torch import nn

from evaluation.networks import Extractor


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(x.double() * self.factor)

    def halves(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.factor


def test_an_array_gives_float32_features_without_gradients_or_dropout():
    frames = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(1, 0, 2)
    found = Extractor(Doubling().train(), "cpu")(frames)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 2.0 * frames)


def test_another_method_may_give_the_features():
    network = Doubling()
    found = Extractor(network, "cpu", network.halves)(torch.ones(2, 3))
    np.testing.assert_array_equal(found, np.full((2, 3), 0.5))
