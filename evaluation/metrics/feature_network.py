"""Which network a Fréchet metric looks with: the published one, or the stand-in that travels in a package.

Figures of the two are never called by one name, and the choice is made when the metric is made, so that every
worker has the same one.
"""

from typing import Literal, get_args

from data_pipeline import weights

Choice = Literal["published", "stand-in", "auto"]
"""auto: the published network where its weights are in the cache of this machine, else the stand-in."""


def takes_published(choice: Choice, name: str) -> bool:
    """Whether the network is the one whose weights are registered by this name.

    Raises ValueError for a choice that is none."""
    if choice not in get_args(Choice):
        raise ValueError(f"network {choice!r} is none of {', '.join(get_args(Choice))}")
    return choice == "published" or (choice == "auto" and weights.registry()[name].is_cached())


def protocol_of(name: str) -> dict[str, object]:
    """What a metric's protocol says of a network: the name and sha256 of its weights."""
    (file,) = weights.registry()[name].files
    return {"network": name, "weights_sha256": file.sha256}
