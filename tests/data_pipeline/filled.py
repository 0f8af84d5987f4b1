"""Networks with weights that follow from their names, to compare with what others computed from the same."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file of tests/golden."""
    from safetensors.numpy import load_file

    return load_file(GOLDEN / f"{name}.safetensors")


def golden_facts(name: str) -> dict[str, Any]:
    """What the JSON file of tests/golden says."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def fill(network: Any, gain: float, salt: str = "") -> Any:
    """Every weight of a torch module anew: normal numbers seeded by its name, scaled by its fan-in."""
    import torch

    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            value.zero_()  # num_batches_tracked
            continue
        digest = hashlib.sha256((salt + name).encode()).digest()
        seed = int.from_bytes(digest[:8], "little") & (2**63 - 1)
        numbers = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
        if value.ndim >= 2:
            value.copy_(numbers * (gain / math.sqrt(math.prod(value.shape[1:]))))
        elif name.endswith("running_var"):
            value.copy_(1 + 0.1 * numbers.abs())
        elif name.endswith("weight"):
            value.copy_(1 + 0.1 * numbers)
        else:
            value.copy_(0.1 * numbers)
    return network


def agrees_with(network: Any, checks: list[dict[str, Any]]) -> bool:
    """Whether the recorded first values and sums are those of the network's weights."""
    state = network.state_dict()
    return all(
        np.allclose(state[check["name"]].flatten()[:4], check["first4"], atol=1e-6)
        and math.isclose(state[check["name"]].double().sum(), check["sum"], abs_tol=1e-3)
        for check in checks
    )
