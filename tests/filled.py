"""Networks with weights that follow from their names, to compare with what others computed from the same."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file of tests/golden."""
    from safetensors.numpy import load_file

    return load_file(GOLDEN / f"{name}.safetensors")


def golden_facts(name: str) -> dict[str, Any]:
    """What the JSON file of tests/golden says."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def fill(network: Any, gain: float, salt: str = "") -> Any:
    """Every weight of a torch module anew: see `filled`."""
    for name, value in network.state_dict().items():
        value.copy_(filled(name, value, gain, salt))
    return network


def filled(name: str, like: Any, gain: float = 1.0, salt: str = "") -> Any:
    """A tensor like the given one: normal numbers seeded by its full name, scaled by its fan-in."""
    import torch

    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros_like(like)
    if leaf in ("freqs_sin", "freqs_cos") or like.ndim == 0 or not like.is_floating_point():
        return like  # as constructed
    numbers = drawn(name, tuple(like.shape), salt)
    if leaf == "pos_embedding":
        return 0.2 * numbers
    if like.ndim >= 2:
        return numbers * (gain / math.sqrt(math.prod(like.shape[1:])))
    if leaf == "running_var":
        return 1 + 0.1 * numbers.abs()
    return 1 + 0.1 * numbers if leaf == "weight" else 0.1 * numbers


def drawn(name: str, shape: tuple[int, ...], salt: str = "") -> Any:
    """Normal numbers of a shape, float32, that follow from a name."""
    import torch

    digest = hashlib.sha256((salt + name).encode()).digest()
    seed = int.from_bytes(digest[:8], "little") & (2**63 - 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agrees_with(network: Any, checks: list[dict[str, Any]]) -> bool:
    """Whether the recorded first values and sums are those of the network's weights."""
    state = network.state_dict()
    return all(
        np.allclose(state[check["name"]].flatten()[:4], check["first4"], atol=1e-6)
        and math.isclose(state[check["name"]].double().sum(), check["sum"], abs_tol=1e-3)
        for check in checks
    )
