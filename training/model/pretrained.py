"""Frozen models of others: from a local folder or by a hub's name, whole or refused in words.

- "/models/CogVideoX-5b-I2V": a folder with vae/, text_encoder/, tokenizer/;
- "/models/CogVideoX-5b-I2V/vae": the part itself;
- "zai-org/CogVideoX-5b-I2V": the same parts on the hub, or in its cache on this machine;
- "google/t5-v1_1-xxl": a repository of the hub that is the part itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any


class PretrainedError(RuntimeError):
    """A pretrained model is not there, or not whole; the message says where it was sought and what to do."""


def load_pretrained(load: Callable[..., Any], source: str | Path, part: str, **settings: Any) -> Any:
    """What `load` (a `from_pretrained`) makes of `part` of `source`.

    Args:
        source: a folder, or `organisation/name` of a hub.
        part: the folder of CogVideoX's layout in which it lies, e.g. "vae". A `source` without that folder
            is taken to be the part itself.

    Raises:
        PretrainedError: names the place, what failed there and how to get the files.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        place: Path = folder / part if (folder / part).is_dir() else folder
        return _attempt(load, source, part, str(place), local_files_only=True, **settings)
    if str(source).count("/") != 1 or str(source).startswith(("/", ".", "~")):
        raise PretrainedError(f"{source}: no such folder, and no hub's organisation/name. {_advice(part)}")
    try:
        return _attempt(load, source, part, str(source), subfolder=part, **settings)
    except PretrainedError as in_its_folder:
        try:
            return _attempt(load, source, part, str(source), **settings)
        except PretrainedError:
            raise in_its_folder from in_its_folder.__cause__


def load_whole(load: Callable[..., Any], source: str | Path, part: str, **settings: Any) -> Any:
    """As `load_pretrained`, for a network: refuses files in which weights are missing or of other sizes.

    (Left alone, the libraries would give those weights random values and only warn.)"""
    network, found = load_pretrained(load, source, part, output_loading_info=True, **settings)
    wrong = sorted(found["missing_keys"]) + [str(key) for key in found["mismatched_keys"]]
    if wrong:
        raise PretrainedError(
            f"{source}: {len(wrong)} weights of its {part} are missing or of other sizes, "
            f"the first is {wrong[0]}. {_advice(part)}"
        )
    return network.eval().requires_grad_(False)


def _attempt(load: Callable[..., Any], source: str | Path, part: str, *place: str, **settings: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return load(*place, **settings)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        cause = str(error).strip().splitlines()
        raise PretrainedError(
            f"{source}: its {part} could not be loaded from {place[0]}: "
            f"{type(error).__name__}: {cause[0] if cause else 'no more is known'}. {_advice(part)}"
        ) from error


def _advice(part: str) -> str:
    return (
        f"Download it where there is a network (`hf download zai-org/CogVideoX-5b-I2V "
        f"--include '{part}/*' --local-dir FOLDER`) and name FOLDER instead"
    )
