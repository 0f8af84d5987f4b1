"""A published file of weights -> the network that it is of, or words on what is wrong with the file."""

import pickle
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from data_pipeline.weights import digest_of_file

Network = TypeVar("Network", bound=nn.Module)


def load_weights(network: Network, path: Path | str, sha256: str | None = None) -> Network:
    """`network` with the state dict of the file at `path`, in evaluation mode.

    sha256: of the file, where one is expected.

    Raises ValueError, saying what is wrong, where the file is no state dict of this network or another file
    than expected; WeightsUnavailable where there is none.
    """
    path, kind = Path(path), type(network).__name__
    found = digest_of_file(path)
    if sha256 not in (None, found):
        raise ValueError(f"{path} is not the expected file of {kind}: its sha256 is {found}, not {sha256}")
    state = _read(path, kind)
    _check(path, kind, state, network.state_dict())
    network.load_state_dict(state, strict=False)  # what is allowed to be missing, `_check` says
    return network.eval()


def _read(path: Path, kind: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a state dict of {kind}: torch finds more or less than plain tensors in it. Is it "
            f"a web page saved by mistake, or a scripted or pickled module? Of that, save its state_dict()"
        ) from error
    except (EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is cut short or damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict of {kind}")
    return state


def _check(path: Path, kind: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    # Counters of training steps are not in files of torch before 0.4.1, and evaluation does not read them.
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    if odd := sorted((needed - set(found)) | (set(found) - set(expected))):
        what = "is missing" if odd[0] in expected else "is none of its names"
        raise ValueError(f"{path} is not the state dict of {kind}: {len(odd)} names differ; {odd[0]} {what}")
    for name in sorted(needed):
        if found[name].shape != expected[name].shape:
            sizes = f"{tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
            raise ValueError(f"{path} is of another {kind}: {name} is {sizes}")
