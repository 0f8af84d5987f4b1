"""What a weight is before it was trained.

The conditioning that Hallo3 adds starts as upstream's: cross-attention from N(0, 0.02), its output layers
from N(0, 0.02 / sqrt(2 * blocks)), biases zero. It is not zero-initialised, so the phase with audio does not
start exactly where the phase without it ended. The projectors start as torch's linear layers do. The
backbone, where it is not loaded but trained from nothing, follows the same rule, with closed gates
(adaLN-Zero, Peebles & Xie 2023).
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

STD = 0.02


@torch.no_grad()
def initialise(model: nn.Module, names: Iterable[str] | None = None) -> None:
    """Set the named entries of a PortraitModel's state dict (default: all) to their untrained values.

    On the meta device nothing is drawn: it would only import torch's compiler, which takes seconds.
    """
    state = model.state_dict()
    layers = 1 + max(int(name.split(".")[2]) for name in state if ".blocks." in name)
    for name in state if names is None else names:
        if ".rotary." not in name and not state[name].is_meta:
            initial_value_(name, state[name], state, layers)


def initial_value_(name: str, value: Tensor, state: dict[str, Tensor], layers: int) -> Tensor:
    """Fill one entry in place; `state` gives its neighbours' sizes, `layers` is the number of blocks."""
    module, _, leaf = name.rpartition(".")
    if leaf == "unused_position_embeddings":
        return value.zero_()
    if "_projector." in module and not module.endswith("norm"):
        fan_in = math.prod(state[f"{module}.weight"].shape[1:])
        return value.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
    if leaf == "bias":
        return value.zero_()
    if module.endswith("norm"):
        return value.fill_(1.0)
    if module.endswith("modulation") or module.endswith("head.linear"):
        return value.zero_()
    last_of_residual = module.endswith(("attention.out", "feed_forward.2"))
    return value.normal_(0.0, STD / math.sqrt(2 * layers) if last_of_residual else STD)
